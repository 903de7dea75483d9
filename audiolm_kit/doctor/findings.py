"""Findings: the outcome of a check, a fault with its cure; how they are printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

SEEN_TO = "see to the faults above it first; if there are none, report this line"


class Finding(NamedTuple):
    """The outcome of one check; a fault carries its cure."""

    name: str
    told: str
    cure: str = ""

    @property
    def well(self) -> bool:
        """Whether nothing is to be done."""
        return not self.cure


def report(findings: Iterable[Finding]) -> int:
    """Print the findings as they come, faults with their cures; 0 when all is well, else 2."""
    checks = faults = 0
    for finding in findings:
        print(f"{'ok   ' if finding.well else 'FAULT'}  {finding.name:<12} {finding.told}", flush=True)
        if not finding.well:
            print(f"{'cure:':>18}  {finding.cure}", flush=True)
        checks, faults = checks + 1, faults + (not finding.well)
    print("All is well." if not faults else f"{faults} of {checks} checks found a fault.")
    return 2 if faults else 0


def checked(
    name: str, check: Callable[[], Finding], cure: str = "repeat the installation (`make install` in a clone)"
) -> Finding:
    """A check's finding; a check that itself breaks is a finding too."""
    try:
        return check()
    except Exception as error:  # a broken package may raise anything when it is imported
        return Finding(name, f"cannot be checked ({one_line(error)})", cure)


def one_line(error: Exception) -> str:
    """An error's kind and message without newlines."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
