"""What the benchmark times: cases side by side that take turns, and what came of each.

Nothing of ours is imported here, and no package of others but torch.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch

OURS, TRANSFORMERS, AUDIOCRAFT, ENCODEC = "audiolm_kit", "transformers", "audiocraft", "encodec"

FEW = 3
"""Repeats of what takes long, at the most."""

Run = Callable[[], float]
"""Do it once; what is returned is what it took, in seconds unless the task's unit says otherwise."""


@dataclass(frozen=True)
class Sizes:
    """What is timed; the defaults are MusicGen-small's shape, EnCodec's 24 kHz model and the issue's training step."""

    dim: int = 1024
    heads: int = 16
    layers: int = 24
    num_codebooks: int = 4
    codebook_size: int = 2048
    context: int = 16
    """Tokens of the caption."""
    text_dim: int = 768
    frames: int = 24
    """Of a request at batch 1; a batch has half of them."""
    batch: int = 8
    early: int = 50
    late: int = 1400
    """Frames that stand already where the cost of one more is compared."""
    seconds: float = 10.0
    """Of the sound that goes through the codecs."""
    filters: int = 32
    """Width of the SEANet at 24 kHz, half of that at 32 kHz."""
    train_dim: int = 512
    train_heads: int = 8
    train_layers: int = 8
    train_batch: int = 8
    train_frames: int = 250
    buffer: int = 512
    """MiB that are read to see how fast memory is."""
    matrix: int = 2048
    """Rows and columns of the matrices that are multiplied to see how fast that goes."""
    repeats: int = 5
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name not in ("device", "seed") and value <= 0:
                raise ValueError(f"{name} is {value}: give a positive number")


ON_A_GPU: dict[str, Any] = {"frames": 200, "batch": 64, "train_dim": 1024, "train_heads": 16, "train_layers": 24}
ON_A_GPU |= {"train_batch": 16, "train_frames": 500, "buffer": 4096, "matrix": 8192}
"""Defaults that a GPU has otherwise: its time is short, and the training step is that of the 300M preset."""


class Least(NamedTuple):
    """What a run cannot do without; the measured limits say how long that takes at the least."""

    bytes: float
    """Read from memory."""
    flops: float
    precision: str
    """fp32, or bf16 for all that may be rounded: then whichever products are faster here."""


class Check(NamedTuple):
    """Whether a contender does the same work as ours."""

    equal: bool
    told: str


class Contender(NamedTuple):
    """One of those that are compared in a task."""

    by: str
    option: str
    make: Callable[[], Run]
    """Builds it; what it raises is why it is not available."""
    least: Least | None = None
    check: Callable[[], Check] | None = None
    """Called once it is built; what differs makes the whole benchmark fail."""


class Group(NamedTuple):
    """A task and its contenders, which take turns."""

    section: str
    kind: str
    """What targets call it."""
    task: str
    """What the table calls it."""
    unit: str
    work: float
    """Steps, frames, bytes or floating-point operations of a run; 1 where the unit is a time or a size."""
    contenders: Sequence[Contender]
    repeats: int | None = None
    """None: as often as everything else."""
    rehearse: bool = True


@dataclass(frozen=True)
class Row:
    """What came of a contender."""

    section: str
    kind: str
    task: str
    by: str
    option: str
    unit: str
    work: float
    times: list[float]
    """Every single one, in the order of the rounds; none where it is missing."""
    least: Least | None = None
    missing: str = ""
    """Why it could not be measured."""
    equal: bool | None = None
    """Whether it did the same work; None where that was not looked at."""
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @classmethod
    def read(cls, content: dict[str, Any]) -> Row:
        """The row that ``asdict`` wrote."""
        least = content["least"]
        return cls(**{**content, "least": None if least is None else Least(*least)})


def compared(
    group: Group,
    repeats: int,
    say: Callable[[str], None] = lambda line: None,
    left_out: Callable[[str], str] = lambda option: "",
) -> list[Row]:
    """Build all contenders, check and rehearse them, then run them in turn: A B C A B C ...

    Args:
        left_out: why an option is not measured here; empty where it is.
    """
    rows: list[Row] = []
    runs: dict[int, Run] = {}
    for each in group.contenders:
        row = Row(group.section, group.kind, group.task, each.by, each.option, group.unit, group.work, [], each.least)
        if missing := left_out(each.option):
            rows.append(replace(row, missing=missing))
            continue
        say(f"{group.section}: {group.task}: {each.by} {each.option}")
        row, run = _ready(row, each, group.rehearse)
        if run is not None:
            runs[len(rows)] = run
        rows.append(row)
    for _ in range(group.repeats or repeats):
        for place, run in list(runs.items()):
            try:
                rows[place].times.append(run())
            except Exception as error:  # as in _ready, where it was not rehearsed
                rows[place] = replace(rows[place], times=[], missing=reason(error))
                del runs[place]
    runs.clear()
    gc.collect()
    return rows


def _ready(row: Row, contender: Contender, rehearse: bool) -> tuple[Row, Run | None]:
    """The row as it is known before timing, and the run; none where it is missing."""
    try:
        run = contender.make()
        checked = None if contender.check is None else contender.check()
        if rehearse:
            run()
    except Exception as error:  # a package, a kernel or a part of ours that is not there, whatever it raises
        return replace(row, missing=reason(error)), None
    return row if checked is None else replace(row, equal=checked.equal, note=checked.told), run


def reason(error: Exception) -> str:
    """The first line of what an error says."""
    text = str(error).strip().split("\n", 1)[0]
    if isinstance(error, (ModuleNotFoundError, Unavailable)):
        return text
    return f"{type(error).__name__}: {text}"


class Unavailable(Exception):
    """Something that is not there, said in a line."""


def timed(work: Callable[[], object], device: str) -> Run:
    """The seconds of ``work``, until the device has done it."""

    def run() -> float:
        wait(device)
        begun = time.perf_counter()
        work()
        wait(device)
        return time.perf_counter() - begun

    return run


def timed_by_events(work: Callable[[], object], device: str, times: int) -> Run:
    """The same for work too short for the host's clock: several times in a row, one of them, by the device's clock."""
    if device == "cpu":
        return timed(work, device)

    def run() -> float:
        event: Any = torch.cuda.Event
        begin, end = event(enable_timing=True), event(enable_timing=True)
        wait(device)
        begin.record()
        for _ in range(times):
            work()
        end.record()
        wait(device)
        return float(begin.elapsed_time(end)) / 1e3 / times

    return run


def wait(device: str) -> None:
    """Until the device has done what it was asked for."""
    if device != "cpu":
        torch.cuda.synchronize(device)
