"""What fine-tuning keeps and learns, counted for the published sizes: `make table` writes it into README.md."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import yaml

from audiolm_kit.conditioning import TextConfig
from audiolm_kit.lm.lora import LoRAConfig, add, trained_weights
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.transformer import TransformerConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from preset_sizes import GIB, parameters, rows

HERE = Path(__file__).parent
BASES = {  # width, heads, layers, width of the T5
    "musicgen-small": (1024, 16, 24, 768),
    "musicgen-medium": (1536, 24, 48, 768),
    "musicgen-large": (2048, 32, 48, 768),
    "audiogen-medium": (1536, 24, 48, 1024),
}
KEPT, LEARNED = 4, 12
"""Bytes for each weight, and more for each that learns: its gradient and Adam's two moments."""


def base_row(name: str, lora: LoRAConfig) -> list[str]:
    """What one base takes."""
    dim, heads, layers, text = BASES[name]
    transformer = TransformerConfig(dim, heads, layers, cross_attention=True)
    with torch.device("meta"):
        lm = StreamLM(LMConfig(4, 2048, transformer=transformer, text=TextConfig(kind="t5", dim=text)))
        weights = parameters(lm)
        learned = sum(weight.numel() for weight in trained_weights(add(lm, lora)).values())
    frugal = (KEPT * (weights + learned) + LEARNED * learned) / GIB
    counts = [f"{weights / 1e6:,.0f} M", f"{learned / 1e6:.1f} M", f"{KEPT * learned / 1e6:.0f} MB"]
    return [name, *counts, f"{frugal:.1f} GiB", f"{(KEPT + LEARNED) * weights / GIB:.1f} GiB"]


def table() -> str:
    """The table of README.md."""
    content = yaml.safe_load((HERE / "lora.yaml").read_text(encoding="utf-8"))
    lora = LoRAConfig(**content["model"]["init_args"]["lora"])
    memory = ["weights, gradients, moments: `lora`", "`full`"]
    head = ["base", "weights", "that learn", "adapters' file", *memory]
    return "\n".join(rows([head, *(base_row(name, lora) for name in BASES)]))
