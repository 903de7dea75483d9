"""The tables of a benchmark, made from its JSON: what was measured, beside whom, what was wanted, what limits it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench_cases import AUDIOCRAFT, ENCODEC, OURS, TRANSFORMERS, Row

Entry = dict[str, Any]
SECTIONS = ("decode", "codec", "training", "startup", "memory", "limits")
HEAD = "| | by | | median | least to most | ours is | wanted | of the limit | |"
HEAD += "\n|---|---|---|---:|---:|---|---|---:|---|"


# --- what is wanted ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What the fastest of some of our rows should reach."""

    told: str
    kind: str
    options: tuple[str, ...]
    """Of ours; the fastest counts."""
    device: str = "cpu"
    ratio: float = 0.0
    """At least so many times as fast as the fastest of ``against``."""
    against: tuple[str, ...] = ()
    """Whose, and which of their options: ``transformers fp32``."""
    at_most: float = 0.0
    """Of the row's unit."""
    share: float = 0.0
    """At least so much of the limit."""

    @property
    def wanted(self) -> str:
        """In few words."""
        if self.ratio:
            return f"at least {self.ratio:g} x"
        return f"at most {self.at_most:g}" if self.at_most else f"at least {100 * self.share:g} % of the limit"


FP32, BF16 = ("fp32", "fp32, compiled"), ("bf16", "bf16, compiled")
PACKED = tuple(f"{how}{rest}" for how in ("int8", "int4") for rest in ("", ", bf16", ", bf16, compiled"))
ANY = (*FP32, *BF16, *PACKED)
THEIRS = (f"{TRANSFORMERS} fp32", f"{TRANSFORMERS} bf16")
CRAFTED = (f"{AUDIOCRAFT} fp32", f"{AUDIOCRAFT} bf16")
TARGETS = (
    Target("decoding in fp32", "decode.one", FP32, ratio=1.3, against=THEIRS[:1]),
    Target("decoding in bf16", "decode.one", BF16, ratio=2.2, against=THEIRS[1:]),
    Target("decoding in int8 or int4", "decode.one", PACKED, ratio=4.5, against=THEIRS),
    Target("real time at 50 frames a second", "decode.one", ANY, at_most=20),
    Target("decoding a batch", "decode.batch", ANY, ratio=2, against=THEIRS),
    Target("EnCodec's encoder", "codec.encode", FP32, ratio=2, against=(f"{ENCODEC} fp32",)),
    Target("EnCodec's decoder", "codec.decode", FP32, ratio=2, against=(f"{ENCODEC} fp32",)),
    Target("a training step", "training", ANY, ratio=2, against=CRAFTED),
    Target("decoding on a GPU", "decode.one", ANY, "cuda", at_most=1),
    Target("decoding on a GPU", "decode.one", ANY, "cuda", share=0.6),
    Target("decoding a batch on a GPU", "decode.batch", ANY, "cuda", ratio=5, against=THEIRS),
    Target("a training step on a GPU", "training", ANY, "cuda", share=0.45),
    Target("first audio on a GPU", "decode.first", ANY, "cuda", at_most=150),
    Target("help", "startup.help", ("--help",), at_most=1),
    Target("import", "startup.import", ("import audiolm_kit",), at_most=0.1),
)
"""Those of docs/performance.md; nowhere else do they stand."""


class Judged(NamedTuple):
    """A target and what was reached; None where something was not measured."""

    target: Target
    row: Row | None
    reached: float | None

    @property
    def met(self) -> bool | None:
        if self.reached is None:
            return None
        return self.reached <= self.target.at_most if self.target.at_most else self.reached >= self.least

    @property
    def least(self) -> float:
        return self.target.ratio or self.target.share

    def entry(self) -> Entry:
        """As JSON has it."""
        option = self.row.option if self.row else None
        return {"told": self.target.told, "wanted": self.target.wanted, "option": option, "reached": self.reached} | {
            "met": self.met
        }


