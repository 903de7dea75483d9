"""MusicGen as small as it gets, and folders of it that are tampered with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.official.parts import Parts, conditioner_of
from audiolm_kit.transformer import TransformerConfig

K, V, D = 2, 16, 16
CAPTIONS = ["rain", "a bell rings"]
WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
SMALL_T5 = {"vocab_size": 8, "d_model": 12, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}


def a_codec(**changes: Any) -> NeuralCodec:
    torch.manual_seed(1)
    body = SEANetConfig(ratios=(4, 2), filters=2, dim=4, lstm=1, causal=False, shortcut="identity")
    quantizer = QuantizerConfig(num_codebooks=K, codebook_size=V, dim=4)
    return NeuralCodec(replace(CodecConfig(8000, body="seanet", seanet=body, quantizer=quantizer), **changes)).eval()


def a_model(**changes: Any) -> StreamLM:
    torch.manual_seed(2)
    transformer = TransformerConfig(dim=D, heads=2, layers=2, cross_attention=True)
    return StreamLM(replace(LMConfig(num_codebooks=K, codebook_size=V, transformer=transformer), **changes)).eval()


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "a", "bell", "rings", "rain"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def assert_equal(found: Parts, expected: Parts) -> None:
    """The same models, and captions that are read alike."""
    for one, other in ((found.lm, expected.lm), (found.codec, expected.codec)):
        ours, theirs = one.state_dict(), other.state_dict()
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    reads, wanted = conditioner_of(found), conditioner_of(expected)
    assert reads is not None and wanted is not None
    assert torch.equal(reads.prepare(CAPTIONS).content, wanted.prepare(CAPTIONS).content)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a folder says of itself."""
    about = checkpoint.read_json(folder / "config.json")
    change(about)
    (folder / "config.json").write_text(json.dumps(about))


def reweigh(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Change its weights."""
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
