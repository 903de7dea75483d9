"""Write the results of a recipe into its README, as tables made from the JSON files beside it.

    python tools/results_table.py README.md results/*.json

replaces what stands between the lines <!-- results --> and <!-- /results -->. A file of results is
{"about": {"command", "commit", "date", "hardware", "hours", "seconds", "killed"}, "table": [{"what", "value",
"percent", "interval", "count", "rule": {"wanted", "reached", "passed"}}]}; all but "what" and "value" may be left out.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results -->", "<!-- /results -->"
NOTHING = "Not yet measured."
HEAD = "| | value | 95 % interval | N | wanted | reached | |\n|---|---|---|---|---|---|---|"

Entry = dict[str, Any]


def render(files: list[Path]) -> str:
    """The tables of all files, one below the other."""
    return "\n\n".join(render_file(file) for file in files) or NOTHING


def render_file(file: Path) -> str:
    """One file's table and, above it, how it came about."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        rows, about = [render_row(row) for row in content["table"]], content.get("about", {})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f'{file} is no file of results ({error!r}): want {{"about", "table"}}') from error
    return "\n".join([f"`{file.parent.name}/{file.name}`{render_about(about)}", "", HEAD, *rows])


def render_about(about: Entry) -> str:
    """Commit, hardware, time and command, as far as they are known."""
    hardware, facts = about.get("hardware") or {}, []
    if about.get("commit"):
        facts.append(f"commit `{about['commit']}`")
    if hardware:
        facts.append(f"{hardware.get('cores', '?')} cores of {hardware.get('cpu', 'an unknown processor')}")
    if about.get("hours") is not None:
        stages = ", ".join(f"{name} {minutes(seconds)}" for name, seconds in (about.get("seconds") or {}).items())
        facts.append(f"{about['hours']:.2f} hours" + (f" ({stages})" if stages else ""))
    if about.get("killed"):
        facts.append("killed tries not counted: " + ", ".join(f"{name} {n}" for name, n in about["killed"].items()))
    if about.get("date"):
        facts.append(str(about["date"]))
    said = ": " + ", ".join(facts) if facts else ""
    return said + (f"\n\n    {about['command']}" if about.get("command") else "")


def render_row(row: Entry) -> str:
    """One line of the table."""
    percent, rule = bool(row.get("percent")), row.get("rule") or {}
    interval, passed = row.get("interval"), rule.get("passed")
    cells = [
        row["what"],
        number(row["value"], percent),
        " to ".join(number(edge, percent) for edge in interval) if interval else "",
        str(row.get("count", "")),
        str(rule.get("wanted", "")),
        number(rule["reached"], True) if "reached" in rule else "",
        {True: "met", False: "**not met**", None: ""}[passed],
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def number(value: float | None, percent: bool) -> str:
    """A value as it is read: 91.2 % or 0.87."""
    if value is None:
        return "none"
    return f"{100 * value:.1f} %" if percent else f"{value:.3f}"


def minutes(seconds: int) -> str:
    return f"{seconds} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def between(text: str) -> tuple[str, str, str]:
    """A README before, between and after the markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"want one line {BEGIN} and below it one line {END}")
    before, rest = text.split(BEGIN)
    inside, after = rest.split(END)
    return before, inside.strip("\n"), after


def update(readme: Path, files: list[Path]) -> None:
    """Put the tables into the README, all of it or nothing."""
    try:
        before, _, after = between(readme.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{readme}: {error}") from error
    draft = readme.with_name(f".{readme.name}.{os.getpid()}.part")
    draft.write_text(f"{before}{BEGIN}\n{render(sorted(files))}\n{END}{after}", encoding="utf-8")
    os.replace(draft, readme)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and rewrite the README."""
    parser = argparse.ArgumentParser(description="Write the results of a recipe into its README.")
    parser.add_argument("readme", type=Path)
    parser.add_argument("results", type=Path, nargs="*", help="JSON files; none leaves 'not yet measured'")
    given = parser.parse_args(arguments)
    try:
        update(given.readme, given.results)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
