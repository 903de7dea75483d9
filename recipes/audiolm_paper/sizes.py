"""What the stages take, computed from their YAML files alone: `make table` writes it into README.md.

B items of a batch, S steps, D width, H heads, K codebooks, T frames, V codebook size.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from preset_sizes import CODEC_HEAD, GIB, INPUT, LOGIT, codec_of, codec_row, lm_of, parameters, read, rows

HERE = Path(__file__).parent
STAGES = {
    "semantic": ("semantic",),
    "coarse": ("semantic", "coarse"),
    "fine": ("semantic", "fine"),
    "acoustic": ("semantic", "acoustic"),
    "coarse_piano": ("semantic", "coarse", "coarse_piano"),
}
CODECS = {"codec": ("codec",), "codec_piano": ("codec", "codec_piano")}
CODEC_OF = {"coarse": "codec", "fine": "codec", "acoustic": "codec", "coarse_piano": "codec_piano"}
RATES = (25, 50)
"""Semantic codes a second before repeats are taken out: the paper's w2v-BERT, and the models that stand in for it."""
STATE = 4 + 4
"""Bytes for each trained parameter in float32 or bf16-mixed: weight and gradient. Adafactor keeps a row and a column of
moments for each matrix, which is next to nothing."""
KEPT = 40
"""Bytes that a layer keeps for the way back, for each step and each unit of width, in bf16-mixed: 14 for attention, 22
for the feed-forward, 4 for dropout."""
PAIR = 4 + 2 + 2 + 4
"""Bytes for each pair of steps and each head, where relative positions are added to scores: in float32 and in bf16, and
the gradients of both. One layer's at a time."""


class Sizes(NamedTuple):
    """What one stage takes."""

    parameters: int
    steps: tuple[int, ...]
    """At most, for each of RATES."""
    batch: int
    """Items on a GPU."""
    kept: float
    """GiB kept for the way back by a batch, checkpointed, at the last of RATES; likewise ``relative``."""
    relative: float

    @property
    def state(self) -> float:
        """GiB for weights and gradients."""
        return self.parameters * STATE / GIB


def frames_of(name: str, rate: float) -> tuple[int, int]:
    """Frames of a stage's window, and codes in front of them, at most, at a rate of semantic codes."""
    data = read(HERE, STAGES[name])["data"]["init_args"]
    if name == "semantic":
        return round(data["seconds"] * rate), 0
    frames = round(data["seconds"] * codec_of(read(HERE, CODECS[CODEC_OF[name]])).frame_rate)
    first, end = data.get("prefix_codebooks", (0, 0))
    return frames, (end - first) * frames if data["stage"] == "fine" else round(data["seconds"] * rate)


def sizes(name: str) -> Sizes:
    """What a stage takes."""
    content = read(HERE, STAGES[name])
    lm, batch = lm_of(content), content["data"]["init_args"]["batch_size"]
    windows = [frames_of(name, rate) for rate in RATES]
    steps = tuple(in_front + 1 + lm.pattern.num_steps(frames) for frames, in_front in windows)
    inner = lm.config.transformer
    cells = batch * steps[-1] * inner.dim
    logits = batch * lm.config.num_codebooks * windows[-1][0] * lm.config.codebook_size * LOGIT
    # Semantic codes in front differ in number from row to row, and each row then has positions of its own.
    tables = batch if windows[0][1] != windows[-1][1] else 1
    pairs = tables * inner.heads * steps[-1] ** 2 * PAIR
    return Sizes(parameters(lm), steps, batch, (cells * (INPUT * inner.layers + KEPT) + logits) / GIB, pairs / GIB)


def stage_row(name: str) -> list[str]:
    """A stage's sizes."""
    each = sizes(name)
    steps = [f"{count:,}" for count in each.steps]
    memory = [f"{size:.1f}" for size in (each.state, each.kept, each.relative)]
    return [f"`{name}`", f"{each.parameters / 1e6:,.1f} M", *steps, f"{each.batch}", *memory]


def table() -> str:
    """The tables of README.md."""
    steps = [f"steps, {RATES[0]} semantic codes/s", f"{RATES[1]}"]
    head = ["stage", "trained", *steps, "items on a GPU", "state", "kept on the way", "relative positions"]
    stages = rows([head, *map(stage_row, STAGES)])
    codecs = [codec_row(name, codec_of(read(HERE, files))) for name, files in CODECS.items()]
    return "\n".join([*stages, "", *rows([CODEC_HEAD, *codecs])])
