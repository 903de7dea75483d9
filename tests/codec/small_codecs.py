"""Codecs as small as they get, of ten frames a second, so that short sounds meet every border of a stream."""

from __future__ import annotations

import dataclasses
from typing import Any

from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig

CONVNEXT = CodecConfig(
    sample_rate=160,
    convnext=ConvNeXtConfig(dim=4, width=8, encoder_layers=2, decoder_layers=2, hop=8, fft_size=32, frames_per_code=2),
    quantizer=QuantizerConfig(num_codebooks=3, codebook_size=16, dim=4),
)


def seanet(**options: Any) -> CodecConfig:
    """The same rate by the other body."""
    body = SEANetConfig(**{"ratios": (4, 2, 2), "filters": 4, "dim": 4} | options)
    return dataclasses.replace(CONVNEXT, body="seanet", seanet=body, sample_rate=10 * body.hop)


def convnext(**options: Any) -> CodecConfig:
    """CONVNEXT with another body."""
    return dataclasses.replace(CONVNEXT, convnext=dataclasses.replace(CONVNEXT.convnext, **options))
