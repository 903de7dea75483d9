"""What takes a process of its own: how long starting up takes, and how much memory decoding holds.

    python tools/bench_processes.py audiolm_kit int8 '{"layers": 2}'

is such a process: it builds that model, decodes a few frames and prints the memory it then holds, in MiB.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench_cases import AUDIOCRAFT, FEW, OURS, TRANSFORMERS, Contender, Group, Run, Sizes, Unavailable

FRAMES = 4
ROOT = Path(__file__).resolve().parent.parent
"""Where python finds our package, also where it is not installed."""
INSIDE = "import time; begun = time.perf_counter(); import {}; print(time.perf_counter() - begun)"


def startup(sizes: Sizes) -> Iterator[Group]:
    """Seconds until help is there, and of an import by itself."""
    helped = [sys.executable, "-m", "audiolm_kit", "--help"]
    contenders = [
        Contender(OURS, "--help", lambda: partial(whole, helped)),
        Contender("python", "-c pass", lambda: partial(whole, [sys.executable, "-c", "pass"])),
    ]
    yield Group("startup", "startup.help", "a whole process", "s", 1, contenders)
    names = {OURS: "audiolm_kit", TRANSFORMERS: "transformers"}
    imports = [Contender(by, f"import {name}", partial(importing, name)) for by, name in names.items()]
    yield Group("startup", "startup.import", "inside a process", "s", 1, imports, repeats=min(FEW, sizes.repeats))


def memory(sizes: Sizes) -> Iterator[Group]:
    """What a process holds that decodes, all its packages included; on a GPU it would be the host's alone."""
    if sizes.device != "cpu":
        return
    wanted = [(OURS, "fp32"), (OURS, "bf16"), (OURS, "int8"), (OURS, "int4"), (TRANSFORMERS, "fp32")]
    wanted += [(AUDIOCRAFT, "fp32")]
    contenders = [Contender(by, option, partial(held_by, by, option, sizes)) for by, option in wanted]
    yield Group("memory", "memory", "a process that decodes", "MiB", 1, contenders, repeats=1, rehearse=False)


def whole(command: list[str]) -> float:
    """Seconds of a process from beginning to end."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def importing(name: str) -> Run:
    """An import, timed when it is called."""
    return partial(imported, name)


def imported(name: str) -> float:
    """Seconds of an import in a fresh process."""
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INSIDE.format(name)],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout
    return float(said.split()[-1])


def held_by(by: str, option: str, sizes: Sizes) -> Run:
    """MiB, asked for at once: whether there is such a model shows only there."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), by, option, json.dumps(asdict(sizes))]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable((done.stderr.strip().splitlines() or ["it died without a word"])[-1])
    said = float(done.stdout.split()[-1])
    return lambda: said


def resident() -> float:
    """MiB that this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main(by: str, option: str, sizes: Sizes) -> None:
    """The process itself."""
    from bench_models import (
        asked,
        audiocraft_codes,
        audiocraft_lm,
        our_codes,
        our_lm,
        our_variant,
        transformers_codes,
        transformers_lm,
    )

    build: Any = {
        OURS: lambda lm: our_variant(lm, option, keep=False),
        TRANSFORMERS: transformers_lm,
        AUDIOCRAFT: audiocraft_lm,
    }[by]
    decode: Any = {OURS: our_codes, TRANSFORMERS: transformers_codes, AUDIOCRAFT: audiocraft_codes}[by]
    model = build(our_lm(sizes))
    gc.collect()
    decode(model, asked(sizes, 1, FRAMES))
    print(resident())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Sizes(**json.loads(sys.argv[3])))
