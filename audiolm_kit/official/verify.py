"""Two checkpoints of any layout side by side: shapes, tensors, text, logits, greedy codes; the codec's codes and sound.

A foreign one is run by its own package where that is installed (``theirs``). They are opened one after the other, so
that a model of 3.3 billion weights can be compared where there is room for one. SI-SDR is told in decibels.

B batch, C channels, L samples, K codebooks, T frames, V codebook size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from audiolm_kit.conditioning import TextInput
from audiolm_kit.evaluation.signal import si_sdr
from audiolm_kit.official.answers import SHAPE, Answers, Questions, answers_of
from audiolm_kit.official.sources import find_source
from audiolm_kit.official.witnesses import GUIDANCE

TEXTS = ("a dog barks twice", "heavy rain falls on a tin roof while thunder rolls far away")
State = Literal["equal", "DIFFER", "-"]
"""The last: not compared."""
SHOWN = 3
"""Names of tensors that differ."""


class Verdict(NamedTuple):
    """What was found."""

    lines: list[str]
    """A table, and the verdict as its last line."""
    equal: bool


class Line(NamedTuple):
    """One comparison."""

    state: State
    what: str
    told: str


def verify(
    a: str | Path,
    b: str | Path,
    frames: int = 50,
    texts: tuple[str, ...] = TEXTS,
    seed: int = 0,
    tolerance: float = 1e-4,
    *,
    unsafe_pickle: bool = False,
) -> Verdict:
    """Ask two checkpoints the same and compare the answers.

    Args:
        a: a folder, a file or a hub name, of any layout (``sources``); b as well.
        frames: of the greedy continuation, those of the prompt among them.
        texts: captions, where both have a text encoder that can be loaded.
        seed: of all codes, states and sounds that are asked about.
        tolerance: the largest difference of logits, text states, tensors and samples that counts as none.
        unsafe_pickle: see ``transfer.Reading``.

    Raises:
        FileNotFoundError: one of them is missing, in part or whole.
        ValueError: one of them cannot be read; or no frames or texts, or a negative tolerance.
    """
    if frames < 2 or not texts or not all(text.strip() for text in texts):
        raise ValueError(f"{frames} frames and texts {list(texts)}: give at least 2 frames, and captions with words")
    if not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance}: give 0 or a positive number")
    asked = Questions(frames, tuple(texts), seed, unsafe_pickle)
    sources = find_source(a), find_source(b)
    with tempfile.TemporaryDirectory(prefix="audiolm_kit-verify-") as folder:
        first = answers_of(sources[0], asked, Path(folder) / "a")
        second = answers_of(sources[1], asked, Path(folder) / "b", first)
        lines = list(_compared(first, second, asked, tolerance))
    return _verdict(first, second, lines)


def _verdict(a: Answers, b: Answers, lines: list[Line]) -> Verdict:
    """The table."""
    wrong = list(dict.fromkeys(line.what.split(",")[0] for line in lines if line.state == "DIFFER"))
    done = any(line.state == "equal" for line in lines)
    heads = [
        f"{mark}: {each.source.name} ({each.source.layout}), run by {each.by}" for mark, each in (("A", a), ("B", b))
    ]
    heads += [f"   {mark}: {each.note}" for mark, each in (("A", a), ("B", b)) if each.note]
    table = [f"{line.state:<7} {line.what:<24} {line.told}" for line in lines]
    both = "in all that both hold" if any(line.state == "-" for line in lines) else "in all that was compared"
    last = f"Not equal: {', '.join(wrong)}." if wrong else f"Equal {both}." if done else "Nothing could be compared."
    return Verdict([*heads, *table, last], done and not wrong)


def _compared(a: Answers, b: Answers, asked: Questions, tolerance: float) -> Iterator[Line]:
    """All comparisons in their order."""
    codec = _unlike(a.codec, b.codec, SHAPE)
    yield _shape("codec", a.codec, b.codec, codec)
    if a.model and b.model:
        yield _shape("model", a.model, b.model, _unlike(a.model, b.model, tuple(a.model)))
    elif a.model or b.model:
        yield Line("-", "model", f"{'B' if a.model else 'A'} is a codec alone: only the codecs are compared")
    yield _tensors(a, b, tolerance)
    if a.model and b.model:
        yield from _of_models(a, b, asked, tolerance)
    if codec:
        yield Line("-", "codes, sound", f"codecs of another {codec[0]} cannot be asked the same")
        return
    yield _codes("codes of a sound", a.encoded.codes, b.encoded.codes)
    if a.encoded.scales is not None and b.encoded.scales is not None:
        yield _numbers("scales of a sound", a.encoded.scales, b.encoded.scales, tolerance, ("row", "segment"))
    yield _sound(a.audio, b.audio, tolerance)


def _of_models(a: Answers, b: Answers, asked: Questions, tolerance: float) -> Iterator[Line]:
    """Text, logits and greedy codes, as far as both can be asked the same."""
    yield from _text(a, b, tolerance)
    unlike = _unlike(a.model, b.model, ("num_codebooks", "codebook_size", "text", "text_dim"))
    if unlike:
        yield Line("-", "logits, greedy codes", f"models of another {unlike[0]} cannot be asked the same")
        return
    for name in dict.fromkeys([*a.logits, *b.logits]):
        if name in a.logits and name in b.logits:
            yield _numbers(name, a.logits[name], b.logits[name], tolerance, ("text", "codebook", "frame", "code"))
        elif "padd" not in name:
            yield Line("-", name, "one of them cannot read captions here")
    if len([name for name in {*a.logits, *b.logits} if "padd" in name]) > 1:
        yield Line(
            "-", "logits, padded", "one attends to padding and one does not: alike for captions one by one alone"
        )
    if a.greedy is not None and b.greedy is not None:
        what = f"{asked.frames} frames behind {asked.prompt}, guidance {GUIDANCE:g}"
        yield _codes("greedy codes", a.greedy, b.greedy, what)


def _shape(what: str, a: dict[str, object], b: dict[str, object], unlike: list[str]) -> Line:
    if unlike:
        told = "; ".join(f"{name} {_short(a[name])} and {_short(b[name])}" for name in unlike)
        return Line("DIFFER", f"{what} shape", told)
    return Line("equal", f"{what} shape", ", ".join(f"{name} {_short(value)}" for name, value in a.items()))


def _tensors(a: Answers, b: Answers, tolerance: float) -> Line:
    """All that both read, name by name."""
    with safe_open(a.weights, "pt") as left, safe_open(b.weights, "pt") as right:
        names, others = set(left.keys()), set(right.keys())
        if not a.model or not b.model:
            names, others = ({name for name in each if name.startswith("codec.")} for each in (names, others))
        both = sorted(names & others)
        if not both:
            return Line("-", "tensors", "none has the same name in both")
        same, worst, where = 0, 0.0, ""
        wrong = [f"{name} in {'A' if name in names else 'B'} alone" for name in sorted(names ^ others)]
        for name in both:
            one, two = left.get_tensor(name), right.get_tensor(name)
            if one.shape != two.shape:
                wrong.append(f"{name} {list(one.shape)} and {list(two.shape)}")
                continue
            far = 0.0 if torch.equal(one, two) else _largest(one, two)[0]
            same += far == 0
            if not far <= worst:
                worst, where = far, name
            if not far <= tolerance:
                wrong.append(f"{name} by {far:.2g}")
    total = len(names | others)
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        return Line("DIFFER", "tensors", f"{same} of {total} are equal; {', '.join(wrong[:SHOWN])}{more}")
    told = f"{same} of {total} bit for bit"
    return Line("equal", "tensors", told if not worst else f"{told}, largest difference {worst:.2g} in {where}")


def _text(a: Answers, b: Answers, tolerance: float) -> Iterator[Line]:
    """Which text encoders there are, and what they make of the captions."""
    if a.text is None or b.text is None:
        return
    names = [each.text.name if each.text and each.text.kind == "t5" else str(each.model["text"]) for each in (a, b)]
    if names[0] != names[1]:
        yield Line("-", "text encoder", f"{names[0]} and {names[1]}: names say little, their states more")
    for mark, each in (("A", a), ("B", b)):
        if isinstance(each.read, str):
            yield Line("-", "text states", f"not of {mark}: {each.read}")
            return
    assert isinstance(a.read, TextInput) and isinstance(b.read, TextInput)
    if a.read.mask.shape != b.read.mask.shape or not torch.equal(a.read.mask, b.read.mask):
        counts = [each.mask.sum(1).tolist() for each in (a.read, b.read)]
        yield Line("DIFFER", "text states", f"captions are {counts[0]} and {counts[1]} tokens long")
        return
    one, two = (each.content * _behind(each) for each in (a.read, b.read))
    yield _numbers("text states", one, two, tolerance, ("text", "token", "number"))


def _behind(text: TextInput) -> Tensor:
    """The mask as contents have it: 1 where something is said."""
    return text.mask[(...,) + (None,) * (text.content.dim() - text.mask.dim())]


def _numbers(what: str, a: Tensor, b: Tensor, tolerance: float, axes: tuple[str, ...]) -> Line:
    """The largest difference, and where it is."""
    if a.shape != b.shape:
        return Line("DIFFER", what, f"{list(a.shape)} and {list(b.shape)} numbers")
    far, place = _largest(a, b)
    at = ", ".join(f"{axis} {index}" for axis, index in zip(axes, place, strict=False))
    told = f"largest difference {far:.2g} ({at}), of numbers up to {float(a.abs().max()):.3g}"
    return Line("equal" if far <= tolerance else "DIFFER", what, told)


def _codes(what: str, a: Tensor, b: Tensor, about: str = "") -> Line:
    """The share that is equal, and the first ``[B, K, T]`` in time that is not."""
    if a.shape != b.shape:
        return Line("DIFFER", what, f"{list(a.shape)} and {list(b.shape)} codes")
    told = f"{a.numel()} codes of {about}" if about else f"{a.numel()} codes"
    if torch.equal(a, b):
        return Line("equal", what, f"all {told}")
    unlike = a != b
    frame = int(unlike.any(1).any(0).nonzero()[0])
    row, book = (int(each) for each in unlike[:, :, frame].nonzero()[0])
    share = 1 - float(unlike.float().mean())
    first = f"frame {frame}, codebook {book}, row {row}: {int(a[row, book, frame])} and {int(b[row, book, frame])}"
    return Line("DIFFER", what, f"{share:.2%} of {told}; the first that differs is {first}")


def _sound(a: Tensor, b: Tensor, tolerance: float) -> Line:
    """What both decode from the first one's codes; one may give a few samples more at its end."""
    length = min(a.shape[-1], b.shape[-1])
    a, b = a[..., :length], b[..., :length]
    if a.shape != b.shape:
        return Line("DIFFER", "decoded sound", f"{list(a.shape)} and {list(b.shape)} samples")
    far, place = _largest(a, b)
    same = "100" if far == 0 else _decibels(a, b)
    told = f"largest difference {far:.2g} (sample {place[-1]}), SI-SDR {same} dB, {length} samples from the codes of A"
    return Line("equal" if far <= tolerance else "DIFFER", "decoded sound", told)


def _decibels(a: Tensor, b: Tensor) -> str:
    try:
        return f"{float(si_sdr(b.flatten(), a.flatten())):.1f}"
    except ValueError:  # a silent one has none
        return "no"


def _largest(a: Tensor, b: Tensor) -> tuple[float, tuple[int, ...]]:
    """The largest absolute difference and its place; NaN where either is none and the other is not."""
    far = (a.double() - b.double()).abs()
    far = torch.where(a.isnan() & b.isnan() | (a == b), 0.0, far)
    index = int(far.nan_to_num(nan=torch.inf).argmax())
    return float(far.flatten()[index]), tuple(int(each) for each in torch.unravel_index(torch.tensor(index), a.shape))


def _unlike(a: dict[str, object], b: dict[str, object], names: tuple[str, ...]) -> list[str]:
    """The names of what differs."""
    return [name for name in names if a[name] != b[name]]


def _short(value: Any) -> str:
    return (
        f"{value:g}"
        if isinstance(value, float)
        else "/".join(map(str, value))
        if isinstance(value, tuple)
        else str(value)
    )
