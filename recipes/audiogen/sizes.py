"""What the presets take, computed from their YAML files alone: `python sizes.py` writes it into README.md.

B items of a batch, S steps, D width, K codebooks, T frames, V codebook size.
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
GIB = 2**30
STATE = 4 + 4 + 8
"""Bytes for each trained parameter in float32 or bf16-mixed: weight, gradient, Adam's two moments."""
AVERAGE = 4
"""And for its moving average."""
KEPT = 46
"""Bytes that a layer keeps for the way back, for each step and each unit of width, in bf16-mixed: 14 for attention, 10
for cross-attention, 22 for the feed-forward. (Counting what torch saves on a CPU gives 46.3.)"""
INPUT = 4
"""Of them its input, which is all that gradient checkpointing keeps."""
LOGIT = 12
"""Bytes for each logit: as computed, in float32, and its gradient."""


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


def t5_parameters(name: str) -> int:
    """How many the encoder of a T5 has: embeddings, layers, the last norm, the table of relative positions."""
    width, inner, layers, heads = T5[name]
    layer = 4 * width * heads * 64 + 2 * width * inner + 2 * width
    return 32128 * width + layers * layer + width + 32 * heads


def sizes(content: dict[str, Any]) -> Sizes:
    """What a recipe's model takes."""
    config = checkpoint.from_plain(LMConfig, content["model"]["init_args"]["lm"], "lm")
    with torch.device("meta"):
        lm = StreamLM(config)
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


def codec_of(content: dict[str, Any]) -> NeuralCodec:
    """A recipe's codec, without weights."""
    config = checkpoint.from_plain(CodecConfig, content["model"]["init_args"]["codec"], "codec")
    with torch.device("meta"):
        return NeuralCodec(config)


def rows(cells: list[list[str]]) -> list[str]:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


def preset_row(name: str) -> list[str]:
    """A preset's sizes; the released model alone averages its weights."""
    each, average = sizes(read(PRESETS[name])), name == "medium"
    state = [f"{each.state(average):.1f}", f"{each.state(average, 8):.2f}", f"{each.state(average, 64):.2f}"]
    kept = [f"{each.plain:.1f}", f"{each.checkpointed:.1f}"]
    return [f"`{name}`", f"{each.parameters / 1e6:,.1f} M", f"{each.t5 / 1e6:.1f} M", *state, *kept]


def codec_row(name: str) -> list[str]:
    """A codec's sizes and rates."""
    codec = codec_of(read(CODECS[name]))
    codes = codec.frame_rate * codec.num_codebooks
    bits = codes * (codec.codebook_size - 1).bit_length()
    books = f"{codec.num_codebooks} x {codec.codebook_size:,}"
    return [
        f"`{name}`",
        f"{parameters(codec) / 1e6:.1f} M",
        f"{codec.hop}",
        books,
        f"{codec.frame_rate:g}",
        f"{bits:,.0f}",
    ]


def table() -> str:
    """The tables of README.md."""
    state = ["state, one GPU or `ddp`", "`fsdp2` on 8", "on 64"]
    head = ["preset", "trained", "frozen T5", *state, "kept on the way", "checkpointed"]
    presets = rows([head, *map(preset_row, PRESETS)])
    head = ["codec", "trained", "stride", "codebooks", "frames a second", "bit/s"]
    return "\n".join([*presets, "", *rows([head, *map(codec_row, CODECS)])])


def main() -> None:
    """Write the tables between their marks."""
    path = HERE / "README.md"
    text = path.read_text(encoding="utf-8")
    new = re.sub(r"(?<=<!-- sizes -->\n).*?(?=<!-- /sizes -->)", lambda _: table() + "\n", text, flags=re.DOTALL)
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
