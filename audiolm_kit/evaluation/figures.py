"""Small pictures for the report, as inline SVG: an interval on its axis, and how values of sounds are spread.

Colours come from the page, by the classes line, tick, mark, band, bar and mean, so that they follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from audiolm_kit.evaluation.catalogue import about, number
from audiolm_kit.evaluation.report import Result, interval, with_unit

WIDTH = 320
MARGIN = 8
BINS = 24


def interval_picture(result: Result) -> str:
    """The value as a dot, its interval as a band, ceiling and floor as marks; what stands where is written below."""
    measure, sides = result.measure, {"floor": result.floor, "ceiling": result.ceiling}
    known = {name: each.value for name, each in sides.items() if each is not None and math.isfinite(each.value)}
    if not math.isfinite(measure.value) or (math.isnan(measure.low) and not known):
        return ""
    low = measure.value if math.isnan(measure.low) else measure.low
    high = measure.value if math.isnan(measure.high) else measure.high
    place = _scale([low, high, measure.value, *known.values()])
    said = f"{with_unit(measure.value, result.metric)}, 95 % {interval(measure, result.metric) or 'unknown'}"
    said += "".join(f", {name} {with_unit(value, result.metric)}" for name, value in known.items())
    named = [(f"{name} {number(value, result.metric)}", value) for name, value in known.items()]
    marks = [
        _mark(name, value, place, row) for row, (name, value) in enumerate(sorted(named, key=lambda each: each[1]))
    ]
    if not known:
        edges = ((low, "start"), (high, "end"))
        marks = [
            f'<text x="{place(edge):.1f}" y="38" text-anchor="{side}">{number(edge, result.metric)}</text>'
            for edge, side in edges
        ]
    broad = max(2, place(high) - place(low))
    return _svg(
        34 + 14 * len(known) if known else 44,
        said,
        f'<line class="line" x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="16" y2="16"/>',
        *marks,
        f'<rect class="band" x="{place(low):.1f}" y="11" width="{broad:.1f}" height="10" rx="5"/>',
        f'<circle class="mark" cx="{place(measure.value):.1f}" cy="16" r="5"/>',
    )


def spread_picture(result: Result) -> str:
    """A histogram of the sounds' own values, with a line at their mean; nothing for fewer than eight."""
    values = [value for value in result.values.values() if value is not None and math.isfinite(value)]
    if len(values) < 8 or min(values) == max(values):
        return ""
    low, high = min(values), max(values)
    heights = _bins(values, low, high)
    step = (WIDTH - 2 * MARGIN) / BINS
    most = max(heights)
    bars = [
        f'<rect class="bar" x="{MARGIN + place * step + 0.75:.1f}" y="{46 - 40 * count / most:.1f}" '
        f'width="{step - 1.5:.1f}" height="{40 * count / most:.1f}" rx="1"/>'
        for place, count in enumerate(heights)
        if count
    ]
    mean = MARGIN + (sum(values) / len(values) - low) / (high - low) * (WIDTH - 2 * MARGIN)
    edges = [with_unit(value, result.metric) for value in (low, high)]
    said = f"{about(result.metric).title} of {len(values)} sounds, from {edges[0]} to {edges[1]}"
    return _svg(
        66,
        said,
        *bars,
        f'<line class="line" x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="46.5" y2="46.5"/>',
        f'<line class="mean" x1="{mean:.1f}" x2="{mean:.1f}" y1="2" y2="50"/>',
        f'<text x="{MARGIN}" y="61">{escape(number(low, result.metric))}</text>',
        f'<text x="{WIDTH - MARGIN}" y="61" text-anchor="end">{escape(number(high, result.metric))}</text>',
    )


class _scale:
    """Values to the picture's width, with some air on both sides."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min(values), max(values)
        air = 0.12 * (high - low) or abs(high) * 0.1 or 1.0
        self._low, self._size = low - air, high - low + 2 * air

    def __call__(self, value: float) -> float:
        return MARGIN + (value - self._low) / self._size * (WIDTH - 2 * MARGIN)


def _mark(name: str, value: float, place: _scale, row: int) -> str:
    """A short line on the axis, and below it, in a row of its own, what stands there."""
    x, y = place(value), 42 + 14 * row
    anchor = "start" if x < WIDTH / 3 else "end" if x > 2 * WIDTH / 3 else "middle"
    shown = f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{y - 11}"/>'
    return f'{shown}<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{name}</text>'


def _bins(values: Sequence[float], low: float, high: float) -> list[int]:
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((value - low) / (high - low) * BINS))] += 1
    return counts


def _svg(height: int, said: str, *parts: str) -> str:
    title = escape(said)
    opening = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(said, quote=True)}">'
    return f"{opening}<title>{title}</title>{''.join(parts)}</svg>"
