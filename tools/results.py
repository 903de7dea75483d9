"""Write every figure that a page shows anew from the file that it comes of: no figure is written by hand.

    python tools/results.py              # all pages: README.md, docs/*.md, recipes/*/README.md
    python tools/results.py --check      # writes nothing; a line for each page and file that differ, and exit code 1
    python tools/results.py README.md    # this page alone; several can be given

A table stands between a line <!-- NAME --> and a line <!-- /NAME -->, where NAME is

    results          the tables of results/*.json beside the page (docs/evaluating.md says what they hold)
    sizes            what sizes.py beside the page counts without any run
    bench SECTION    that section of bench*.json beside the page (tools/benchmark.py)

A single figure stands right before a comment that says which row of recipes/*/results/*.json it is the value of, by a
part of its name that no other row has, and keeps its number of decimals:

    95.6 %<!-- spoken_digits/main: real `valid` -->, 2.6<!-- reached of streams/streams: 2 streams, parallel heads,
    1000 --> times as fast, in 1.3<!-- hours of spoken_digits/main --> hours

A file of results is {"about": {"command", "commit", "date", "hardware", "hours", "seconds", "killed"}, "table":
[{"what", "value", "percent", "interval", "count", "rule": {"wanted", "reached", "passed"}}]}; all but "what" and
"value" may be left out. What is reached of "at least 2 times ..." is shown as a factor, of others a share, in per cent,
or the row's own value where that is none. A figure whose file is not there yet, or whose row has no value in it (a run
that was cut short), stays as it is, and a line says so; with --check it is an error.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/*.md", "recipes/*/README.md")
NOTHING = "Not yet measured."
HEAD = "| | value | 95 % interval | N | wanted | reached | |\n|---|---|---|---|---|---|---|"
MARK = re.compile(r"^<!-- (/?)(results|sizes|bench \w+) -->$", re.MULTILINE)
TABLE = re.compile(r"^<!-- (?P<name>results|sizes|bench \w+) -->\n(?P<inside>.*?)<!-- /(?P=name) -->$", re.M | re.S)
FIGURE = re.compile(
    r"(?P<figure>(?:(?<!\d)-)?\d[\d,]*(?:\.(?P<decimals>\d+))?(?P<percent> %)?)?"
    r"(?P<comment><!-- (?:(?P<key>reached|hours) of )?(?P<recipe>\w+)/(?P<file>\w+)(?::\s+(?P<row>.+?))? -->)",
    re.DOTALL,
)

Entry = dict[str, Any]


class Part(NamedTuple):
    """Something of a page, and the file that it is made from."""

    source: Path
    text: str


class Rebuilt(NamedTuple):
    """A page as it should be."""

    page: Path
    text: str
    differing: list[str]
    """A line for each file that the page does not agree with; none where it is as it should be."""
    staying: list[str]
    """A line for each figure that stays as it is, since it has not been measured."""


class Unmeasured(ValueError):
    """What a figure comes of is not there yet."""


# --- results as tables ------------------------------------------------------------------------------------------------


def read(file: Path) -> Entry:
    """A file of results.

    Raises:
        ValueError: it is something else.
    """
    try:
        content: Entry = json.loads(file.read_text(encoding="utf-8"))
        for row in content["table"]:
            render_row(row)
        render_about(content.get("about", {}))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f'{told(file)} is no file of results ({error!r}): want {{"about", "table"}}') from error
    return content


def render_file(file: Path) -> str:
    """One file's table and, above it, how it came about."""
    content = read(file)
    about = render_about(content.get("about", {}))
    return "\n".join([f"`{file.parent.name}/{file.name}`{about}", "", HEAD, *map(render_row, content["table"])])


