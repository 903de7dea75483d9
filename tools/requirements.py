"""Print what a working tree needs from pip: the requirements of setup.cfg and of the named extras, without encodec.

encodec 0.1.1 requires torchaudio, whose wheel on the package index is the CUDA build. Beside a CPU torch it raises
OSError when imported, and since transformers imports torchaudio wherever it finds it, transformers breaks too. encodec
needs it for nothing that we use, so the Makefile installs encodec on its own with `--no-deps`.

    python tools/requirements.py dev demo > requirements.txt
"""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

SETUP = Path(__file__).resolve().parent.parent / "setup.cfg"
INSTALLED_ALONE = {"encodec"}


def requirements(setup: Path, extras: list[str]) -> list[str]:
    """Return the requirement lines of ``setup`` for the given extras, without the packages that are installed alone."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(setup, encoding="utf-8")
    known = config["options.extras_require"]
    unknown = sorted(set(extras) - set(known))
    if unknown:
        raise ValueError(f"unknown extras {unknown}: {setup.name} has {sorted(known)}")
    blocks = [config["options"]["install_requires"], *(known[extra] for extra in extras)]
    lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    return [line for line in lines if re.split(r"[^\w.-]", line)[0] not in INSTALLED_ALONE]


if __name__ == "__main__":
    print("\n".join(requirements(SETUP, sys.argv[1:])))
