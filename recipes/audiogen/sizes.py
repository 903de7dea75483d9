"""What the presets take, computed from their YAML files alone: `make table` writes it into README.md.

B items of a batch, S steps, D width, K codebooks, T frames, V codebook size.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from preset_sizes import (
    CODEC_HEAD,
    GIB,
    INPUT,
    LOGIT,
    Content,
    codec_of,
    codec_row,
    lm_of,
    parameters,
    read,
    rows,
)

HERE = Path(__file__).parent
PRESETS = {
    "base": ("base",),
    "streams2": ("base", "streams2"),
    "streams4": ("base", "streams4"),
    "large": ("base", "large"),
    "medium": ("medium",),
}
CODECS = {
    "codec_stride32": ("codec_stride32",),
    "codec_stride64": ("codec_stride32", "codec_stride64"),
    "codec_stride128": ("codec_stride32", "codec_stride128"),
    "codec_medium": ("codec_stride32", "codec_medium"),
}
# Width, inner width, layers and heads of the T5s that are named.
T5 = {"t5-base": (768, 3072, 12, 12), "t5-large": (1024, 4096, 24, 16)}
STATE = 4 + 4 + 8
"""Bytes for each trained parameter in float32 or bf16-mixed: weight, gradient, Adam's two moments."""
AVERAGE = 4
"""And for its moving average."""
KEPT = 46
"""Bytes that a layer keeps for the way back, for each step and each unit of width, in bf16-mixed: 14 for attention, 10
for cross-attention, 22 for the feed-forward. (Counting what torch saves on a CPU gives 46.3.)"""


class Sizes(NamedTuple):
    """What one preset takes."""

    parameters: int
    t5: int
    plain: float
    """GiB kept for the way back by a batch, as the preset has it, on one GPU."""
    checkpointed: float

    def state(self, average: bool, ranks: int = 1) -> float:
        """GiB on each GPU for weights, gradients, moments and, if asked for, the average, sharded over ``ranks``."""
        return self.parameters * (STATE + AVERAGE * average) / ranks / GIB


def t5_parameters(name: str) -> int:
    """How many the encoder of a T5 has: embeddings, layers, the last norm, the table of relative positions."""
    width, inner, layers, heads = T5[name]
    layer = 4 * width * heads * 64 + 2 * width * inner + 2 * width
    return 32128 * width + layers * layer + width + 32 * heads


def sizes(content: Content) -> Sizes:
    """What a recipe's model takes."""
    lm = lm_of(content)
    config = lm.config
    data = content["data"]["init_args"]
    frames, batch = data["frames"], data["batch_size"]
    cells = batch * (1 + lm.pattern.num_steps(frames)) * config.transformer.dim
    layers = config.transformer.layers
    logits = batch * config.num_codebooks * frames * config.codebook_size * LOGIT
    return Sizes(
        parameters(lm),
        t5_parameters(config.text.name),
        (cells * KEPT * layers + logits) / GIB,
        (cells * (INPUT * layers + KEPT) + logits) / GIB,
    )


def preset_row(name: str) -> list[str]:
    """A preset's sizes; the released model alone averages its weights."""
    each, average = sizes(read(HERE, PRESETS[name])), name == "medium"
    state = [f"{each.state(average):.1f}", f"{each.state(average, 8):.2f}", f"{each.state(average, 64):.2f}"]
    kept = [f"{each.plain:.1f}", f"{each.checkpointed:.1f}"]
    return [f"`{name}`", f"{each.parameters / 1e6:,.1f} M", f"{each.t5 / 1e6:.1f} M", *state, *kept]


def table() -> str:
    """The tables of README.md."""
    state = ["state, one GPU or `ddp`", "`fsdp2` on 8", "on 64"]
    head = ["preset", "trained", "frozen T5", *state, "kept on the way", "checkpointed"]
    presets = rows([head, *map(preset_row, PRESETS)])
    codecs = [codec_row(name, codec_of(read(HERE, files))) for name, files in CODECS.items()]
    return "\n".join([*presets, "", *rows([CODEC_HEAD, *codecs])])
