"""Ours beside transformers, audiocraft and encodec in one run: decoding, codec, training, start-up, and their limits.

    python tools/benchmark.py [-o build/bench.json] [--only decode,codec] [--device cuda] [--layers 24 ...]
    python tools/benchmark.py --table build/bench.json       # its tables again
    cp build/bench.json docs/ && python tools/results.py     # and into docs/performance.md

Weights are random and of fixed seed: time does not depend on what was learned. What is compared has the same weights,
runs in the same process on the same threads, and takes turns, so that other work on the machine slows all alike. That
it does the same work is checked first: if not, the benchmark fails. Prints tables and writes every single time.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import bench_limits
import bench_table
import torch
from bench_cases import ON_A_GPU, Group, Row, Sizes, compared
from measured import commit, hardware, write_json

from audiolm_kit.doctor.environment import emulates_bf16

PACKAGES = ("torch", "transformers", "audiocraft", "encodec", "torchao")
SECTIONS = {  # from the quickest to the longest
    "startup": ("bench_processes", "startup"),
    "codec": ("bench_codec", "groups"),
    "training": ("bench_training", "groups"),
    "memory": ("bench_processes", "memory"),
    "decode": ("bench_decode", "groups"),
}
"""Where the groups of each are made; limits are measured whatever is asked for."""


emulated = cache(emulates_bf16)
"""Whether this processor has no bf16 arithmetic; it is timed, so it is asked once."""


class Order(NamedTuple):
    """What the command line asks for."""

    sizes: Sizes
    only: tuple[str, ...]
    threads: int
    output: Path
    tables: list[Path]
    emulated: bool
    """Whether bf16 is measured too where the processor only emulates it, many times slower than fp32."""

    def left_out(self, option: str) -> str:
        """Why an option is not measured on this machine; empty where it is."""
        if "bf16" not in option or self.sizes.device != "cpu" or self.emulated or not emulated():
            return ""
        return "this processor only emulates bf16 (--emulated measures it)"


def main(given: Sequence[str] | None = None) -> int:
    """0 all well, 1 where somebody did other work than ours, 2 for what the user can mend."""
    try:
        order = order_of(given)
        if order.tables:
            print("\n\n".join(bench_table.render(bench_table.read(file)) for file in order.tables))
            return 0
        return measure(order)
    except (ValueError, OSError) as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2


def measure(order: Order) -> int:
    """Measure, write, and print."""
    if order.threads:
        torch.set_num_threads(order.threads)
    begun = time.perf_counter()
    said = about(order)
    limits = list(measured_rows(bench_limits.groups(order.sizes), order))
    rows = [row for name in order.only for row in measured_rows(section(name, order.sizes), order)]
    said["seconds"] = round(time.perf_counter() - begun, 1)
    found = {name: round(each, 1) for name, each in (bench_limits.best(limits) | sheet(order.sizes)).items()}
    content: dict[str, Any] = {"about": said, "limits": found, "rows": [asdict(row) for row in [*rows, *limits]]}
    content["targets"] = [each.entry() for each in bench_table.judged(content)]
    write_json(order.output, content)
    print(bench_table.render(content))
    print(f"\n{said['seconds'] / 60:.1f} minutes; every single time is in {order.output}", file=sys.stderr)
    unlike = [f"{row.task}: {row.by} {row.option}: {row.note}" for row in rows if row.equal is False]
    for line in unlike:
        print(f"benchmark.py: {line}", file=sys.stderr)
    return 1 if unlike else 0


def section(name: str, sizes: Sizes) -> Iterator[Group]:
    """The groups of a section, which is imported only when it is asked for."""
    module, function = SECTIONS[name]
    groups: Callable[[Sizes], Iterator[Group]] = getattr(importlib.import_module(module), function)
    return groups(sizes)


def measured_rows(groups: Iterator[Group], order: Order) -> Iterator[Row]:
    """The rows of groups, one group after the other."""
    for group in groups:
        say = partial(print, file=sys.stderr, flush=True)
        yield from compared(group, order.sizes.repeats, say, order.left_out)


def about(order: Order) -> dict[str, Any]:
    """How the figures came about."""
    gpu = torch.cuda.get_device_name(order.sizes.device) if order.sizes.device != "cpu" else None
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    machine = {**hardware(), "gpu": gpu, "capability": capability()}
    if load is not None and load > 0.5 * machine["cores"]:
        print(f"benchmark.py: other work is running (load {load}): ratios mean more than times", file=sys.stderr)
    return {
        "command": f"python tools/benchmark.py --only {','.join(order.only)}",
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "hardware": machine,
        "device": order.sizes.device,
        "threads": torch.get_num_threads(),
        "load": load,
        "versions": versions(),
        "sizes": asdict(order.sizes),
    }


def sheet(sizes: Sizes) -> dict[str, float]:
    """What the maker says of a GPU's bf16 products; nothing where that is not known."""
    if sizes.device == "cpu":
        return {}
    flops = importlib.import_module("audiolm_kit.training.flops")
    peak = flops.peak_flops(torch.cuda.get_device_name(sizes.device), "bf16-mixed")
    return {"sheet": peak} if peak else {}


def capability() -> str:
    """Which vector and matrix instructions there are."""
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").is_file() else []
    matrix = ", AMX" if "amx_bf16" in flags else ""
    return f"{torch.backends.cpu.get_cpu_capability()}{matrix}"


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that are timed; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def order_of(given: Sequence[str] | None = None) -> Order:
    """The command line: each field of Sizes is an option.

    Raises:
        ValueError: an unknown section, a device that is not there, or a size that is none.
    """
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], usage="%(prog)s [-h] [options]; all take about 10 minutes"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("build/bench.json"), help="(default: %(default)s)")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="of torch (default: as many as torch takes)")
    parser.add_argument("--table", type=Path, nargs="+", default=[], help="measure nothing: print the tables of these")
    parser.add_argument(
        "--emulated", action="store_true", help="measure bf16 where the processor only emulates it: hours"
    )
    for name, value in asdict(Sizes()).items():
        on_gpu = f", {ON_A_GPU[name]} on a GPU" if name in ON_A_GPU else ""
        told = "cuda where there is one" if name == "device" else f"{value}{on_gpu}"
        parser.add_argument(f"--{name}", type=type(value), help=f"(default: {told})")
    options = vars(parser.parse_args(given))
    only = tuple(dict.fromkeys(options["only"].split(",")))
    if unknown := [name for name in only if name not in SECTIONS]:
        raise ValueError(f"--only names {', '.join(unknown)}: give some of {', '.join(SECTIONS)}")
    sizes = sizes_of({name: options[name] for name in asdict(Sizes()) if options[name] is not None})
    return Order(sizes, only, options["threads"], options["output"], options["table"], options["emulated"])


def sizes_of(chosen: dict[str, Any]) -> Sizes:
    """The defaults of the device, and what was chosen instead."""
    device = chosen.get("device", "cuda" if torch.cuda.is_available() else "cpu")
    if device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"device is {device}, and torch finds no GPU: leave --device out, or install torch for it")
    defaults = Sizes() if device == "cpu" else replace(Sizes(), **ON_A_GPU)
    return replace(defaults, **{**chosen, "device": device})


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    sys.exit(main())
