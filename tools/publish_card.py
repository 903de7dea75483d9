"""What the card of a published model says beyond its own files: use, data, figures of a recipe, rounding, limits."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))  # run as a program or imported by a test alike

import results

from audiolm_kit import checkpoint, model_card
from audiolm_kit.published.names import Example

MARK = "<!-- Written by tools/publish.py. -->"
WIDEST = 120
"""Characters of a line of Python."""
BOUNDS = ("ceiling", "floor")
"""What rows of a card must tell, so that its figures say something: what could be reached, and what chance reaches."""
HEAD = results.HEAD.replace("\n|", " this model |\n|", 1) + "---|"
MADE = """```python
from audiolm_kit import {names}, audio

model = {kind}.load("{name}")
{call}
audio.write("sound.wav", sound)
```"""


@dataclass(frozen=True)
class About:
    """What no checkpoint and no file of results knows of a model: tools/published/NAME.yaml."""

    licence: str
    """Of the weights, by the hub's name for it."""
    data: str
    """What it was trained on, with where that can be had."""
    attribution: str
    """Whom the data's licence wants named, and how."""
    limits: str
    """What it cannot do, and what it must not be taken for."""
    results: tuple[str, ...]
    """Files of figures, from the root of the repository on: recipes/*/results/*.json."""
    rows: tuple[str, ...] = ()
    """Parts of the names of the rows that are shown; none: all."""
    member: int = -1
    """Which of the models that a row's figure is the mean of this one is, from 0; -1: it is no mean."""
    example: Example = field(default_factory=Example)


def read_about(path: Path) -> About:
    """A file that says what a model's card must say.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no YAML, it lacks something, or something in it is empty.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: write what the card is to say of the model (licence, data, ...)")
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
        told["example"] = Example(**_tuples(told.get("example", {})))
        about = About(**_tuples(told))
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} does not say what a card needs ({reason}): see About in publish_card.py") from None
    empty = [name for name in ("licence", "data", "attribution", "limits", "results") if not getattr(about, name)]
    if empty:
        raise ValueError(f"{path} says nothing of {', '.join(empty)}: no model is published without")
    return about


def _tuples(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(each) if isinstance(each, list) else each for name, each in told.items()}


def write_card(folder: Path, name: str, about: About, tables: str, stored: str) -> None:
    """Write README.md into a checkpoint's folder, from its own files and what is told here."""
    kind = checkpoint.kind_of(folder)
    sections = {
        "Use": _use(kind, name, about.example),
        "Results": tables,
        "Data and attribution": f"{about.data}\n\n{about.attribution}",
        "Stored": stored,
        "Limits": about.limits,
    }
    text = model_card.card(folder, name, about.licence, sections=sections, mark=MARK)
    (folder / model_card.FILE).write_text(text, encoding="utf-8")


def tables(about: About, root: Path) -> str:
    """The rows of the recipe's files, as the recipe's own page has them, with this model's own figure behind each.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: it is none of results, no row has one of the names, or none of them tells a ceiling or a floor.
    """
    shown, found = [], []
    for name in about.results:
        if not (root / name).is_file():
            raise FileNotFoundError(f"no results at {root / name}: measure the model first")
        content = results.read(root / name)
        chosen = [row for row in content["table"] if not about.rows or any(each in row["what"] for each in about.rows)]
        found += [row["what"] for row in chosen]
        lines = [f"{results.render_row(row)} {_own(row, about.member)} |" for row in chosen]
        shown.append("\n".join([f"`{name}`{results.render_about(content.get('about', {}))}", "", HEAD, *lines]))
    missing = [repr(each) for each in about.rows if not any(each in what for what in found)]
    missing += [f"({bound})" for bound in BOUNDS if not any(bound in what for what in found)]
    if missing:
        raise ValueError(f"no row of {', '.join(about.results)} has {missing[0]} in its name: a card needs it")
    return "\n\n".join(shown)


def _own(row: Mapping[str, Any], member: int) -> str:
    """This model's figure, where the row's is the mean of several models."""
    each = row.get("by_model") or []
    if member < 0 or not each:
        return ""
    if member >= len(each):
        raise ValueError(f"member is {member}, but {row['what']!r} is the mean of {len(each)} models: give a lower one")
    return results.number(each[member], bool(row.get("percent")))


def stored(dtypes: Mapping[str, str], left_out: str, differences: Mapping[str, float]) -> str:
    """What the weights were turned into, and what that has changed."""
    parts = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
    lines = [f"Weights are stored in fewer bits ({parts}) and computed with in float32.{left_out}"]
    lines += ["Beside the model as it was trained:", "| | value |\n|---|---|"]
    rows = [f"| {name} | {value:.4g} |" for name, value in differences.items()]
    return "\n\n".join(lines) + "\n" + "\n".join(rows)


def _use(kind: str, name: str, example: Example) -> str:
    text = example.texts[0] if example.texts else ""
    if kind == "AudioLM":
        command = f"audiolm-kit continue {name} prompt.wav -o whole.wav --seconds {example.seconds:g}"
        names = "AudioLM"
        call = f'[sound] = model.continue_([audio.read("prompt.wav")], seconds={example.seconds:g}, seed=0)'
    else:
        options = " ".join(f"--{option} {value}" for option, value in {**example.sampling, **example.chosen}.items())
        command = f'audiolm-kit generate {name} "{text}" -o sound.wav {options}'.rstrip()
        names = "AudioGen, Sampling" if example.sampling else "AudioGen"
        chosen = ", ".join(f"{option}={value}" for option, value in example.sampling.items())
        given = [f"[{json.dumps(text)}]", f"seconds={example.seconds:g}"]
        given += [f"sampling=Sampling({chosen})"] if chosen else []
        given += ["seed=0", *(f"{option}={value}" for option, value in example.chosen.items())]
        call = f"[sound] = model.generate({', '.join(given)})"
        if len(call) > WIDEST:
            call = "\n".join(["[sound] = model.generate(", *(f"    {each}," for each in given), ")"])
    made = MADE.format(names=names, kind=kind, name=name, call=call)
    return f"It comes with audiolm_kit.\n\n```sh\n{command}\n```\n\n{made}"
