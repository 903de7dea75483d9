"""What presets of published sizes take: their YAML files are read, and counted.

A recipe's sizes.py says which files its presets are laid together from, and what a row of its table holds;
tools/results.py writes that into the README.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.lm.model import LMConfig, StreamLM

GIB = 2**30
INPUT = 4
"""Bytes that gradient checkpointing keeps of a layer for each step and each unit of width: its input."""
LOGIT = 12
"""Bytes for each logit: as computed, in float32, and its gradient."""
CODEC_HEAD = ["codec", "trained", "stride", "codebooks", "frames a second", "bit/s"]
Content = dict[str, Any]


def read(folder: Path, names: Iterable[str]) -> Content:
    """A recipe's files, each laid upon the one before."""
    content: Any = {}
    for name in names:
        content = laid_upon(content, yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")))
    return dict(content)


def laid_upon(below: Any, above: Any) -> Any:
    """Mappings key by key; anything else is replaced."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: laid_upon(below.get(key), value) for key, value in above.items()}


def parameters(model: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(weight.numel() for weight in model.parameters())


def codec_of(content: Content) -> NeuralCodec:
    """A recipe's codec, without weights."""
    config = checkpoint.from_plain(CodecConfig, content["model"]["init_args"]["codec"], "codec")
    with torch.device("meta"):
        return NeuralCodec(config)


def lm_of(content: Content) -> StreamLM:
    """A recipe's language model, without weights."""
    config = checkpoint.from_plain(LMConfig, content["model"]["init_args"]["lm"], "lm")
    with torch.device("meta"):
        return StreamLM(config)


def rows(cells: list[list[str]]) -> list[str]:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


def codec_row(name: str, codec: NeuralCodec) -> list[str]:
    """A codec's sizes and rates, under CODEC_HEAD."""
    bits = codec.frame_rate * codec.num_codebooks * (codec.codebook_size - 1).bit_length()
    books = f"{codec.num_codebooks} x {codec.codebook_size:,}"
    size = f"{parameters(codec) / 1e6:.1f} M"
    return [f"`{name}`", size, f"{codec.hop}", books, f"{codec.frame_rate:g}", f"{bits:,.0f}"]
