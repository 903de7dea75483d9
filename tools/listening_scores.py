"""What listeners said: tables of preferences and of mean scores, from the CSV files that listening pages save.

    python tools/listening_scores.py answers/*.csv -o scores.json

prints Markdown. Intervals are of 95 %. Those by bootstrap draw listeners and items anew, both at once, for the answers
of one listener, and about one item, are alike; the exact ones and p take every answer for itself, as with one listener.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from audiolm_kit.audio import write_bytes
from audiolm_kit.evaluation.measures import Bootstrap, Measure

WANTED = {
    "ab": ("page", "listener", "seed", "trial", "item", "left", "right", "choice", "seconds", "time"),
    "mos": ("page", "listener", "seed", "trial", "item", "arm", "score", "seconds", "time"),
}
"""The columns that are read, by the test's mode."""
CHOICES = ("left", "right", "same")
LEVEL = 0.05


@dataclass(frozen=True)
class Answer:
    """One row: a score from 1 to 5 of an arm, or how much of a vote the first of two arms has: 1, 0 or a half."""

    page: str
    listener: str
    item: str
    arms: tuple[str, ...]
    """One, or two in the order of the alphabet."""
    value: float
    left: float | None
    """1 where the left side was chosen, 0 the right one, else None."""
    seconds: float


# --- reading ----------------------------------------------------------------------------------------------------------


def read_answers(paths: Sequence[Path]) -> list[Answer]:
    """The answers of several files or folders of them; an answer that was saved twice counts once, the later one.

    Raises:
        ValueError: A file holds something else; the message names the line.
    """
    files = [found for path in paths for found in (sorted(path.rglob("*.csv")) if path.is_dir() else [path])]
    if not files:
        raise ValueError(f"no .csv files in {', '.join(map(str, paths))}")
    latest: dict[tuple[str, ...], tuple[str, Answer]] = {}
    for file in files:
        for place, row in rows_of(file):
            answer = answer_of(row, f"{file}, line {place}")
            key = tuple(row[name] for name in ("page", "mode", "listener", "seed", "trial"))
            if key not in latest or latest[key][0] <= row["time"]:
                latest[key] = (row["time"], answer)
    if not latest:
        raise ValueError(f"{files[0]}: no answers in it")
    return [answer for _, answer in latest.values()]


def rows_of(file: Path) -> Iterable[tuple[int, dict[str, str]]]:
    """Line number and row of a file that a listening page has saved."""
    try:
        text = file.read_bytes().decode("utf-8-sig")  # as it is: cells may hold ends of lines
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: no CSV file that a listening page has saved ({error}): leave it out") from None
    if "mode" not in (reader.fieldnames or ()):
        raise ValueError(f"{file}: no column 'mode'; want a CSV file that a listening page has saved")
    for place, row in rows:
        wanted = WANTED.get(row["mode"])
        if wanted is None:
            raise ValueError(f"{file}, line {place}: mode is {row['mode']!r}, want {' or '.join(WANTED)}")
        if missing := [name for name in wanted if not row.get(name)]:
            raise ValueError(f"{file}, line {place}: {missing[0]} is missing")
        yield place, row


def answer_of(row: dict[str, str], place: str) -> Answer:
    """A row as an answer."""
    try:
        seconds = float(row["seconds"])
    except ValueError:
        raise ValueError(f"{place}: seconds is {row['seconds']!r}, want a number") from None
    about = (row["page"], row["listener"], row["item"])
    if row["mode"] == "mos":
        if row["score"] not in {"1", "2", "3", "4", "5"}:
            raise ValueError(f"{place}: score is {row['score']!r}, want 1 to 5")
        return Answer(*about, (row["arm"],), float(row["score"]), None, seconds)
    if row["choice"] not in CHOICES:
        raise ValueError(f"{place}: choice is {row['choice']!r}, want {', '.join(CHOICES)}")
    arms = tuple(sorted((row["left"], row["right"])))
    left = {"left": 1.0, "right": 0.0, "same": None}[row["choice"]]
    value = 0.5 if left is None else left if row["left"] == arms[0] else 1 - left
    return Answer(*about, arms, value, left, seconds)


# --- figures ----------------------------------------------------------------------------------------------------------


