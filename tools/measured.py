"""What a table of results is made of: means with intervals, rules, and the record of how they came about.

Numpy and nothing of ours: recipes import it where their judges live, in an environment of its own.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

Entry = dict[str, Any]
DRAWS = 2000


def open_judges(folder: Path) -> ModuleType:
    """FOLDER/judges.py as a module."""
    file = folder / "judges.py"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}: give a folder with a judges.py (see README.md)")
    spec = importlib.util.spec_from_file_location("judges", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["judges"] = module
    spec.loader.exec_module(module)
    return module


# --- numbers ----------------------------------------------------------------------------------------------------------


def interval(values: np.ndarray) -> list[float]:
    """The middle 95 % of the means of samples drawn from ``[N]`` values with replacement."""
    generator = np.random.default_rng(0)
    means = values[generator.integers(0, len(values), (DRAWS, len(values)))].mean(1)
    return [round(float(edge), 4) for edge in np.quantile(means, (0.025, 0.975))]


def score(values: list[float] | np.ndarray) -> Entry:
    """A mean, its interval and how many values are behind it."""
    values = np.asarray(values, dtype=float)
    if not len(values):
        return {"value": None, "interval": None, "count": 0}
    return {"value": round(float(values.mean()), 4), "interval": interval(values), "count": len(values)}


def score_of_models(models: list[np.ndarray], middle: Callable[[np.ndarray], Any] = np.mean) -> Entry:
    """The mean over several trained models' sounds, an array for each; the interval draws models, then their sounds.

    Given paired differences it is the score of a difference. ``by_model`` shows each model's own mean.

    Args:
        middle: of a model's sounds, in the place of their mean: ``np.median``.
    """
    generator = np.random.default_rng(0)
    arrays = [np.asarray(values, dtype=float) for values in models]
    means = []
    for _ in range(DRAWS):
        drawn = [arrays[place] for place in generator.integers(0, len(arrays), len(arrays))]
        means.append(np.mean([middle(values[generator.integers(0, len(values), len(values))]) for values in drawn]))
    edges = [round(float(edge), 4) for edge in np.quantile(means, (0.025, 0.975))]
    own = [round(float(middle(values)), 4) for values in arrays]
    value = round(float(np.mean([middle(values) for values in arrays])), 4)
    return {"value": value, "interval": edges, "count": sum(map(len, arrays)), "by_model": own}


def ruled(wanted: str, reached: float, passed: bool) -> Entry:
    """What was wanted of a score, what came out, and whether that is enough."""
    return {"wanted": wanted, "reached": round(reached, 4), "passed": bool(passed)}


def shares(right: np.ndarray, groups: list[str]) -> dict[str, float]:
    """The share of right answers in each group."""
    names = np.array(groups)
    return {name: round(float(right[names == name].mean()), 4) for name in sorted(set(groups))}


def diversity(vectors: np.ndarray, groups: list[str]) -> float:
    """How unlike sounds of one group are: the mean Euclidean distance of their vectors ``[N, D]``, mean over groups.

    It has the embedder's own scale (and no matter where its zero lies): look at it beside that of real sounds.
    """
    names, means = np.array(groups), []
    for name in sorted(set(groups)):
        own = vectors[names == name].astype(float)
        if len(own) > 1:
            squares = (own**2).sum(1)
            apart = np.sqrt((squares[:, None] + squares - 2 * own @ own.T).clip(0))
            np.fill_diagonal(apart, 0)
            means.append(apart.sum() / (len(own) * (len(own) - 1)))
    return float(np.mean(means))


def row(what: str, scored: Entry, percent: bool = True) -> Entry:
    """A row of the README's table (tools/results.py)."""
    keys = ("value", "interval", "count", "rule", "by_model")
    return {"what": what, "percent": percent} | {key: scored[key] for key in keys if key in scored}


# --- record -----------------------------------------------------------------------------------------------------------


def record(command: str, times: Path | None = None, stages: Sequence[str] = ("*",)) -> Entry:
    """How figures came about: command, commit, day, hardware and the seconds of each stage that they rest on."""
    return {
        "command": command,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "hardware": hardware(),
        **stage_times(times, stages),
    }


def commit() -> str | None:
    """The commit of the code, marked when files other than results and texts differ from it."""
    changes = [
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":/",
        ":(top,exclude)recipes/*/results/*",
        ":(top,exclude)*.md",
    ]
    try:
        return f"{git('rev-parse', '--short=10', 'HEAD')}{'-dirty' if git(*changes) else ''}"
    except (OSError, subprocess.CalledProcessError):
        return None


def git(*command: str) -> str:
    """What git says of the folder that this file lies in."""
    here = Path(__file__).resolve().parent
    return subprocess.check_output(["git", "-C", here, *command], text=True, stderr=subprocess.DEVNULL).strip()


def hardware() -> Entry:
    """The processor and how many cores this run may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": names[0] if names else platform.processor() or platform.machine(), "cores": cores}


def stage_times(folder: Path | None, stages: Sequence[str] = ("*",)) -> Entry:
    """Seconds of each stage, from the Makefile's files: a try says that it begins and, unless killed, its seconds.

    Args:
        stages: patterns of the names of those that count.
    """
    files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime) if folder and folder.is_dir() else []
    files = [file for file in files if any(fnmatch(file.name, pattern) for pattern in stages)]
    tries = {file.name: file.read_text(encoding="utf-8").split() for file in files}
    seconds = {stage: [int(each) for each in lines if each != "begun"] for stage, lines in tries.items()}
    killed = {stage: lines.count("begun") - len(seconds[stage]) for stage, lines in tries.items()}
    return {
        "seconds": {stage: sum(each) for stage, each in seconds.items()},
        "killed": {stage: count for stage, count in killed.items() if count > 0},
        "hours": round(sum(map(sum, seconds.values())) / 3600, 2) if seconds else None,
    }


def write_json(path: Path, content: Entry) -> None:
    """All of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    draft.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, path)
