"""Models as small as they get: random weights of fixed seeds, language models in float64, where no rounding decides.

Tests of AudioGen find what else they share in small_audiogen.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.inference import streaming
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.inference.audiolm import AudioLM
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.lm.pattern import PatternName
from audiolm_kit.semantic.features import FeatureConfig, FrameFeatures
from audiolm_kit.semantic.tokenizer import SemanticTokenizer, with_centroids
from audiolm_kit.stages import Stage
from audiolm_kit.text import Vocabulary, train
from audiolm_kit.transformer import TransformerConfig

sys.path.insert(0, str(Path(__file__).parent))

MakeLM = Callable[..., StreamLM]
MakeAudioLM = Callable[..., AudioLM]


def a_semantic_tokenizer(seed: int = 0) -> SemanticTokenizer:
    """12 codes, 25 frames a second."""
    features = FrameFeatures(FeatureConfig("mel", sample_rate=8000, hop=320, num_mels=8))
    centroids = torch.randn(12, 8, generator=torch.Generator().manual_seed(seed))
    return with_centroids(features, centroids, torch.full((8,), -2.0), torch.full((8,), 2.0))


def a_codec(peak: float = 0.0, seed: int = 0) -> NeuralCodec:
    """4 codebooks of 16, 50 frames a second; its sounds reach about a tenth of full scale."""
    torch.manual_seed(seed)
    body = ConvNeXtConfig(dim=8, width=16, encoder_layers=1, decoder_layers=1, hop=80, fft_size=160, frames_per_code=2)
    quantizer = QuantizerConfig(num_codebooks=4, codebook_size=16, dim=8)
    return NeuralCodec(CodecConfig(sample_rate=8000, peak=peak, convnext=body, quantizer=quantizer)).eval()


def a_stage_lm(
    num_codebooks: int,
    codebook_size: int,
    prefix: Prefix | None = None,
    pattern: PatternName = "flatten",
    seed: int = 1,
) -> StreamLM:
    torch.manual_seed(seed)
    transformer = TransformerConfig(dim=16, heads=2, layers=1, positions="rotary")
    lm = StreamLM(LMConfig(num_codebooks, codebook_size, pattern, transformer, prefix=prefix or Prefix()))
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return lm.double().eval()


def an_audiolm(names: str = "semantic coarse fine", deduplicated: bool = True, peak: float = 0.0) -> AudioLM:
    """Windows of 2, 0.6 and 0.2 s, 10 semantic codes a second, 2 coarse and 2 fine codebooks."""
    rate = 10.0 if deduplicated else 25.0
    makers = {
        "semantic": lambda: (Stage("semantic", (0, 1), 2.0, (0, 0), deduplicated, rate), a_stage_lm(1, 12)),
        "coarse": lambda: (
            Stage("coarse", (0, 2), 0.6, (0, 1), deduplicated, rate),
            a_stage_lm(2, 16, Prefix(1, 12), seed=2),
        ),
        "fine": lambda: (Stage("fine", (2, 4), 0.2, (0, 2)), a_stage_lm(2, 16, Prefix(2, 16), seed=3)),
        "acoustic": lambda: (
            Stage("acoustic", (0, 4), 0.6, (0, 1), deduplicated, rate),
            a_stage_lm(4, 16, Prefix(1, 12), "delay", seed=4),
        ),
    }
    return AudioLM(a_semantic_tokenizer(), a_codec(peak), {name: makers[name]() for name in names.split()})  # type: ignore[misc]


@pytest.fixture(scope="session")
def make_audiolm() -> MakeAudioLM:
    """``an_audiolm`` itself: a model of chosen stages."""
    return an_audiolm


@pytest.fixture(scope="session")
def make_stage_lm() -> MakeLM:
    """``a_stage_lm`` itself."""
    return a_stage_lm


@pytest.fixture(scope="session")
def make_semantic() -> Callable[..., SemanticTokenizer]:
    """``a_semantic_tokenizer`` itself."""
    return a_semantic_tokenizer


@pytest.fixture(scope="session")
def make_codec() -> Callable[..., NeuralCodec]:
    """``a_codec`` itself."""
    return a_codec


@pytest.fixture(scope="session")
def audiolm() -> AudioLM:
    """Semantic, coarse and fine."""
    return an_audiolm()


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """Of the texts of small_audiogen."""
    from small_audiogen import TEXTS

    return train(TEXTS, tmp_path_factory.mktemp("text") / "text.model", size=40)


@pytest.fixture(scope="module")
def model(vocabulary: Vocabulary) -> AudioGen:
    """An AudioGen."""
    from small_audiogen import a_model

    return a_model(vocabulary)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The codes [B, K, T] of every batch of sounds that is decoded."""
    seen: list[Tensor] = []
    decode = streaming.decode

    def watched(codec: NeuralCodec, codes: Tensor) -> Tensor:
        seen.append(codes)
        return decode(codec, codes)

    monkeypatch.setattr(streaming, "decode", watched)
    return seen
