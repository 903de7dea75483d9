"""What the suite has found: results under keys that keep judges apart, as JSON and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiolm_kit.checkpoint import read_json, write_json
from audiolm_kit.evaluation.catalogue import about, number
from audiolm_kit.evaluation.measures import Measure

SCHEMA = 1
ALWAYS = ("value", "interval", "count")
"""Of a row; what else is not known is left out."""


@dataclass(frozen=True)
class Heard:
    """Which model listened."""

    kind: str
    name: str
    fingerprint: str


@dataclass(frozen=True)
class Result:
    """One metric of one set of sounds, by one judge."""

    metric: str
    measure: Measure
    judge: Heard | None = None
    references: int = 0
    """How many sounds they were compared with, where that is another number."""
    ceiling: Measure | None = None
    """The same of the references themselves."""
    floor: Measure | None = None
    """The same of the sounds when captions, words or references are mixed up."""
    parts: Mapping[str, float] = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    """What the value is of, beyond its count."""
    notes: tuple[str, ...] = ()
    """What to mind when it is read."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Of each sound, by its name, where there is such a number."""

    @property
    def key(self) -> str:
        """Results of one key may stand in one column, others never."""
        return f"{self.metric}@{self.judge.fingerprint}" if self.judge else self.metric

    @property
    def what(self) -> str:
        """Its title, and who listened."""
        return (
            f"{about(self.metric).title} ({self.judge.kind} {self.judge.name})"
            if self.judge
            else about(self.metric).title
        )


@dataclass(frozen=True)
class Report:
    """All that was found of one set of sounds."""

    about: Mapping[str, Any]
    """Name, counts, commit, version, day and whatever else tells how it came about; plain values."""
    plan: Mapping[str, Any]
    results: Sequence[Result]
    texts: Mapping[str, str] = field(default_factory=dict)
    """The caption of each sound, by its name."""

    def __post_init__(self) -> None:
        keys = [result.key for result in self.results]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"{twice[0]} was measured twice: name each model once")


def write(report: Report, path: str | Path) -> None:
    """``metrics.json``, whole or not at all; ``read`` gives it back.

    Its rows are those that tools/results.py makes a table of: "what", "value", "percent", "interval", "count".
    """
    content = {
        "schema": SCHEMA,
        "about": dict(report.about),
        "plan": dict(report.plan),
        "table": [_row(result) for result in report.results],
        "texts": dict(report.texts),
    }
    write_json(path, content)


def read(path: str | Path) -> Report:
    """What ``write`` has written.

    Raises:
        FileNotFoundError: Nothing stands there.
        ValueError: It is another program's, or a later version's.
    """
    content = read_json(path)
    if content.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {content.get('schema')!r}, this version reads {SCHEMA}: evaluate again")
    return Report(
        content["about"], content["plan"], [_result(row) for row in content["table"]], content.get("texts", {})
    )


def table(report: Report) -> str:
    """Markdown: a line for each result."""
    lines = [
        "| metric | value | 95 % interval | N | references | ceiling | floor | judge |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in report.results:
        told, measure = about(result.metric), result.measure
        judge = f"{result.judge.kind} {result.judge.name} `{result.judge.fingerprint}`" if result.judge else ""
        cells = [
            f"{told.title}{_arrow(told.better)}",
            with_unit(measure.value, result.metric),
            interval(measure, result.metric),
            str(measure.size),
            str(result.references or ""),
            *(with_unit(each.value, result.metric) if each else "" for each in (result.ceiling, result.floor)),
            judge,
        ]
        lines.append(_line(cells))
    return "\n".join(lines)


def rows(reports: Mapping[str, Report]) -> str:
    """Markdown: a row for each set of sounds, a column for each key; what was not measured stays empty.

    Figures of different judges have different keys, so they never share a column.
    """
    heads: dict[str, str] = {}
    for report in reports.values():
        for result in report.results:
            mark = f" `{result.judge.fingerprint[:8]}`" if result.judge else ""
            heads.setdefault(result.key, f"{about(result.metric).title}{_arrow(about(result.metric).better)}{mark}")
    lines = [_line(["", "N", *heads.values()]), "|---" * (len(heads) + 2) + "|"]
    for name, report in reports.items():
        found = {result.key: result for result in report.results}
        cells = [_cell(found[key]) if key in found else "" for key in heads]
        lines.append(_line([name, str(report.about.get("sounds", "")), *cells]))
    return "\n".join(lines)


def interval(measure: Measure, metric: str) -> str:
    """``3.1 to 3.4``; nothing where there is none."""
    if math.isnan(measure.low):
        return ""
    return f"{number(measure.low, metric)} to {number(measure.high, metric)}"


def with_unit(value: float, metric: str) -> str:
    """A number and what it counts."""
    return f"{number(value, metric)} {about(metric).unit}".strip()


def _cell(result: Result) -> str:
    """A value with half its interval's width."""
    measure = result.measure
    if math.isnan(measure.low):
        return with_unit(measure.value, result.metric)
    half = number((measure.high - measure.low) / 2, result.metric)
    return f"{number(measure.value, result.metric)} ± {half} {about(result.metric).unit}".strip()


def _arrow(better: str) -> str:
    return {"higher": " ↑", "lower": " ↓"}.get(better, "")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _row(result: Result) -> dict[str, Any]:
    judge = result.judge
    told = {
        "key": result.key,
        "what": result.what,
        "metric": result.metric,
        "percent": about(result.metric).unit == "%",
        "unit": about(result.metric).unit,
        "better": about(result.metric).better,
        **_plain(result.measure),
        "references": result.references or None,
        "judge": {"kind": judge.kind, "name": judge.name, "fingerprint": judge.fingerprint} if judge else None,
        "ceiling": _plain(result.ceiling) if result.ceiling else None,
        "floor": _plain(result.floor) if result.floor else None,
        "parts": {name: _finite(value) for name, value in result.parts.items()},
        "facts": list(result.facts),
        "notes": list(result.notes),
        "values": {name: _finite(value) for name, value in result.values.items()},
    }
    return {name: value for name, value in told.items() if name in ALWAYS or value not in (None, {}, [])}


def _plain(measure: Measure) -> dict[str, Any]:
    edges = None if math.isnan(measure.low) else [_finite(measure.low), _finite(measure.high)]
    return {"value": _finite(measure.value), "interval": edges, "count": measure.size}


def _finite(value: float) -> float | None:
    """JSON has no NaN; eight digits are more than any metric means."""
    return float(f"{value:.8g}") if math.isfinite(value) else None


def _result(row: Mapping[str, Any]) -> Result:
    return Result(
        metric=row["metric"],
        measure=_measure(row),
        judge=Heard(**row["judge"]) if "judge" in row else None,
        references=row.get("references", 0),
        ceiling=_measure(row["ceiling"]) if "ceiling" in row else None,
        floor=_measure(row["floor"]) if "floor" in row else None,
        parts=row.get("parts", {}),
        facts=tuple(row.get("facts", ())),
        notes=tuple(row.get("notes", ())),
        values=row.get("values", {}),
    )


def _measure(told: Mapping[str, Any]) -> Measure:
    low, high = told.get("interval") or (math.nan, math.nan)
    value = told.get("value")
    return Measure(math.nan if value is None else value, low, high, told["count"])
