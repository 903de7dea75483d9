"""The command line: one table of verbs, each a plain function that says its arguments and its help by itself."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from audiolm_kit import arguments
from audiolm_kit.commands import checkpoints, data, evaluation, sound, training
from audiolm_kit.published import names

# What is slow to import (torch, Lightning) is imported by the verb that needs it: `audiolm-kit --help` stays quick.

DEBUG = "AUDIOLM_KIT_DEBUG"
FULL_DISK = re.compile(r"No space left on device|PytorchStreamWriter failed writing")


class Verb(NamedTuple):
    """A command: what it runs, and the dataclass whose fields are options of it too."""

    run: Callable[..., int | None]
    options: str | None = None  # its home and name; `run` gets it as the one parameter of that type


VERBS: dict[str, Verb] = {
    "fit": Verb(training.fit),
    "manifest": Verb(data.manifest),
    "kmeans": Verb(training.kmeans, options="semantic.spectrum.SpectrumOptions"),
    "tokenize": Verb(data.tokenize, options="data.tokenize.TokenizeOptions"),
    "assemble": Verb(training.assemble),
    "generate": Verb(sound.generate, options="lm.sampling.Sampling"),
    "continue": Verb(sound.continue_, options="lm.sampling.Sampling"),
    "score": Verb(sound.score),
    "evaluate": Verb(evaluation.evaluate),
    "import": Verb(checkpoints.import_, options="official.transfer.Reading"),
    "export": Verb(checkpoints.export),
    "verify": Verb(checkpoints.verify),
    "merge": Verb(checkpoints.merge),
    "push": Verb(checkpoints.push),
    "doctor": Verb(checkpoints.doctor),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb: 0 all well, 2 and one line on stderr for what a user can mend, 130 interrupted, 143 terminated."""
    given = sys.argv[1:] if argv is None else argv
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0
    name, *rest = given
    if name not in VERBS:
        print(f"audiolm-kit: unknown verb {name!r}, wanted one of: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    warnings.formatwarning = lambda message, *_, **__: f"audiolm-kit {name}: {message}\n"
    try:
        return run(name, rest) or 0
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:  # after --help, or Lightning's way out of a Ctrl-C
        return 130 if isinstance(stop.__context__, KeyboardInterrupt) else int(stop.code or 0)
    except Exception as error:
        message = explained(error)
        if message is None:
            raise
        if os.environ.get(DEBUG):
            traceback.print_exc()
        print(f"audiolm-kit {name}: {message}", file=sys.stderr)
        return 2


def overview() -> str:
    """The help of `audiolm-kit` itself: each verb with its docstring's first line, and the models that come along."""
    shipped = "\n".join(f"  {name:<20} {kind}" for name, kind in names.models().items())
    shown = f"Models that come with the package, by the names that stand for their folders:\n\n{shipped}\n\n"
    verbs = "\n".join(f"  {name:<9} {arguments.first_line(verb.run)}" for name, verb in VERBS.items())
    return f"""usage: audiolm-kit VERB ...

From recordings to a trained model that makes sound.

{verbs}

{shown if shipped else ""}`audiolm-kit VERB --help` says more. {DEBUG}=1 shows where an error comes from."""


def run(name: str, given: list[str]) -> int | None:
    """Call a verb with what was typed behind it; `fit` leaves the parsing to Lightning."""
    function, options = VERBS[name]
    if function is training.fit:
        training.fit(*given)
        return None
    code: int | None = arguments.call(function, given, f"audiolm-kit {name}", options_of(options))
    return code


def options_of(options: str | None) -> type | None:
    """The dataclass whose fields are options of a verb, if it has one."""
    if options is None:
        return None
    home, _, name = options.rpartition(".")
    kind: type = getattr(import_module(f"audiolm_kit.{home}"), name)
    return kind


def explained(error: Exception) -> str | None:
    """One line for what a user can mend; None for a fault of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno == errno.ENOSPC or FULL_DISK.search(text):
        return f"the disk is full ({text}): free some space, or choose another place"
    if isinstance(error, (ValueError, ArgumentError)):
        return arguments.first_cause(str(error))
    if isinstance(error, OSError):
        return text
    if type(error).__name__ == "MisconfigurationException":  # Lightning's own ValueError
        return text
    if type(error).__name__ == "OutOfMemoryError":  # torch's, for accelerators
        return f"the device is out of memory ({text.split('. ')[0]}): make the batch or the model smaller"
    return None
