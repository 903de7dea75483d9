"""What the documentation's site needs beyond its pages: sources at their places, and tables made while it is built.

MkDocs calls the functions whose names begin with `on_` (mkdocs.yml beside this file, hooks). On the site a page's
source is what it is in the repository (`docs/weights.md`, `recipes/hello/README.md`), so that a relative link leads to
the same page there and on a code-hosting site. Tables: the README's of recipes, what was measured, and the verbs with
their options.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from importlib import import_module
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from results import HEAD, read, render_row

from audiolm_kit import arguments, cli

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
SHOWN = (".md", ".png", ".css")
RECIPES = "<!-- recipes -->\n", "<!-- /recipes -->"
VERBS = "<!-- verbs -->\n", "<!-- /verbs -->"
MEASURED = re.compile(r"^<!-- measured ([\w/ ]+)(?:: (.+?))? -->\n.*?^<!-- /measured -->\n", re.MULTILINE | re.DOTALL)


# --- where pages stand ------------------------------------------------------------------------------------------------


def sources() -> dict[str, str]:
    """Every file of the site by its place in the repository, and where the site has it."""
    docs = sorted(path for path in (ROOT / "docs").rglob("*") if path.suffix in SHOWN)
    recipes = sorted(ROOT.glob("recipes/*/*.md"))
    found = {name(path): name(path).removeprefix("docs/") for path in docs}
    found |= {name(path): name(path).replace("README.md", "index.md") for path in recipes}
    found["CHANGELOG.md"] = "changes.md"
    return {source: re.sub(r"\.md$", ".html", place) for source, place in found.items()}


def name(path: Path) -> str:
    """A file's place in the repository."""
    return path.relative_to(ROOT).as_posix()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files, and ours in the place of what lies in docs/."""
    from mkdocs.structure.files import File

    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for source, place in sources().items():
        files.append(File(source, str(ROOT), config.site_dir, config.use_directory_urls, dest_uri=place))
    return files


# --- what is filled in ------------------------------------------------------------------------------------------------


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page as the site reads it."""
    return filled(markdown, page.file.src_uri)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page's HTML; the `::` before a block of code in a docstring is reStructuredText's way to say `:`."""
    return html.replace("::</p>", ":</p>")


def filled(text: str, source: str) -> str:
    """A page with its tables; what stands between a table's marks is for readers of the bare file."""
    if source == "docs/index.md":
        table = between((ROOT / "README.md").read_text(encoding="utf-8"), *RECIPES)
        text = replaced(text, *RECIPES, table.replace("](recipes/", "](../recipes/"))
    if source == "docs/reference/commands.md":
        text = replaced(text, *VERBS, "\n".join(section(verb) for verb in cli.VERBS))
    text = MEASURED.sub(lambda found: "\n".join(measured(each, found[2]) for each in found[1].split()), text)
    return indented(text)


def between(text: str, begin: str, end: str) -> str:
    """What stands between two marks."""
    return text.partition(begin)[2].partition(end)[0]


def replaced(text: str, begin: str, end: str, new: str) -> str:
    """A page with something else between two marks."""
    head, mark, rest = text.partition(begin)
    if not mark or end not in rest:
        raise ValueError(f"a page has no {begin.strip()} ... {end}: give it these marks, or take its table out here")
    return f"{head}{new}\n{rest.partition(end)[2]}"


def indented(text: str) -> str:
    """A page whose lists Python-Markdown reads as code-hosting sites do.

    It wants four spaces before a paragraph or a table of an item, where two or three are enough for them, and an empty
    line between that and the next item.
    """
    lines: list[str] = []
    fenced = inside = False
    for line in text.split("\n"):
        fenced ^= line.startswith("```")
        if not fenced and (not lines or not lines[-1]):
            inside = bool(re.match(r" {2,3}\S", line))
        if inside and re.match(r"(\d+\.|[-*]) ", line):
            lines.append("")
            inside = False
        lines.append(f"    {line.lstrip()}" if inside and line else line)
    return "\n".join(lines)


# --- experiments ------------------------------------------------------------------------------------------------------


