"""Neural codecs and token language models for sound; public names are loaded when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audiolm_kit.audio import Sound as Sound
    from audiolm_kit.codec.foreign import ForeignCodec as ForeignCodec
    from audiolm_kit.codec.model import CodecConfig as CodecConfig
    from audiolm_kit.codec.model import NeuralCodec as NeuralCodec
    from audiolm_kit.codec.opening import open_codec as open_codec
    from audiolm_kit.codec.streaming import StreamingDecoder as StreamingDecoder
    from audiolm_kit.codec.streaming import StreamingEncoder as StreamingEncoder
    from audiolm_kit.evaluation.contrastive import ContrastiveScorer as ContrastiveScorer
    from audiolm_kit.evaluation.perceptual import ClapScorer as ClapScorer
    from audiolm_kit.inference.audiogen import AudioGen as AudioGen
    from audiolm_kit.inference.audiolm import AudioLM as AudioLM
    from audiolm_kit.inference.chain import StageSampling as StageSampling
    from audiolm_kit.inference.mutual_information import MutualInformation as MutualInformation
    from audiolm_kit.lm.model import LMConfig as LMConfig
    from audiolm_kit.lm.model import StreamLM as StreamLM
    from audiolm_kit.lm.sampling import Sampling as Sampling
    from audiolm_kit.semantic.tokenizer import SemanticTokenizer as SemanticTokenizer

__version__ = "0.1.0"

_HOMES = {
    "AudioGen": "inference.audiogen",
    "AudioLM": "inference.audiolm",
    "ClapScorer": "evaluation.perceptual",
    "CodecConfig": "codec.model",
    "ContrastiveScorer": "evaluation.contrastive",
    "ForeignCodec": "codec.foreign",
    "LMConfig": "lm.model",
    "MutualInformation": "inference.mutual_information",
    "NeuralCodec": "codec.model",
    "Sampling": "lm.sampling",
    "SemanticTokenizer": "semantic.tokenizer",
    "Sound": "audio",
    "StageSampling": "inference.chain",
    "StreamLM": "lm.model",
    "StreamingDecoder": "codec.streaming",
    "StreamingEncoder": "codec.streaming",
    "open_codec": "codec.opening",
}


def __getattr__(name: str) -> object:
    """Import the home of a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