def mean_of(answers: Sequence[Answer], bounds: tuple[float, float], bootstrap: Bootstrap) -> Measure:
    """The mean value, with an interval over other listeners and other items; ``size`` counts answers."""
    listeners, items = numbered(answer.listener for answer in answers), numbered((a.page, a.item) for a in answers)
    values = np.array([answer.value for answer in answers])
    whole = float(values.mean())

    def weighted(weights: np.ndarray) -> float:
        return float(weights @ values / weights.sum()) if weights.sum() > 0 else whole

    statistics: dict[tuple[bool, bool], Callable[..., float]] = {
        (True, True): lambda by_listener, by_item: weighted(by_listener[listeners] * by_item[items]),
        (True, False): lambda by_listener: weighted(by_listener[listeners]),
        (False, True): lambda by_item: weighted(by_item[items]),
    }
    counts = (int(listeners.max()) + 1, int(items.max()) + 1)
    several = (counts[0] > 1, counts[1] > 1)  # of a single one there are no others to draw
    if several == (False, False):
        return Measure(whole, math.nan, math.nan, len(answers))
    sizes = [count for count in counts if count > 1]
    found = bootstrap.of_sets(statistics[several], *sizes, bounds=bounds)
    return found._replace(size=len(answers))


def numbered(names: Iterable[Any]) -> np.ndarray:
    """Names as numbers from 0, in order of appearance."""
    known: dict[Any, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names])


def sign_test(wins: int, losses: int) -> float:
    """How likely a count at least as uneven is where both are as likely: exact, to both sides; 1 without any."""
    total, fewer = wins + losses, min(wins, losses)
    return min(1.0, float(2 * sum(math.comb(total, each) for each in range(fewer + 1)) / 2**total))


def exact_interval(wins: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share (Biometrika 26, 1934); NaN where nothing was counted."""
    if not total:
        return math.nan, math.nan

    def likely(count: int, share: float) -> float:
        ways = math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)  # of many: too large
        return math.exp(ways + count * math.log(share) + (total - count) * math.log1p(-share))

    def at_most(count: int, share: float) -> float:
        return sum(likely(each, share) for each in range(count + 1))

    def share_where(holds: Callable[[float], bool]) -> float:
        low, high = 0.0, 1.0  # holds at low, not at high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low

    low = 0.0 if wins == 0 else share_where(lambda share: 1 - at_most(wins - 1, share) < level / 2)
    high = 1.0 if wins == total else share_where(lambda share: at_most(wins, share) > level / 2)
    return low, high


def preferences(answers: Sequence[Answer], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """For each pair of arms: who was preferred how often. ``preference`` is the first's, ties counting half."""
    pairs: dict[tuple[str, ...], list[Answer]] = defaultdict(list)
    for answer in answers:
        if len(answer.arms) == 2:
            pairs[answer.arms].append(answer)
    found = []
    for arms, own in sorted(pairs.items()):
        votes = Counter(answer.value for answer in own)
        wins, losses = votes[1.0], votes[0.0]
        told = {"arms": list(arms), "first": wins, "same": votes[0.5], "second": losses, **crowd(own)}
        mean = mean_of(own, (0.0, 1.0), bootstrap)
        exact = exact_interval(wins, wins + losses)
        share = wins / (wins + losses) if wins + losses else math.nan
        told |= {"preference": mean.value, "bootstrap": [mean.low, mean.high], "decided": share, "exact": list(exact)}
        found.append({**told, "p": sign_test(wins, losses)})
    return found


def scores(answers: Sequence[Answer], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """For each arm, best first: its mean score."""
    arms: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if len(answer.arms) == 1:
            arms[answer.arms[0]].append(answer)
    found = []
    for arm, own in arms.items():
        mean = mean_of(own, (1.0, 5.0), bootstrap)
        counts = Counter(int(answer.value) for answer in own)
        told = {"arm": arm, "mos": mean.value, "bootstrap": [mean.low, mean.high], **crowd(own)}
        found.append({**told, "counts": [counts[score] for score in range(1, 6)]})
    return sorted(found, key=lambda row: (-row["mos"], row["arm"]))


def crowd(answers: Sequence[Answer]) -> dict[str, int]:
    """How many answers, by how many listeners, about how many items."""
    listeners, items = {answer.listener for answer in answers}, {(answer.page, answer.item) for answer in answers}
    return {"answers": len(answers), "listeners": len(listeners), "items": len(items)}


def habits(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """For each listener what may give an answer away that was not listened for: haste, one side, one score."""
    found = []
    for listener in sorted({answer.listener for answer in answers}):
        own = [answer for answer in answers if answer.listener == listener]
        sides = [answer.left for answer in own if answer.left is not None]
        told = {"listener": listener, "answers": len(own), "seconds": median(answer.seconds for answer in own)}
        left = {
            "left": int(sum(sides)),
            "sides": len(sides),
            "p": sign_test(int(sum(sides)), len(sides) - int(sum(sides))),
        }
        ratings = [answer.value for answer in own if len(answer.arms) == 1]
        found.append({**told, **left, "mean_score": float(np.mean(ratings)) if ratings else math.nan})
    return found


# --- telling ----------------------------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; a bar in a name does not end its cell."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (heads, *rows)]
    marks = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], marks, *lines[1:]))


