"""Run a command and print, when it has ended, its wall time and the most memory it held.

python tools/peak_memory.py audiolm-kit generate MODEL "rain" --stream rain.wav --seconds 600 --window 10
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time


def main(command: list[str]) -> int:
    """Run it; its exit code is ours."""
    if not command:
        print("usage: peak_memory.py COMMAND [ARGUMENT ...]", file=sys.stderr)
        return 2
    began = time.perf_counter()
    try:
        code = subprocess.run(command).returncode
    except OSError as error:
        print(f"peak_memory.py: {error}", file=sys.stderr)
        return 2
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    print(f"{time.perf_counter() - began:.1f} s, peak {peak:.0f} MiB", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