def render_about(about: Entry) -> str:
    """Commit, hardware, time and command, as far as they are known."""
    hardware, facts = about.get("hardware") or {}, []
    if about.get("commit"):
        facts.append(f"commit `{about['commit']}`")
    if hardware:
        cores = hardware.get("cores", "?")
        facts.append(f"{cores} core{'' if cores == 1 else 's'} of {hardware.get('cpu', 'an unknown processor')}")
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
        reached(row),
        {True: "met", False: "**not met**", None: ""}[passed],
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def number(value: float | None, percent: bool) -> str:
    """A value as it is read: 91.2 % or 0.87."""
    if value is None:
        return "none"
    return f"{100 * value:.1f} %" if percent else f"{value:.3f}"


def reached(row: Entry) -> str:
    """What came out of what was wanted: a share, how many times as much, or the row's own value where that is none."""
    rule = row.get("rule") or {}
    if "reached" not in rule:
        return ""
    if re.search(r"\btimes\b", str(rule.get("wanted", ""))):
        return f"x{rule['reached']:.2f}"
    own = not row.get("percent") and rule["reached"] == round(row["value"] or 0.0, 4)
    return number(rule["reached"], percent=not own)


def minutes(seconds: int) -> str:
    return f"{seconds} s" if seconds < 90 else f"{seconds / 60:.0f} min"


# --- tables in a page -------------------------------------------------------------------------------------------------


def parts(name: str, folder: Path) -> list[Part]:
    """What stands between the marks of a name, in a page of a folder."""
    if name == "results":
        return [Part(file, render_file(file)) for file in results_of(folder)]
    if name == "sizes":
        return counted(folder / "sizes.py")
    return benched(name.removeprefix("bench "), sorted(folder.glob("bench*.json")))


def results_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("results/*.json"))


