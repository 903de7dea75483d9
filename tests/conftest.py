"""What every test gets: no network, one thread, a fresh interpreter on request, and no gpu test without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from audiolm_kit import checkpoint, text
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.transformer import TransformerConfig

sys.path.append(str(Path(__file__).parent))  # pages.py, which several test files share
os.environ["HF_HUB_OFFLINE"] = "1"  # transformers and datasets read it when they are imported, which is later
torch.set_num_threads(1)  # small tensors are slower on several


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def run_python() -> Callable[[str], str]:
    """Run code in a fresh interpreter and return what it prints."""

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture(scope="session")
def audiogen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AudioGen checkpoint of random weights: 2 codebooks of 16 at 100 Hz, 8 kHz, captions by the small encoder."""
    folder = tmp_path_factory.mktemp("audiogen")
    torch.manual_seed(0)
    body = ConvNeXtConfig(dim=8, width=16, encoder_layers=1, decoder_layers=1, hop=40, fft_size=160, frames_per_code=2)
    quantizer = QuantizerConfig(num_codebooks=2, codebook_size=16, dim=8)
    codec = NeuralCodec(CodecConfig(sample_rate=8000, convnext=body, quantizer=quantizer))
    transformer = TransformerConfig(dim=16, heads=2, layers=1, cross_attention=True)
    captions = TextConfig(kind="small", dim=8, layers=1, heads=1, pieces=64)
    lm = StreamLM(LMConfig(num_codebooks=2, codebook_size=16, transformer=transformer, text=captions))
    text.train(["a bell rings", "rain on a roof", "a dog barks twice"], folder / "text.model", size=40)
    checkpoint.write_into(codec, folder / "codec")
    checkpoint.write_into(lm, folder / "lm")
    fingerprints = {"codec": checkpoint.fingerprint(codec), "lm": checkpoint.fingerprint(lm)}
    about = {"format": checkpoint.FORMAT, "kind": "AudioGen", "fingerprints": fingerprints}
    checkpoint.write_json(folder / checkpoint.CONFIG, about)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint folder, as AudioGen saves it, of a model as small as models get."""
    from audiolm_kit.inference.audiogen import AudioGen

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("trained")
    body = ConvNeXtConfig(dim=8, width=8, encoder_layers=1, decoder_layers=1, hop=80, fft_size=160, frames_per_code=2)
    quantizer = QuantizerConfig(num_codebooks=2, codebook_size=16, dim=8)
    vocabulary = text.train(["a bell rings", "rain falls"], folder / "text.model", size=30)
    captions = TextConfig(kind="small", dim=8, layers=1, heads=1, pieces=vocabulary.size)
    transformer = TransformerConfig(dim=8, heads=1, layers=1, cross_attention=True)
    lm = StreamLM(LMConfig(num_codebooks=2, codebook_size=16, transformer=transformer, text=captions))
    codec = NeuralCodec(CodecConfig(sample_rate=8000, convnext=body, quantizer=quantizer))
    AudioGen(codec, lm, TextConditioner(captions, vocabulary)).save(folder / "model")
    return folder / "model"


T5_CAPTIONS = ("a dog barks twice", "rain", "a bell rings and a siren wails far away")


def a_t5_config(**options: Any) -> Any:
    """As small as they get, of all words of T5_CAPTIONS."""
    from transformers import T5Config

    return T5Config(vocab_size=20, d_model=12, d_kv=4, d_ff=16, num_layers=2, num_heads=3, **options)


def save_a_t5_tokenizer(folder: str, *more: str) -> None:
    """Of the words of T5_CAPTIONS, and of more."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *sorted({word for each in T5_CAPTIONS for word in each.split()}), *more]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


@pytest.fixture(scope="session")
def t5_config() -> Callable[..., Any]:
    """``a_t5_config`` itself."""
    return a_t5_config


@pytest.fixture(scope="session")
def save_t5_tokenizer() -> Callable[..., None]:
    """``save_a_t5_tokenizer`` itself."""
    return save_a_t5_tokenizer


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a real T5 encoder of random weights, 12 wide, and a real tokenizer, both tiny."""
    from transformers import T5EncoderModel

    folder = str(tmp_path_factory.mktemp("t5"))
    save_a_t5_tokenizer(folder)
    torch.manual_seed(0)
    T5EncoderModel(a_t5_config()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def scorer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLAP of random weights that reads the labels "a bell rings" and "rain falls"."""
    from audiolm_kit.evaluation.contrastive import KIND, PART, ContrastiveConfig, ContrastiveModel

    torch.manual_seed(0)
    text = TextConfig(kind="labels", dim=4, labels=("a bell rings", "rain falls"))
    config = ContrastiveConfig(8000, 0.4, fft_size=128, hop=80, mels=12, filters=(4, 4), dim=8, text=text)
    folder = tmp_path_factory.mktemp("scorer") / "scorer"
    checkpoint.save_bundle(folder, KIND, {PART: ContrastiveModel(config)}, {})
    return folder