def judged(content: Entry) -> list[Judged]:
    """All targets of the device that was measured."""
    rows = rows_of(content)
    device = content["about"]["device"].partition(":")[0]
    return [judge(target, rows, content["limits"]) for target in TARGETS if target.device == device]


def judge(target: Target, rows: Sequence[Row], limits: dict[str, float]) -> Judged:
    """One of them."""
    same = [row for row in rows if row.kind == target.kind and row.times]
    ours = fastest(row for row in same if row.by == OURS and row.option in target.options)
    if ours is None:
        return Judged(target, None, None)
    if target.at_most:
        return Judged(target, ours, value(ours, ours.median))
    if target.share:
        return Judged(target, ours, share_of_limit(ours, limits))
    theirs = fastest(row for row in same if name_of(row) in target.against)
    if theirs is None or any(row.equal is False for row in rows if row.kind == target.kind):
        return Judged(target, ours, None)
    return Judged(target, ours, statistics.median(ratios(ours, theirs)))


# --- numbers ----------------------------------------------------------------------------------------------------------


def rows_of(content: Entry) -> list[Row]:
    """The rows of a benchmark's JSON."""
    return [Row.read(row) for row in content["rows"]]


def fastest(rows: Iterable[Row]) -> Row | None:
    """By the median."""
    return min(rows, key=lambda row: row.median, default=None)


def ratios(ours: Row, theirs: Row) -> list[float]:
    """How many times as fast ours is, round by round, as they took turns."""
    return [their / our for our, their in zip(ours.times, theirs.times, strict=False)]


def name_of(row: Row) -> str:
    return f"{row.by} {row.option}"


def value(row: Row, time: float) -> float:
    """A time as the row's unit has it."""
    scale = {"ms a frame": 1e3, "ms": 1e3, "GB/s": 1e-9, "GFLOP/s": 1e-9}.get(row.unit, 1.0)
    return scale * (row.work / time if row.unit.endswith("/s") else time / row.work)


def share_of_limit(row: Row, limits: dict[str, float]) -> float | None:
    """How much of the time went where it had to: to memory or to products, whichever takes longer."""
    found = bound(row, limits)
    return None if found is None or not row.times else found[0] / row.median


def bound(row: Row, limits: dict[str, float]) -> tuple[float, str] | None:
    """The least seconds that a run can take by the measured limits, and which of them it is."""
    if row.least is None:
        return None
    products: dict[str, float] = {name: limits[name] for name in ("fp32", "bf16") if name in limits}
    by_sheet = row.section == "training" and "sheet" in limits  # what model FLOP utilisation is a share of
    if by_sheet:
        products["bf16"] = limits["sheet"]
    quickest = max(products, key=products.__getitem__, default="")
    name = "fp32" if row.least.precision == "fp32" and "fp32" in products else quickest
    seconds = [(row.least.bytes / limits["reads"], "reads")] if "reads" in limits else []
    if name:
        told = "the data sheet" if by_sheet and name == "bf16" else f"{name} products"
        seconds.append((row.least.flops / products[name], told))
    return max(seconds, default=None)


# --- Markdown ---------------------------------------------------------------------------------------------------------


def render(content: Entry) -> str:
    """All of a benchmark: a table for each section, and what became of the targets."""
    known = {row.section for row in rows_of(content)}
    parts = [about(content["about"])]
    parts += [f"**{section.capitalize()}**\n\n{table(content, section)}" for section in SECTIONS if section in known]
    return "\n\n".join([*parts, summary(judged(content))])


def about(said: Entry) -> str:
    """How it was measured, in a line."""
    hardware, versions = said["hardware"], said["versions"]
    cores = f"{hardware['cores']} cores of {hardware['cpu']} ({hardware['capability']})"
    where = f"{hardware['gpu']} beside {cores}" if hardware.get("gpu") else cores
    packages = ", ".join(f"{name} {each}" for name, each in versions.items() if each)
    commit = f"commit `{said['commit']}`, " if said.get("commit") else ""
    return f"{where}, {said['threads']} threads; {packages}; {commit}{said['date']}, {said['seconds'] / 60:.0f} minutes"


