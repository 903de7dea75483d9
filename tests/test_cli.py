"""The command line: quick help, one line for each mistake, recipes in layers, runs that go on."""

from __future__ import annotations

import errno
import io
import json
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiolm_kit import arguments, audio, cli, doctor
from audiolm_kit.arguments import first_cause
from audiolm_kit.cli import Verb, main, newest
from audiolm_kit.inference import orders
from audiolm_kit.inference.orders import numbered

TASK = '''
"""A task as small as tasks get."""
from typing import Literal
import torch
from pytorch_lightning import LightningDataModule, LightningModule

class TinyTask(LightningModule):
    def __init__(self, pattern: Literal["delay", "flatten"] = "delay", rate: float = 0.1):
        super().__init__()
        if rate > 9:
            raise ValueError(f"rate is {rate}: give at most 9")
        self.layer = torch.nn.Linear(1, 1)
        self.rate = rate
    def training_step(self, batch, index):
        return self.layer(batch).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate)

class TinyData(LightningDataModule):
    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(4, 1))
'''
RECIPE = """
model: {{class_path: tiny_task.TinyTask, init_args: {{pattern: delay}}}}
data: {{class_path: tiny_task.TinyData}}
trainer:
  accelerator: cpu
  max_steps: 2
  logger: {{class_path: pytorch_lightning.loggers.CSVLogger, init_args: {{save_dir: {run}}}}}
  enable_progress_bar: false
  enable_model_summary: false
  default_root_dir: {run}
  callbacks:
    - class_path: pytorch_lightning.callbacks.ModelCheckpoint
      init_args: {{dirpath: {run}/checkpoints, save_last: true}}
"""


