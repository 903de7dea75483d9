"""What the stages take, computed from their YAML files alone: `python sizes.py` writes it into README.md.

B items of a batch, S steps, D width, H heads, K codebooks, T frames, V codebook size.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.lm.model import LMConfig, StreamLM

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
GIB = 2**30
STATE = 4 + 4
"""Bytes for each trained parameter in float32 or bf16-mixed: weight and gradient. Adafactor keeps a row and a column of
moments for each matrix, which is next to nothing."""
KEPT = 40
"""Bytes that a layer keeps for the way back, for each step and each unit of width, in bf16-mixed: 14 for attention, 22
for the feed-forward, 4 for dropout."""
INPUT = 4
"""Of them its input, which is all that gradient checkpointing keeps."""
LOGIT = 12
"""Bytes for each logit: as computed, in float32, and its gradient."""
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


def read(names: tuple[str, ...]) -> dict[str, Any]:
    """A recipe's files, each laid upon the one before."""
    content: Any = {}
    for name in names:
        content = laid_upon(content, yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8")))
    return dict(content)


def laid_upon(below: Any, above: Any) -> Any:
    """Mappings key by key; anything else is replaced."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: laid_upon(below.get(key), value) for key, value in above.items()}


def parameters(model: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(weight.numel() for weight in model.parameters())


def codec_of(content: dict[str, Any]) -> NeuralCodec:
    """A recipe's codec, without weights."""
    config = checkpoint.from_plain(CodecConfig, content["model"]["init_args"]["codec"], "codec")
    with torch.device("meta"):
        return NeuralCodec(config)


def lm_of(content: dict[str, Any]) -> StreamLM:
    """A stage's model, without weights."""
    config = checkpoint.from_plain(LMConfig, content["model"]["init_args"]["lm"], "lm")
    with torch.device("meta"):
        return StreamLM(config)


def frames_of(name: str, rate: float) -> tuple[int, int]:
    """Frames of a stage's window, and codes in front of them, at most, at a rate of semantic codes."""
    data = read(STAGES[name])["data"]["init_args"]
    if name == "semantic":
        return round(data["seconds"] * rate), 0
    frames = round(data["seconds"] * codec_of(read(CODECS[CODEC_OF[name]])).frame_rate)
    first, end = data.get("prefix_codebooks", (0, 0))
    return frames, (end - first) * frames if data["stage"] == "fine" else round(data["seconds"] * rate)


def sizes(name: str) -> Sizes:
    """What a stage takes."""
    content = read(STAGES[name])
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


def rows(cells: list[list[str]]) -> list[str]:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


def stage_row(name: str) -> list[str]:
    """A stage's sizes."""
    each = sizes(name)
    steps = [f"{count:,}" for count in each.steps]
    memory = [f"{size:.1f}" for size in (each.state, each.kept, each.relative)]
    return [f"`{name}`", f"{each.parameters / 1e6:,.1f} M", *steps, f"{each.batch}", *memory]


def codec_row(name: str) -> list[str]:
    """A codec's sizes and rates."""
    codec = codec_of(read(CODECS[name]))
    bits = codec.frame_rate * codec.num_codebooks * (codec.codebook_size - 1).bit_length()
    books = f"{codec.num_codebooks} x {codec.codebook_size:,}"
    size = f"{parameters(codec) / 1e6:.1f} M"
    return [f"`{name}`", size, f"{codec.hop}", books, f"{codec.frame_rate:g}", f"{bits:,.0f}"]


def table() -> str:
    """The tables of README.md."""
    steps = [f"steps, {RATES[0]} semantic codes/s", f"{RATES[1]}"]
    head = ["stage", "trained", *steps, "items on a GPU", "state", "kept on the way", "relative positions"]
    stages = rows([head, *map(stage_row, STAGES)])
    head = ["codec", "trained", "stride", "codebooks", "frames a second", "bit/s"]
    return "\n".join([*stages, "", *rows([head, *map(codec_row, CODECS)])])


def main() -> None:
    """Write the tables between their marks."""
    path = HERE / "README.md"
    text = path.read_text(encoding="utf-8")
    new = re.sub(r"(?<=<!-- sizes -->\n).*?(?=<!-- /sizes -->)", lambda _: table() + "\n", text, flags=re.DOTALL)
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
