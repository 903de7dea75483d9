"""The command line: quick help, one line for each mistake, recipes in layers, runs that go on."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest

from audiolm_kit import arguments, cli
from audiolm_kit.arguments import first_cause
from audiolm_kit.cli import Verb, main

Put = Callable[[Callable[..., None]], None]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Put:
    """Put a function into the table as the verb `try`."""

    def put(function: Callable[..., None]) -> None:
        function.__doc__ = function.__doc__ or "Try."
        monkeypatch.setitem(cli.VERBS, "try", Verb(function))

    monkeypatch.setattr("warnings.formatwarning", warnings.formatwarning)  # main changes it
    return put


def failing_with(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_help_takes_less_than_a_second() -> None:
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "audiolm_kit", "--help"], capture_output=True, text=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    # The processor's time, since other work on the machine stretches the clock's.
    assert ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime < 1
    assert all(f"  {name} " in done.stdout for name in cli.VERBS)


def test_help_loads_neither_torch_nor_lightning(run_python: Callable[[str], str]) -> None:
    code = (
        "import sys; from audiolm_kit.cli import main; main(['--help']); print({'torch', 'numpy'} & set(sys.modules))"
    )
    assert run_python(code).endswith("set()")


@pytest.mark.parametrize("name", [name for name in cli.VERBS if name != "fit"])
def test_every_verb_explains_itself_in_sentences(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: audiolm-kit {name}")
    assert arguments.first_line(cli.VERBS[name].run).endswith(".")


def test_an_unknown_verb_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frobnicate"]) == 2
    assert "'frobnicate', wanted one of: fit, manifest" in capsys.readouterr().err


def test_a_mistake_is_one_line_and_exit_code_2(verb: Put, capsys: pytest.CaptureFixture[str]) -> None:
    for error in (ValueError("rate is 3:\n give 4"), FileNotFoundError("rate is 3: give 4")):
        verb(failing_with(error))
        assert main(["try"]) == 2
        assert capsys.readouterr() == ("", "audiolm-kit try: rate is 3: give 4\n")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "shard.parquet"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] PytorchStreamWriter failed writing file data/3"),
    ],
)
def test_a_full_disk_is_said_in_one_line(error: Exception, verb: Put, capsys: pytest.CaptureFixture[str]) -> None:
    verb(failing_with(error))
    assert main(["try"]) == 2
    told = capsys.readouterr().err
    assert "the disk is full" in told and told.count("\n") == 1


def test_a_fault_of_ours_keeps_its_traceback(verb: Put) -> None:
    verb(failing_with(KeyError("ours")))
    with pytest.raises(KeyError):
        main(["try"])


def test_debugging_shows_where_an_error_comes_from(
    verb: Put, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verb(failing_with(ValueError("rate is 3: give 4")))
    monkeypatch.setenv(cli.DEBUG, "1")
    assert main(["try"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_exits_with_130(verb: Put) -> None:
    def interrupt_lightning() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # as Trainer.fit does

    for function in (failing_with(KeyboardInterrupt()), interrupt_lightning):
        verb(function)
        assert main(["try"]) == 130


def test_a_verbs_signature_is_its_command_line(verb: Put, capsys: pytest.CaptureFixture[str]) -> None:
    given: list[object] = []

    def paint(surface: str, *colours: str, output: str, seconds: float = 2.0, seed: int | None = None) -> None:
        """Paint.

        Args:
            surface: What is painted.
            colours: With what.
            output: The picture.
            seconds: How long.
            seed: Of the brush.
        """
        given.extend([surface, colours, output, seconds, seed])

    verb(paint)
    assert main(["try", "wall", "1", "null", "a: b", "-o", "x.png", "--seconds", "3"]) == 0
    assert given == ["wall", ("1", "null", "a: b"), "x.png", 3.0, None]
    assert main(["try", "wall", "red"]) == 2
    assert capsys.readouterr().err == "audiolm-kit try: the following arguments are required: output\n"
    assert main(["try", "wall", "red", "-o", "x.png", "--seconds", "soon"]) == 2
    assert capsys.readouterr().err == "audiolm-kit try: seconds: expected float, got soon\n"


def test_the_first_cause_is_the_innermost_reason_behind_its_whole_key() -> None:
    message = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'pytorch_lightning.core.module.LightningModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'tiny_task.TinyTask':
        Parser key "lm.pattern":
          Expected a typing.Literal['delay', 'flatten']. Got value: dealy
    - Expected a <class 'NoneType'>
  Given value type: <class 'str'>
  Given value: dealy"""
    assert first_cause(message) == "model.lm.pattern: expected Literal['delay', 'flatten'], got dealy"
    assert first_cause("rate is 3:\n  give 4") == "rate is 3: give 4"