def measured(experiment: str, wanted: str | None = None) -> str:
    """What was measured in a recipe's experiment, RECIPE/FILE, for a page two folders deep.

    Args:
        wanted: Parts of the names of rows, with commas between them; unless said those that a rule was set for.

    Raises:
        ValueError: there is no such recipe, or it has measured no such thing.
    """
    recipe, _, file = experiment.partition("/")
    whole, stored = f"../../recipes/{recipe}/README.md", ROOT / "recipes" / recipe / "results" / f"{file}.json"
    if not (ROOT / "recipes" / recipe / "README.md").is_file():
        raise ValueError(f"a page tells of {experiment}, but there is no recipe {recipe}: name one that there is")
    if not stored.is_file():
        return f"[{experiment}]({whole}#run) is not yet measured.\n"
    parts = wanted.split(", ") if wanted else []
    rows = [row for row in read(stored)["table"] if any(part in row["what"] for part in parts)]
    rows = rows if wanted else [row for row in read(stored)["table"] if row.get("rule")]
    if not rows:
        raise ValueError(
            f"a page tells of {experiment}, which has no row of {wanted or 'a rule'}: name one that it has"
        )
    said = "Of" if wanted else "What was wanted beforehand of"
    return "\n".join([f"{said} [{experiment}]({whole}#results):", "", HEAD, *map(render_row, rows), ""])


# --- verbs ------------------------------------------------------------------------------------------------------------


def section(verb: str) -> str:
    """A verb: what it does, and a table of its arguments and options."""
    function, named = cli.VERBS[verb]
    lines = [f"## {verb}", "", arguments.first_line(function), ""]
    if verb == "fit":
        return "\n".join([*lines, *FIT, ""])
    home, _, kind = (named or "").rpartition(".")
    options = getattr(import_module(f"audiolm_kit.{home}"), kind) if named else None
    given = [each for one in arguments.arguments_of(function, options) for each in flat(one)]
    rows = [row(each) for each in sorted(given, key=lambda each: each.kind is Parameter.KEYWORD_ONLY)]
    return "\n".join([*lines, "| | takes | unless said | |", "|---|---|---|---|", *rows, ""])


def flat(given: arguments.Argument) -> list[arguments.Argument]:
    """An argument, or all options of a dataclass."""
    return list(arguments.fields_of(given.hint)) if arguments.lies_flat(given.hint) else [given]


FIT = (
    "    audiolm-kit fit -c RECIPE.yaml [-c CHANGES.yaml ...] [--KEY VALUE ...] [--fresh]",
    "",
    "| | |",
    "|---|---|",
    "| `-c FILE` | A recipe, then files that say what differs from it; later ones win. |",
    "| `--KEY VALUE` | Any setting of the recipe, as `--trainer.max_steps 100` or `--model.lm.pattern flatten`. |",
    "| `--print_config` | Prints what the files come to, and runs nothing. |",
    "| `--fresh` | Sets the checkpoints of an earlier run in `trainer.default_root_dir` aside and starts over. |",
    "",
    "What can be set: the constructors of [tasks](training.md), [data](data.md) and Lightning's Trainer.",
)


def row(given: arguments.Argument) -> str:
    """An argument or option as a row of a table."""
    positional = given.kind is not Parameter.KEYWORD_ONLY
    short = "" if positional else "".join(f"{each}, " for each in [arguments.SHORT.get(given.name)] if each)
    written = f"`{given.name.upper()}`" if positional else f"`{short}--{given.name}`"
    unsaid = "" if given.default in (None, "", ()) else f"`{shown(given.default)}`"
    if given.default is Parameter.empty:
        unsaid = "" if given.optional or given.kind is Parameter.VAR_POSITIONAL else "*required*"
    about = " ".join((given.about or "").split()).replace("|", "\\|")
    return f"| {written} | {' or '.join(kinds(given.hint))} | {unsaid} | {about} |"


def shown(value: object) -> str:
    """A default as it is typed."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def kinds(hint: Any) -> Iterator[str]:
    """What an option takes, in words."""
    if get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from kinds(member) if member is not type(None) else ()
    elif get_origin(hint) is Literal:
        yield from (f"`{value}`" for value in get_args(hint))
    elif get_origin(hint) in (list, tuple):
        [item, *_] = get_args(hint)
        yield "words" if item is str else "numbers with commas"
    else:
        yield {bool: "nothing, or true, false", int: "a number", float: "a number", str: "a word"}.get(hint, "a word")
