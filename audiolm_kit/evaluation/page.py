"""The report as a page: one HTML file that needs no script, no server and no network."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from audiolm_kit.evaluation.catalogue import SUBJECTS, Subject, about, number
from audiolm_kit.evaluation.figures import interval_picture, spread_picture
from audiolm_kit.evaluation.report import Report, Result, interval, with_unit

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #65656a; --paper: #fdfcfa; --card: #fff; --line: #e4e2dd;
  --mark: #0b6bcb; --band: #bcd9f5; --bar: #9fb8cf; --note: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #eceae6; --soft: #a3a19a; --paper: #161618; --card: #1e1e21;
  --line: #38373c; --mark: #6cb6ff; --band: #274765; --bar: #4d6377; --note: #e0b050; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.75rem; font-weight: 600; letter-spacing: -.01em; line-height: 1.2;
  overflow-wrap: anywhere; }
h2 { margin: 0 0 1rem; font-size: 1.15rem; font-weight: 600; }
h3 { margin: 0; font-size: .95rem; font-weight: 600; }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.25rem; }
p { margin: 0; color: var(--soft); font-size: .9rem; max-width: 44rem; }
a { color: var(--mark); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1rem; }
.card { display: flex; flex-direction: column; gap: .35rem; padding: 1rem 1.1rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; min-width: 0; }
.value { font-size: 1.9rem; font-weight: 600; line-height: 1.15; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.value small { font-size: .95rem; font-weight: 400; letter-spacing: 0; color: var(--soft); }
.facts, .judge, .note { font-size: .8rem; color: var(--soft); font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.note { color: var(--note); }
.card p { font-size: .85rem; }
.scroll + p { margin-top: .6rem; }
.pictures { margin-top: auto; }
svg { display: block; width: 100%; height: auto; margin-top: .4rem; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.line { stroke: var(--line); stroke-width: 1.5; } .tick { stroke: var(--soft); stroke-width: 1.25; }
.mean { stroke: var(--mark); stroke-width: 1.5; } .mark { fill: var(--mark); } .band { fill: var(--band); }
.bar { fill: var(--bar); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .35rem .9rem .35rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; }
tbody th { font-weight: 400; }
th:first-child { text-align: left; white-space: normal; min-width: 9.75rem; overflow-wrap: anywhere; }
thead th { color: var(--soft); font-weight: 500; white-space: normal; vertical-align: bottom; }
td.text { text-align: left; white-space: normal; min-width: 12rem; color: var(--soft); }
summary { cursor: pointer; font-weight: 600; padding: .25rem 0; }
summary:focus-visible, a:focus-visible, .scroll:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem 1rem; margin: 0; font-size: .85rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: .95em ui-monospace, monospace; }
"""
MOST = 200
"""Sounds that the page lists; metrics.json has all."""


def render(report: Report, listen: str = "") -> str:
    """The whole page.

    Args:
        listen: The address of a page where the sounds can be heard; it may have an element ``anchor(name)`` for each.
    """
    title = str(report.about.get("name") or "Evaluation")
    subjects = [
        (subject, [each for each in report.results if about(each.metric).subject == subject]) for subject in SUBJECTS
    ]
    sections = [_section(subject, results) for subject, results in subjects if results]
    sections += [_overview(report.results), _sounds(report, listen), _making(report)]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}: evaluation</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p>{escape(_summary(report))}{f' <a href="{escape(listen, quote=True)}">Listen to them.</a>' if listen else ""}</p>
