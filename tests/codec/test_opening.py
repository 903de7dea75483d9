"""A codec is opened by what its folder says that it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from audiolm_kit import checkpoint
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.foreign import ForeignCodec, ForeignConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.opening import AnyCodec, open_codec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.transformer import TransformerConfig

DAC = {"encoder_hidden_size": 2, "decoder_hidden_size": 4, "downsampling_ratios": [4], "codebook_size": 8}
BODY = ConvNeXtConfig(dim=4, width=8, encoder_layers=1, decoder_layers=1, hop=8, fft_size=32, frames_per_code=1)


def made(kind: str) -> AnyCodec:
    if kind == "foreign":
        return ForeignCodec(ForeignConfig("dac", json.dumps(DAC)))
    return NeuralCodec(CodecConfig(convnext=BODY, quantizer=QuantizerConfig(num_codebooks=2, dim=4)))


@pytest.mark.parametrize("kind", ["ours", "foreign"])
def test_each_kind_is_opened_as_what_it_is(kind: str, tmp_path: Path) -> None:
    codec = made(kind)
    checkpoint.save(codec, tmp_path / "codec")
    opened = open_codec(str(tmp_path / "codec"))
    assert type(opened) is type(codec) and opened.config == codec.config and not opened.training
    assert checkpoint.fingerprint(opened) == checkpoint.fingerprint(codec)
    codes = torch.zeros(1, 2, 3, dtype=torch.long)
    assert torch.equal(opened.decode(codes), codec.eval().decode(codes))


def test_what_is_no_codec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        open_codec(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        open_codec(tmp_path)
    checkpoint.save(StreamLM(LMConfig(transformer=TransformerConfig(dim=8, heads=1, layers=1))), tmp_path / "lm")
    with pytest.raises(ValueError, match="holds a StreamLM, wanted a NeuralCodec"):
        open_codec(tmp_path / "lm")
