"""A command's peak memory is printed, and its exit code kept."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "peak_memory.py"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), *command], capture_output=True, text=True)


def peak(code: str) -> int:
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0
    found = re.fullmatch(r"[\d.]+ s, peak (\d+) MiB\n", done.stderr)
    assert found
    return int(found[1])


def test_what_a_command_holds_is_its_peak() -> None:
    assert peak("held = b'1' * 200 * 2**20; del held") - peak("pass") > 190


def test_the_exit_code_is_the_commands() -> None:
    assert run(sys.executable, "-c", "raise SystemExit(3)").returncode == 3


def test_no_command_or_one_that_is_not_there_is_said_in_a_line() -> None:
    assert run().returncode == 2 and "usage" in run().stderr
    done = run("there-is-no-such-program")
    assert done.returncode == 2 and "Traceback" not in done.stderr