</header>
<main>
{chr(10).join(each for each in sections if each)}
</main>
</body>
</html>
"""


def anchor(name: str) -> str:
    """What an element about a sound is called, here and on a page where it can be heard."""
    return f"sound-{re.sub(r'[^0-9A-Za-z.-]', '_', name)}"


def _summary(report: Report) -> str:
    """One line above all."""
    told = report.about
    parts = [f"{told.get('sounds', 0)} sounds"]
    if told.get("references"):
        parts.append(f"{told['references']} references, {told.get('pairs', 0)} of them of the same name")
    if told.get("date"):
        parts.append(str(told["date"]))
    return (
        ", ".join(parts) + ". Dots are values, bands the middle 95 % of what other sounds, as many, would have given."
    )


def _section(subject: Subject, results: Sequence[Result]) -> str:
    cards = "\n".join(_card(result) for result in results)
    heading = f'<h2 id="{subject}">{SUBJECTS[subject]}</h2>'
    return f'<section aria-labelledby="{subject}">\n{heading}\n<div class="cards">\n{cards}\n</div>\n</section>'


def _card(result: Result) -> str:
    """One result, as large as it is important."""
    told, measure = about(result.metric), result.measure
    unit = f" <small>{told.unit}</small>" if told.unit else ""
    way = {"higher": " Higher is better.", "lower": " Lower is better."}.get(told.better, "")
    spread = interval(measure, result.metric)
    among = f"{measure.size} sounds" + (f" and {result.references} references" if result.references else "")
    facts = [f"95 %: {spread}" if spread else "too few for an interval", among, *result.facts]
    judge = result.judge
    lines = [
        f'<article class="card" id="{escape(result.key, quote=True)}">',
        f"<h3>{escape(told.title)}</h3>",
        f'<div class="value">{number(measure.value, result.metric)}{unit}</div>',
        f'<div class="facts">{escape(" · ".join(facts))}</div>',
        f"<p>{escape(told.sentence + way)}</p>",
    ]
    if judge:
        named = escape(f"{judge.kind} {judge.name}".strip())
        lines.append(f'<div class="judge">Heard by {named}, <code>{escape(judge.fingerprint)}</code></div>')
    lines += [f'<div class="note">{escape(note)}</div>' for note in result.notes]
    pictures = interval_picture(result) + spread_picture(result)
    if pictures:
        lines.append(f'<div class="pictures">{pictures}</div>')
    return "\n".join([*lines, "</article>"])


def _overview(results: Sequence[Result]) -> str:
    """All numbers once more, as a table."""
    body = []
    for result in results:
        judge, name = result.judge, escape(about(result.metric).title)
        if judge:
            name += f'<br><span class="judge">{escape(judge.kind)} <code>{escape(judge.fingerprint)}</code></span>'
        sides = [with_unit(each.value, result.metric) if each else "" for each in (result.ceiling, result.floor)]
        cells = [with_unit(result.measure.value, result.metric), interval(result.measure, result.metric)]
        row = "".join(f"<td>{escape(cell)}</td>" for cell in [*cells, str(result.measure.size), *sides])
        body.append(f'<tr><th scope="row">{name}</th>{row}</tr>')
    why = "Ceiling: the references themselves. Floor: the same sounds with captions, words or references mixed up."
    table = _table(("", "value", "95 % interval", "N", "ceiling", "floor"), body, "All figures")
    return f'<section aria-labelledby="all">\n<h2 id="all">All figures</h2>\n{table}\n<p>{why}</p>\n</section>'


def _sounds(report: Report, listen: str) -> str:
    """What is known of each sound, worst first by the first metric that has a better and a worse."""
    shown = [result for result in report.results if result.values]
    names = list(dict.fromkeys(name for result in shown for name in result.values))
    if not names:
        return ""
    ranked = next((result for result in shown if about(result.metric).better), shown[0])
    sign = -1 if about(ranked.metric).better == "lower" else 1
    names.sort(key=lambda name: sign * _known(ranked.values.get(name), math.inf * sign))
    heads = ["sound", *(about(result.metric).title for result in shown), *(["caption"] if report.texts else [])]
    body = [_sound_row(name, shown, report, listen) for name in names[:MOST]]
    told = f"worst first by {about(ranked.metric).title}"
    told += f", the first {MOST} of {len(names)}; metrics.json has all" if len(names) > MOST else ""
    opening = f"<details>\n<summary>Each sound ({len(names)})</summary>\n<p>{escape(told)}</p>"
    return f"<section>\n{opening}\n{_table(heads, body, 'Each sound')}\n</details>\n</section>"


def _sound_row(name: str, shown: Sequence[Result], report: Report, listen: str) -> str:
    values = [result.values.get(name) for result in shown]
    cells = ["" if value is None else number(value, result.metric) for value, result in zip(values, shown, strict=True)]
    label = escape(name)
    if listen:
        label = f'<a href="{escape(f"{listen}#{anchor(name)}", quote=True)}">{label}</a>'
    text = f'<td class="text">{escape(report.texts.get(name, ""))}</td>' if report.texts else ""
    row = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr id="{anchor(name)}"><th scope="row">{label}</th>{row}{text}</tr>'


def _making(report: Report) -> str:
    """How the figures came about."""
    facts = {
        **report.about,
        **{f"plan: {name}": value for name, value in report.plan.items() if value not in ((), [], "")},
    }
    rows = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(_plain(value))}</dd>" for name, value in facts.items() if value
    )
    return f"<section>\n<details>\n<summary>How this came about</summary>\n<dl>{rows}</dl>\n</details>\n</section>"


def _plain(value: Any) -> str:
    """A setting in words."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items() if each not in ("", None, [], ()))
    if isinstance(value, (list, tuple)):
        return "; ".join(_plain(each) for each in value)
    return str(value)


def _known(value: float | None, otherwise: float) -> float:
    return otherwise if value is None or math.isnan(value) else value


def _table(heads: Sequence[str], rows: Sequence[str], name: str) -> str:
    """A table that scrolls by itself where the page is narrow, also by the keyboard."""
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    opening = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name, quote=True)}">'
    body = "\n".join(rows)
    return f"{opening}<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