def counted(script: Path) -> list[Part]:
    """The tables of a recipe's sizes.py."""
    if not script.is_file():
        raise ValueError(f"a table of sizes wants {told(script)}, with a function table()")
    spec = importlib.util.spec_from_file_location(f"{script.parent.name}_sizes", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return [Part(script, module.table())]


def benched(section: str, files: Sequence[Path]) -> list[Part]:
    """A section of a benchmark, from the files that measured it."""
    if not files:
        return []
    import bench_table  # brings torch

    made = [Part(file, bench_table.shown(file, section)) for file in files]
    return [part for part in made if part.text]


def fill_tables(text: str, folder: Path, differing: list[str]) -> str:
    """A page with its tables made anew; what differed is added to ``differing``."""

    def fill(found: re.Match[str]) -> str:
        name, own = found["name"], parts(found["name"], folder)
        made = "\n\n".join(part.text for part in own) or NOTHING
        whole = f"<!-- {name} -->\n{made}\n<!-- /{name} -->"
        if found[0] != whole:
            shown = f"\n\n{found['inside'].strip()}\n\n"
            others = [part.source for part in own if f"\n\n{part.text}\n\n" not in shown]
            differing.extend(f"is not what {told(file)} says" for file in others)
            if not others:
                differing.append(f"has more between <!-- {name} --> and <!-- /{name} --> than any file says")
        return whole

    return TABLE.sub(fill, text)


def check_marks(text: str, folder: Path) -> None:
    """Every table has a beginning and an end, and stands but once; results that are there are shown."""
    marks = [(end, name) for end, name in MARK.findall(text)]
    for place in range(0, len(marks), 2):
        name = marks[place][1]
        if marks[place : place + 2] != [("", name), ("/", name)] or marks.count(("", name)) != 1:
            raise ValueError(f"want one line <!-- {name} --> and below it one line <!-- /{name} -->")
    if results_of(folder) and ("", "results") not in marks:
        raise ValueError(f"want the lines <!-- results --> and <!-- /results --> for {told(results_of(folder)[0])}")


# --- single figures ---------------------------------------------------------------------------------------------------


def fill_figures(text: str, differing: list[str], staying: list[str]) -> str:
    """A page with its single figures read anew; what differed is added to ``differing``, what is not measured to
    ``staying``."""

    def fill(found: re.Match[str]) -> str:
        if found["figure"] is None:
            raise ValueError(f"no figure stands right before {found['comment']}")
        file = ROOT / "recipes" / found["recipe"] / "results" / f"{found['file']}.json"
        try:
            value, decimals = measured(found, file), len(found["decimals"] or "")
        except Unmeasured as reason:
            staying.append(f"keeps {found['figure']}: {reason}")
            return found[0]
        made = f"{100 * value:,.{decimals}f} %" if found["percent"] else f"{value:,.{decimals}f}"
        if made != found["figure"]:
            differing.append(f"has {found['figure']} where {told(file)} says {made}: {found['comment']}")
        return made + found["comment"]

    return FIGURE.sub(fill, text)


def measured(found: re.Match[str], file: Path) -> float:
    """The value that a comment names in a file of results."""
    if not file.is_file():
        raise Unmeasured(f"{found['comment']} names what is not measured, there is no {told(file)}")
    content = read(file)
    if found["key"] == "hours":
        value = content.get("about", {}).get("hours")
    else:
        part = " ".join((found["row"] or "").split())  # of a name that went over the end of a line
        rows = [row for row in content["table"] if part and part in row["what"]]
        whole = [row for row in rows if f": {row['what']}".endswith(f": {part}")]  # a name that others begin with
        rows = whole if len(whole) == 1 else rows
        if len(rows) != 1:
            raise ValueError(f"{found['comment']} names {len(rows)} rows: give a part of the name of one alone")
        value = rows[0].get("rule", {}).get("reached") if found["key"] else rows[0]["value"]
    if value is None:
        raise Unmeasured(f"{found['comment']} names what has no value in {told(file)}")
    return float(value)


# --- pages ------------------------------------------------------------------------------------------------------------


def all_pages(root: Path = ROOT) -> list[Path]:
    """Those that show something measured."""
    pages = [page for pattern in PAGES for page in sorted(root.glob(pattern))]
    return [page for page in pages if shows(page.read_text(encoding="utf-8")) or results_of(page.parent)]


def shows(text: str) -> bool:
    return bool(MARK.search(text) or FIGURE.search(text))


def rebuild(page: Path) -> Rebuilt:
    """A page made anew, and where it differs; nothing is written.

    Raises:
        ValueError: a mark without its other, a comment that names no row, a file that is none of results, or a page
            that shows none.
    """
    text, folder = page.read_text(encoding="utf-8"), page.resolve().parent
    differing, staying = list[str](), list[str]()
    try:
        check_marks(text, folder)
        if not shows(text):
            raise ValueError("want one line <!-- results --> and below it one line <!-- /results -->")
        made = fill_figures(fill_tables(text, folder, differing), differing, staying)
    except (ValueError, OSError) as error:
        raise ValueError(f"{told(page)}: {error}") from error
    lines = ([f"{told(page)} {line}" for line in found] for found in (differing, staying))
    return Rebuilt(page, made, *lines)


def write(rebuilt: Rebuilt) -> None:
    """All of it or nothing."""
    page = rebuilt.page
    draft = page.with_name(f".{page.name}.{os.getpid()}.part")
    draft.write_text(rebuilt.text, encoding="utf-8")
    os.replace(draft, page)


def told(path: Path) -> str:
    """A path as it is read from the root of the repository."""
    whole = path.resolve()
    return str(whole.relative_to(ROOT) if whole.is_relative_to(ROOT) else path)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; rewrite pages, or say what differs and exit with 1."""
    parser = argparse.ArgumentParser(description="Write every figure of pages anew from the file that it comes of.")
    parser.add_argument("pages", type=Path, nargs="*", help="(default: all that show something measured)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page differs")
    given = parser.parse_args(arguments)
    try:
        made = [rebuild(page) for page in given.pages or all_pages()]  # all before the first is written
        changed = [each for each in made if each.differing]
        staying = [line for each in made for line in each.staying]
        if given.check and staying:
            raise ValueError(staying[0])
        if not given.check:
            for each in changed:
                write(each)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    for line in (line for each in changed for line in each.differing):
        print(line if given.check else f"{line}: written anew")
    for line in staying:
        print(line)
    if given.check and changed:
        parser.exit(1, f"{parser.prog}: python tools/results.py writes them anew\n")


if __name__ == "__main__":
    main()