def table(content: Entry, section: str) -> str:
    """One section."""
    rows = [row for row in rows_of(content) if row.section == section]
    wanted: dict[tuple[str, str, str], list[str]] = {}
    for each in judged(content):
        if each.row is not None:
            verdict = {True: "met", False: "**not met**", None: "not comparable"}[each.met]
            wanted.setdefault(key(each.row), []).append(f"{each.target.wanted}: {verdict}")
    lines, last = [HEAD], ""
    for row in rows:
        cells = [row.task if row.task != last else "", row.by, row.option]
        cells += measured_cells(row, rows, content["limits"]) if row.times else ["", "", "", "", ""]
        cells[6] = "; ".join(wanted.get(key(row), []))
        last = row.task
        note = row.note if row.times else f"not available: {row.missing}"
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in [*cells, note])} |")
    return "\n".join(lines)


def measured_cells(row: Row, rows: Sequence[Row], limits: dict[str, float]) -> list[str]:
    """Median, spread, ratio, room for what is wanted, share of the limit."""
    edges = sorted(value(row, time) for time in (min(row.times), max(row.times)))
    spread = " to ".join(map(number, edges)) if len(row.times) > 1 else ""
    found, share = bound(row, limits), share_of_limit(row, limits)
    of_limit = f"{100 * share:.0f} % of {found[1]}" if found is not None and share is not None else ""
    return [f"{number(value(row, row.median))} {row.unit}", spread, compared_with(row, rows), "", of_limit]


def compared_with(row: Row, rows: Sequence[Row]) -> str:
    """The ratio of ours to the fastest of theirs, of the same option where they have it."""
    others = [each for each in rows if each.kind == row.kind and each.by != OURS and each.times]
    if row.by != OURS or not others or row.section not in ("decode", "codec", "training"):
        return ""
    precision = row.option.partition(",")[0]
    like = fastest(each for each in others if each.option == precision) or fastest(others)
    assert like is not None
    each = ratios(row, like)
    spread = f" ({number(min(each))} to {number(max(each))})" if len(each) > 1 else ""
    return f"{number(statistics.median(each))} x {name_of(like)}{spread}"


def summary(found: Sequence[Judged]) -> str:
    """What became of the targets, in a few lines."""
    names = {True: "Met", False: "Not met", None: "Not measured"}
    lines = []
    for met, name in names.items():
        some = [f"{each.target.told} ({each.target.wanted}{_reached(each)})" for each in found if each.met is met]
        if some:
            lines.append(f"{name}: {'; '.join(some)}.")
    return "\n\n".join(lines)


def _reached(each: Judged) -> str:
    if each.reached is None:
        return ""
    return f", {100 * each.reached:.0f} %" if each.target.share else f", {number(each.reached)}"


def key(row: Row) -> tuple[str, str, str]:
    return row.kind, row.by, row.option


def number(value: float) -> str:
    """Three figures."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


# --- from files -------------------------------------------------------------------------------------------------------


def shown(file: Path, section: str) -> str:
    """A section of a stored benchmark as a page shows it; nothing where it was not measured.

    Raises:
        ValueError: there is no such section, or the file is no benchmark's.
    """
    if section not in SECTIONS:
        raise ValueError(f"bench {section} is no section: give one of {', '.join(SECTIONS)}")
    content = read(file)
    if not any(row["section"] == section for row in content["rows"]):
        return ""
    return f"`{file.name}`: {about(content['about'])}\n\n{table(content, section)}"


def read(file: Path) -> Entry:
    """A benchmark's JSON.

    Raises:
        ValueError: it is something else.
    """
    try:
        content: Entry = json.loads(file.read_text(encoding="utf-8"))
        rows_of(content), content["about"]["device"], content["limits"]["reads"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no file of `make bench` ({error!r}): give its build/bench.json") from error
    return content