def between(interval: Sequence[float], form: str) -> str:
    """An interval; a dash where there is none."""
    low, high = interval
    return "–" if math.isnan(low) else f"{low:{form}} to {high:{form}}"


def share(value: float) -> str:
    """Per cent; a dash where nothing was counted."""
    return "–" if math.isnan(value) else f"{value:.0%}"


def preference_table(found: list[dict[str, Any]]) -> str:
    """A row for each pair of arms."""
    heads = ("A/B", "N", "first", "same", "second", "prefer the first", "95 %", "of decided", "95 % exact", "p")
    rows = [
        (
            *(" – ".join(row["arms"]), *(str(row[key]) for key in ("answers", "first", "same", "second"))),
            *(share(row["preference"]), between(row["bootstrap"], ".0%")),
            *(share(row["decided"]), between(row["exact"], ".0%"), f"{row['p']:.2g}"),
        )
        for row in found
    ]
    return table(heads, rows)


def score_table(found: list[dict[str, Any]]) -> str:
    """A row for each arm."""
    heads = ("MOS", "N", "listeners", "items", "mean", "95 %", "1", "2", "3", "4", "5")
    rows = [
        (
            *(row["arm"], *(str(row[key]) for key in ("answers", "listeners", "items"))),
            *(f"{row['mos']:.2f}", between(row["bootstrap"], ".2f"), *map(str, row["counts"])),
        )
        for row in found
    ]
    return table(heads, rows)


def listener_table(found: list[dict[str, Any]]) -> str:
    """A row for each listener."""
    heads = ("listener", "answers", "median seconds", "left of decided", "p", "mean score")
    rows = [
        (
            *(row["listener"], str(row["answers"]), f"{row['seconds']:.1f}"),
            *((f"{row['left']} of {row['sides']}", f"{row['p']:.2g}") if row["sides"] else ("–", "–")),
            "–" if math.isnan(row["mean_score"]) else f"{row['mean_score']:.2f}",
        )
        for row in found
    ]
    return table(heads, rows)


TABLES = {"preferences": preference_table, "scores": score_table, "listeners": listener_table}


def plain(value: Any) -> Any:
    """The same for JSON, which knows no NaN."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, print the tables and, where asked, write the figures."""
    parser = argparse.ArgumentParser(description="Tables of what listeners said.")
    parser.add_argument("answers", type=Path, nargs="+", help="CSV files of listening pages, or folders of them")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap, default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap, default: %(default)s")
    given = parser.parse_args(arguments)
    try:
        bootstrap, answers = Bootstrap(given.draws, given.seed), read_answers(given.answers)
        found = {
            "preferences": preferences(answers, bootstrap),
            "scores": scores(answers, bootstrap),
            "listeners": habits(answers),
        }
        if given.output:
            write_bytes(given.output, (json.dumps(plain(found), indent=1, ensure_ascii=False) + "\n").encode())
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print("\n\n".join(write(found[name]) for name, write in TABLES.items() if found[name]))


if __name__ == "__main__":
    main()