Put = Callable[[Callable[..., None]], None]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Put:
    """Put a function into the table as the verb `try`."""

    def put(function: Callable[..., None]) -> None:
        function.__doc__ = function.__doc__ or "Try."
        monkeypatch.setitem(cli.VERBS, "try", Verb(function))

    monkeypatch.setattr("warnings.formatwarning", warnings.formatwarning)  # main changes it
    return put


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of a tiny task whose run folder is beside it."""
    (tmp_path / "tiny_task.py").write_text(TASK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_task", raising=False)
    path = tmp_path / "base.yaml"
    path.write_text(RECIPE.format(run=tmp_path / "run"))
    return path


def failing_with(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def steps_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=False)["global_step"])


# --- the shell


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


# --- fit


def test_recipes_lie_in_layers_and_the_command_line_on_top(recipe: Path) -> None:
    (recipe.parent / "more.yaml").write_text("model: {init_args: {pattern: flatten, rate: 0.5}}")
    layers = ["-c", str(recipe), "-c", str(recipe.parent / "more.yaml")]
    assert main(["fit", *layers, "--trainer.max_steps", "3", "--model.rate", "0.25"]) == 0
    assert steps_of(recipe.parent / "run" / "checkpoints" / "last.ckpt") == 3
    saved = next((recipe.parent / "run").rglob("config.yaml")).read_text()
    assert "pattern: flatten" in saved and "rate: 0.25" in saved


def test_fit_goes_on_from_its_last_checkpoint_unless_it_is_told_to_start_over(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = recipe.parent / "run" / "checkpoints" / "last.ckpt"
    assert main(["fit", "-c", str(recipe)]) == 0
    begun = torch.load(last, weights_only=False)["state_dict"]["layer.weight"]
    capsys.readouterr()

    assert main(["fit", "-c", str(recipe), "--trainer.max_steps", "5"]) == 0
    assert f"goes on from {last}" in capsys.readouterr().err
    gone_on = torch.load(last, weights_only=False)
    assert gone_on["global_step"] == 5
    torch.testing.assert_close(gone_on["state_dict"]["layer.weight"], begun - 3 * 0.1)  # its gradient is always 1

    assert main(["fit", "-c", str(recipe), "--fresh"]) == 0
    assert steps_of(last) == 2
    assert steps_of(last.parent.with_name("checkpoints.1") / "last.ckpt") == 5


def test_a_moved_run_goes_on_from_its_newest_checkpoint_each_time(recipe: Path) -> None:
    assert main(["fit", "-c", str(recipe)]) == 0
    moved = recipe.parent / "moved"
    (recipe.parent / "run").rename(moved)
    recipe.write_text(RECIPE.format(run=moved))
    for steps in (3, 4, 5):
        assert main(["fit", "-c", str(recipe), "--trainer.max_steps", str(steps)]) == 0
        assert steps_of(newest(moved / "checkpoints") or recipe) == steps


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model.pattern", "dealy"], "model.pattern: expected Literal['delay', 'flatten'], got dealy"),
        (["--model.rate", "12"], "rate is 12.0: give at most 9"),
        (["--trainer.max_stepz", "1"], "unrecognized arguments: --trainer.max_stepz 1"),
        (["-c", "nowhere.yaml"], "nowhere.yaml"),
        (["--model", "tiny_task.Nobody"], "module 'tiny_task' has no attribute 'Nobody'"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line(
    recipe: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "-c", str(recipe), *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("audiolm-kit fit:")]
    assert len(lines) == 1 and told in lines[0]
    assert not (recipe.parent / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("made_up", "precision", "accelerator", "expected"),
    [
        (True, "bf16-mixed", "cpu", "32-true"),
        (True, "bf16-mixed", "auto", "32-true"),
        (False, "bf16-mixed", "cpu", "bf16-mixed"),
        (True, "bf16-mixed", "cuda", "bf16-mixed"),
        (True, "bf16", "cpu", "bf16"),
        (True, "bf16-true", "cpu", "bf16-true"),
        (True, None, "cpu", None),
    ],
)
def test_made_up_bf16_becomes_fp32_and_is_said(
    made_up: bool,
    precision: str | None,
    accelerator: str,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor, "emulates_bf16", lambda: made_up)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert cli.bearable(precision, accelerator) == expected
    told = capsys.readouterr().err
    assert told.count("\n") == (precision != expected)
    assert precision == expected or "trainer.precision is 32-true (--trainer.precision bf16 insists)" in told


def test_a_run_goes_on_in_another_precision(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last = recipe.parent / "run" / "checkpoints" / "last.ckpt"
    for steps, made_up in ((2, False), (4, True), (6, False)):
        monkeypatch.setattr(doctor, "emulates_bf16", lambda made_up=made_up: made_up)
        options = ["--trainer.precision", "bf16-mixed", "--trainer.max_steps", str(steps)]
        assert main(["fit", "-c", str(recipe), *options]) == 0
        assert steps_of(last) == steps
        assert ("trainer.precision is 32-true" in capsys.readouterr().err) == made_up


# --- the other verbs


def test_defaults_of_verbs_are_those_of_the_functions_behind_them() -> None:
    from audiolm_kit.data.manifest import build_manifest

    behind, verb = signature(build_manifest).parameters, signature(cli.manifest).parameters
    assert all(verb[name].default == behind[name].default for name in ("layout", "min_seconds", "without"))


def test_manifest_tells_what_is_left_out_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tone = torch.sin(torch.arange(8000) * 0.1)[None] * 0.5
    audio.write(tmp_path / "sounds" / "tone.wav", audio.Sound(tone, 8000))
    audio.write(tmp_path / "sounds" / "still.wav", audio.Sound(tone * 0, 8000))
    assert main(["manifest", str(tmp_path / "sounds"), "-o", str(tmp_path / "m.jsonl")]) == 0
    told = capsys.readouterr().out
    assert "still.wav: silent" in told and "1 sounds" in told and "1 left out" in told
    assert [json.loads(line)["path"] for line in (tmp_path / "m.jsonl").read_text().splitlines()] == ["sounds/tone.wav"]


def test_manifest_leaves_out_what_is_not_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tone = torch.sin(torch.arange(8000) * 0.1)[None] * 0.5
    for name, caption in (("a", "a man's speech"), ("b", "rain"), ("c", "music")):
        audio.write(tmp_path / "sounds" / f"{name}.wav", audio.Sound(tone, 8000))
        (tmp_path / "sounds" / f"{name}.txt").write_text(caption)
    call = ["manifest", str(tmp_path / "sounds"), "-o", str(tmp_path / "m.jsonl")]
    assert main([*call, "--without", "speech", "--without", "music"]) == 0
    assert "1 sounds" in capsys.readouterr().out
    assert [json.loads(line)["path"] for line in (tmp_path / "m.jsonl").read_text().splitlines()] == ["sounds/b.wav"]


def test_several_sounds_are_numbered(tmp_path: Path) -> None:
    assert numbered("out.wav", 1) == [Path("out.wav")]
    assert numbered("a/out.flac", 2) == [Path("a/out-1.flac"), Path("a/out-2.flac")]
    assert numbered(str(tmp_path), 2) == [tmp_path / "1.wav", tmp_path / "2.wav"]
    assert numbered("sounds", 1) == [Path("sounds/1.wav")]


def test_generate_writes_a_sound_and_how_it_was_made_for_each_text(audiogen_folder: Path, tmp_path: Path) -> None:
    call = ["generate", str(audiogen_folder), "a bell", "rain", "-o", str(tmp_path / "out.wav")]
    assert main([*call, "--seconds", "0.2", "--seed", "5", "--top_k", "4"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-1.json", "out-1.wav", "out-2.json", "out-2.wav"]
    assert audio.read(tmp_path / "out-2.wav").samples.shape == (1, 1600)
    about = json.loads((tmp_path / "out-2.json").read_text())
    assert (about["text"], about["seed"], about["sampling"]["top_k"]) == ("rain", 6, 4)


def test_a_sidecar_says_all_that_it_takes_to_make_the_sound_again(audiogen_folder: Path, tmp_path: Path) -> None:
    several = ["generate", str(audiogen_folder), "a bell", "rain", "-o", str(tmp_path / "out.wav"), "--seconds", "0.2"]
    assert main(several) == 0
    about = json.loads((tmp_path / "out-2.json").read_text())
    again = ["generate", str(audiogen_folder), about["text"], "-o", str(tmp_path / "again.wav")]
    again += ["--seconds", str(about["seconds"]), "--seed", str(about["seed"])]
    assert main(again + [f"--{name}={value}" for name, value in about["sampling"].items()]) == 0
    first, second, remade = (audio.read(tmp_path / name).samples for name in ("out-1.wav", "out-2.wav", "again.wav"))
    torch.testing.assert_close(remade, second, rtol=0, atol=1e-4)  # a batch of two rounds differently
    assert not torch.allclose(first, second, rtol=0, atol=1e-2)


def test_continue_goes_on_from_a_recording(audiogen_folder: Path, tmp_path: Path) -> None:
    tone = torch.sin(torch.arange(3200) * 0.1)[None] * 0.5
    audio.write(tmp_path / "prompt.wav", audio.Sound(tone, 16000))
    call = ["continue", str(audiogen_folder), str(tmp_path / "prompt.wav"), "-o", str(tmp_path / "whole.flac")]
    assert main([*call, "--seconds", "0.5", "--text", "a bell"]) == 0
    assert audio.info(tmp_path / "whole.flac")[:3] == (8000, 1, 4000)
    about = json.loads((tmp_path / "whole.json").read_text())
    assert about["prompt"] == str(tmp_path / "prompt.wav") and about["text"] == "a bell"


def test_a_stream_on_standard_output_is_the_wav_of_the_same_sound(
    audiogen_folder: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    given = ["rain", "--seconds", "0.3", "--seed", "5", "--top_k", "4", "--negative", "a bell"]
    assert main(["generate", str(audiogen_folder), *given, "-o", str(tmp_path / "out.wav")]) == 0
    capsysbinary.readouterr()
    assert main(["generate", str(audiogen_folder), *given, "--stream", "-"]) == 0
    told, complaints = capsysbinary.readouterr()
    samples, rate = soundfile.read(io.BytesIO(told), dtype="int16")
    whole, _ = soundfile.read(tmp_path / "out.wav", dtype="int16")
    assert rate == 8000 and np.array_equal(samples, whole) and complaints == b""


def test_a_listener_who_leaves_ends_an_endless_stream_quietly(audiogen_folder: Path) -> None:
    command = [sys.executable, "-m", "audiolm_kit", "generate", str(audiogen_folder), "rain", "--stream", "-"]
    command += ["--endless", "--window", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(4) == b"RIFF" and len(process.stdout.read(5000)) == 5000
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == b""


def test_a_stream_into_a_file_is_the_same_file(audiogen_folder: Path, tmp_path: Path) -> None:
    call = ["generate", str(audiogen_folder), "rain", "--seconds", "0.3", "--window", "0.1", "--overlap", "0.04"]
    assert main([*call, "-o", str(tmp_path / "whole.wav")]) == 0
    assert main([*call, "--stream", str(tmp_path / "streamed.wav")]) == 0
    names = ["streamed.json", "streamed.wav", "whole.json", "whole.wav"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "streamed.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    abouts = [json.loads((tmp_path / name).read_text()) for name in ("streamed.json", "whole.json")]
    assert abouts[0] == abouts[1] and (abouts[0]["window"], abouts[0]["overlap"]) == (0.1, 0.04)


def test_a_continuation_streams_too(audiogen_folder: Path, tmp_path: Path) -> None:
    audio.write(tmp_path / "prompt.wav", audio.Sound(torch.sin(torch.arange(1600) * 0.1)[None] * 0.5, 8000))
    call = ["continue", str(audiogen_folder), str(tmp_path / "prompt.wav"), "--seconds", "0.4"]
    call += ["--text", "0-0.3: rain", "--text", "0.3-: a bell", "--overlap", "0.1"]
    assert main([*call, "-o", str(tmp_path / "whole.wav")]) == 0
    assert main([*call, "--stream", str(tmp_path / "streamed.wav")]) == 0
    assert (tmp_path / "streamed.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    about = json.loads((tmp_path / "streamed.json").read_text())
    assert about["prompt"] == str(tmp_path / "prompt.wav") and about["text"] == ["0-0.3: rain", "0.3-: a bell"]


def test_lines_with_times_make_one_sound(audiogen_folder: Path, tmp_path: Path) -> None:
    call = ["generate", str(audiogen_folder), "-o", str(tmp_path / "out.wav")]
    assert main([*call, "--text", "0-0.2: rain", "--text", "0.2-0.4: rain and a dog"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.wav"]
    assert audio.read(tmp_path / "out.wav").samples.shape == (1, 3200)
    about = json.loads((tmp_path / "out.json").read_text())
    assert about["text"] == ["0-0.2: rain", "0.2-0.4: rain and a dog"] and about["seconds"] == 0.4
    assert main([*call, "0-0.2: rain", "--seconds", "0.5"]) == 0
    assert audio.read(tmp_path / "out.wav").samples.shape == (1, 4000)


def test_of_several_candidates_the_best_is_kept_and_can_be_made_again(
    audiogen_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def loudest(sounds: list[audio.Sound], texts: list[str]) -> torch.Tensor:
        asked.extend(texts)
        return torch.stack([sound.samples.square().mean() for sound in sounds])

    monkeypatch.setattr(orders, "scorer_of", lambda name, device: loudest)
    call = ["generate", str(audiogen_folder), "--seconds", "0.2", "-o", str(tmp_path / "out.wav")]
    assert main([*call, "rain", "a bell", "--candidates", "3", "--scorer", "some/clap", "--seed", "5"]) == 0
    assert asked == ["rain"] * 3 + ["a bell"] * 3
    about = json.loads((tmp_path / "out-2.json").read_text())
    assert len(about["scores"]) == 3 and about["score"] == max(about["scores"]) and about["scorer"] == "some/clap"
    best = audio.read(tmp_path / "out-2.wav").samples
    assert main([*call, "a bell", "--seed", str(about["seed"])]) == 0
    torch.testing.assert_close(audio.read(tmp_path / "out.wav").samples, best, atol=1e-4, rtol=0)
    assert "scores" not in json.loads((tmp_path / "out.json").read_text())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["rain", "--stream", "x.flac"], "cannot stream into x.flac: give a .wav, or - for standard output"),
        (["rain", "a bell", "--stream", "-"], "a stream is one sound"),
        (["rain", "--stream", "-", "-o", "x.wav"], "output and stream are both given"),
        (["rain", "--stream", "-", "--candidates", "2", "--scorer", "x"], "out before it could be judged"),
        (["rain", "--endless", "-o", "x.wav"], "only what streams to standard output is endless"),
        (["rain", "--endless", "--stream", "x.wav"], "only what streams to standard output is endless"),
        (["rain", "--endless", "--stream", "-"], "a sound without an end is made window after window: give window"),
        (["rain", "--endless", "--seconds", "3", "--stream", "-"], "and no seconds"),
        (["rain", "--candidates", "2", "-o", "x.wav"], "candidates is 2, but nothing judges them: give scorer"),
        (["0-1: rain", "--candidates", "2", "--scorer", "x", "-o", "x.wav"], "a timeline has several"),
        (["0-1: rain", "a bell", "-o", "x.wav"], "'a bell' has no time range"),
        (["0-: rain", "-o", "x.wav"], "'0-: rain', has no end: give seconds"),
        (["0-2: rain", "--seconds", "1", "-o", "x.wav"], "ask for more seconds"),
        (["rain", "--window", "0.1", "--overlap", "0.2", "-o", "x.wav"], "overlap is 0.2, window 0.1"),
        (["rain", "--window", "soon", "-o", "x.wav"], "window: expected float, got soon"),
        (["-o", "x.wav"], "arguments are required: texts"),
        (["rain"], "arguments are required: output, or stream"),
    ],
)
def test_what_cannot_be_made_is_one_line(
    audiogen_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", str(audiogen_folder), *options]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("audiolm-kit generate: ") and told in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_gets_no_samples(
    audiogen_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["generate", str(audiogen_folder), "rain", "--stream", "-"]) == 2
    assert "standard output is a terminal: pipe it" in capsys.readouterr().err


def test_one_prompt_takes_one_text(audiogen_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["continue", str(audiogen_folder), "prompt.wav", "-o", "x.wav", "--text", "rain", "--text", "a bell"]
    assert main(call) == 2
    assert "2 texts for one prompt: give one, or the lines of a timeline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-o", "x.txt"], "the suffix is '.txt'"),
        (["-o", "x.wav", "--seconds", "-1"], "seconds is -1.0"),
        (["-o", "x.wav", "--temperature", "-1"], "temperature is -1.0"),
        (["-o", "x.wav", "--temperature", "hot"], "temperature: expected float, got hot"),
        (["-o", "x.wav", "--topk", "3"], "unrecognized arguments: --topk 3"),
        (["-o", "x.wav", "--device", "abacus"], "device is 'abacus'"),
    ],
)
def test_a_bad_request_is_one_line_and_leaves_no_file(
    audiogen_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", str(audiogen_folder), "a bell", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("audiolm-kit generate: ") and told in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_tokenize_encodes_a_manifest_with_the_named_codec(
    audiogen_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tone = torch.sin(torch.arange(8000) * 0.1)[None] * 0.5
    audio.write(tmp_path / "sounds" / "tone.wav", audio.Sound(tone, 8000))
    assert main(["manifest", str(tmp_path / "sounds"), "-o", str(tmp_path / "m.jsonl")]) == 0
    call = ["tokenize", str(audiogen_folder / "codec"), str(tmp_path / "m.jsonl"), "-o", str(tmp_path / "shards")]
    assert main([*call, "--variants", "2"]) == 0
    assert "2 rows in 1 shards" in capsys.readouterr().out
    assert list((tmp_path / "shards").glob("*.parquet"))
    assert main([*call, "--variants", "0"]) == 2
    assert capsys.readouterr().err.startswith("audiolm-kit tokenize: variants is 0")
