"""Whatever is given to the commands: one line that says what, exit code 2, and no half-written file."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiolm_kit import audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.cli import main

RATE = 8000


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    """A tenth of a second."""
    audio.write(tmp_path / "prompt.wav", a_tone())
    return tmp_path / "prompt.wav"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two sounds."""
    for name in ("a", "b"):
        audio.write(tmp_path / "sounds" / f"{name}.wav", a_tone())
    rows = [{"path": f"sounds/{name}.wav", "duration": 0.1} for name in ("a", "b")]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "m.jsonl"


def a_tone(seconds: float = 0.1) -> Sound:
    return Sound(torch.sin(torch.arange(round(seconds * RATE)) * 0.3)[None] * 0.5, RATE)


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """No file may grow past ``size`` bytes: a write breaks off half-way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fail_for_want_of_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, and its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Run a command that must fail in one line, and leave the folder as it was; returns the line."""

    def run(verb: str, *given: object) -> str:
        before = listing(tmp_path)
        capsys.readouterr()
        assert main([verb, *map(str, given)]) == 2
        told, complaints = capsys.readouterr()
        assert told == "" and complaints.count("\n") == 1, complaints
        assert complaints.startswith(f"audiolm-kit {verb}: ")
        assert listing(tmp_path) == before
        return complaints

    return run


# --- what is asked for


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--seconds", "0"], "seconds is 0.0: ask for a positive number"),
        (["--seconds", "-1"], "seconds is -1.0"),
        (["--seconds", "nan"], "seconds: expected float, got nan"),
        (["--seconds", "inf"], "seconds: expected float, got inf"),
        (["--seconds", "soon"], "seconds: expected float, got soon"),
        (["--seed", "1.5"], "seed: expected int, got 1.5"),
        (["--seed", str(2**64)], "seeds are 18446744073709551616"),
        (["--temperature", "-1"], "temperature is -1.0: give 0 (the likeliest code) or a positive number"),
        (["--temperature", "nan"], "temperature: expected float, got nan"),
        (["--top_k", "-3"], "top_k is -3: give 0 (all codes) or a positive whole number"),
        (["--top_k", "2.5"], "top_k: expected int, got 2.5"),
        (["--top_p", "2"], "top_p is 2.0: give a number from 0 (all codes) to 1"),
        (["--guidance_scale", "-1"], "guidance_scale is -1.0"),
        (["--temprature", "1"], "unrecognized arguments: --temprature 1"),
        (["--device", "abacus"], "device"),
    ],
)
@pytest.mark.parametrize("verb", ["generate", "continue"])
def test_a_request_out_of_range(
    verb: str, options: list[str], told: str, trained: Path, prompt: Path, refused: Refused
) -> None:
    what = "a bell" if verb == "generate" else prompt
    assert told in refused(verb, trained, what, "-o", prompt.parent / "out.wav", *options)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("out.xyz", "the suffix is '.xyz', choose one of .wav .flac .ogg .mp3"),
        ("prompt.wav/out.wav", "prompt.wav"),  # a file where a folder is wanted
        ("prompt.wav/deeper/out.wav", "prompt.wav"),
    ],
)
@pytest.mark.parametrize("option", ["-o", "--stream"])
@pytest.mark.parametrize("verb", ["generate", "continue"])
def test_an_output_that_cannot_be(
    verb: str, option: str, output: str, told: str, trained: Path, prompt: Path, refused: Refused
) -> None:
    what = "a bell" if verb == "generate" else prompt
    told = "give a .wav, or - for standard output" if (option, output) == ("--stream", "out.xyz") else told
    assert told in refused(verb, trained, what, option, prompt.parent / output, "--seconds", 0.2)


def test_a_missing_argument(trained: Path, refused: Refused, tmp_path: Path) -> None:
    assert "arguments are required: texts" in refused("generate", trained, "-o", tmp_path / "out.wav")
    assert "arguments are required: output" in refused("generate", trained, "a bell")
    assert "arguments are required: prompt" in refused("continue", trained, "-o", tmp_path / "out.wav")


# --- prompts


def write_prompt(path: Path, samples: np.ndarray) -> None:
    soundfile.write(path, samples, RATE, subtype="FLOAT")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "no sound file"),
        (lambda path: path.mkdir(), "cannot read"),
        (lambda path: path.write_bytes(b""), "cannot read"),
        (lambda path: path.write_text("not a sound"), "readable are WAV, FLAC"),
        (lambda path: write_prompt(path, np.zeros((0, 1), np.float32)), "is empty: at least one sample is needed"),
        (lambda path: write_prompt(path, np.full(800, np.nan, np.float32)), "holds NaN or infinite samples"),
        (lambda path: write_prompt(path, np.ones(100, np.float32)), "give at least one frame"),
        (lambda path: audio.write(path, a_tone(0.2)), "the prompt is 0.200 s long, 0.200 s were asked for in all"),
        (lambda path: audio.write(path, a_tone(0.5)), "ask for more seconds"),
    ],
)
def test_a_prompt_that_cannot_be_continued(
    make: Callable[[Path], object], told: str, trained: Path, tmp_path: Path, refused: Refused
) -> None:
    make(tmp_path / "given.wav")
    line = refused("continue", trained, tmp_path / "given.wav", "-o", tmp_path / "out.wav", "--seconds", 0.2)
    assert told in line


# --- manifests


def test_a_folder_without_sounds(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "empty").mkdir()
    assert "no sounds in" in refused("manifest", tmp_path / "empty", "-o", tmp_path / "m.jsonl")
    assert "no folder or manifest" in refused("manifest", tmp_path / "nowhere", "-o", tmp_path / "m.jsonl")
    options = ["-o", tmp_path / "m.jsonl", "--min_seconds", "few"]
    assert "min_seconds: expected float, got few" in refused("manifest", tmp_path, *options)


def test_an_unknown_layout(manifest: Path, refused: Refused) -> None:
    sounds = manifest.parent / "sounds"
    line = refused("manifest", sounds, "-o", manifest.parent / "new.jsonl", "--layout", "shelf")
    assert "unknown layout 'shelf': choose auto or one of" in line


def test_a_missing_column(manifest: Path, refused: Refused, tmp_path: Path) -> None:
    audio.write(tmp_path / "esc" / "audio" / "a.wav", a_tone())
    (tmp_path / "esc" / "meta").mkdir()
    (tmp_path / "esc" / "meta" / "esc50.csv").write_text("filename,fold\na.wav,1\n")
    assert "no column category" in refused("manifest", tmp_path / "esc", "-o", tmp_path / "new.jsonl")
    manifest.write_text('{"duration": 0.1}\n')
    assert "line 1 has no column 'path'" in refused("manifest", manifest, "-o", tmp_path / "new.jsonl")


def test_sounds_that_cannot_be_used_are_left_out_with_the_reason(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sounds" / "broken.wav").write_text("not a sound")
    write_prompt(tmp_path / "sounds" / "nan.wav", np.full(800, np.nan, np.float32))
    (tmp_path / "sounds" / "b.wav").write_bytes(b"")
    assert main(["manifest", str(tmp_path / "sounds"), "-o", str(tmp_path / "new.jsonl")]) == 0
    assert "1 sounds" in capsys.readouterr().out
    rejected = (tmp_path / "new.jsonl.rejected.jsonl", tmp_path / "new.rejected.jsonl")
    reasons = [json.loads(line) for path in rejected if path.exists() for line in path.read_text().splitlines()]
    assert {Path(row["path"]).name for row in reasons} == {"broken.wav", "nan.wav", "b.wav"}
    assert all(row["reason"] for row in reasons)


# --- tokens


def tokenize(model: Path, manifest: Path, *options: str) -> list[object]:
    return ["tokenize", model / "codec", manifest, "-o", manifest.parent / "tokens", *options]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('{"duration": 0.1}\n', "line 1 has no column 'path'"),
        ('{"path": "sounds/a.wav"}\n', "no duration"),
        ('{"path": "sounds/a.wav", "dur', "line 1 is not JSON"),
        ('["sounds/a.wav"]\n', "line 1 is not a JSON object"),
        ("", "has no rows"),
    ],
)
def test_a_manifest_that_cannot_be_tokenized(
    lines: str, told: str, trained: Path, manifest: Path, refused: Refused
) -> None:
    manifest.write_text(lines)
    assert told in refused(*tokenize(trained, manifest))


def test_tokenizing_with_what_is_not_there(trained: Path, manifest: Path, refused: Refused, tmp_path: Path) -> None:
    assert "no manifest" in refused(*tokenize(trained, tmp_path / "nowhere.jsonl"))
    assert "no checkpoint folder" in refused(*tokenize(tmp_path / "nowhere", manifest))
    assert "has no rows of split 'valid'" in refused(*tokenize(trained, manifest, "--split", "valid"))
    assert "batch_size is 0" in refused(*tokenize(trained, manifest, "--batch_size", "0"))
    line = refused("tokenize", trained / "lm", manifest, "-o", tmp_path / "tokens")
    assert "holds a StreamLM, wanted a NeuralCodec" in line


def test_unreadable_sounds_are_skipped_with_the_reason(
    trained: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (manifest.parent / "sounds" / "b.wav").write_text("not a sound")
    assert main([str(each) for each in tokenize(trained, manifest)]) == 0
    assert "1 rows" in (told := capsys.readouterr().out) and "1 sounds skipped" in told
    [skipped] = (manifest.parent / "tokens" / "skipped.jsonl").read_text().splitlines()
    assert "sounds/b.wav" in skipped and "readable are WAV" in skipped


# --- full disks


@pytest.mark.parametrize("verb", ["generate", "stream", "continue", "manifest", "tokenize"])
def test_a_write_that_breaks_off_leaves_nothing_under_the_final_name(
    verb: str, trained: Path, manifest: Path, prompt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = manifest.parent
    commands = {
        "generate": [verb, trained, "a bell", "-o", folder / "out.wav", "--seconds", "0.2"],
        "stream": ["generate", trained, "a bell", "--stream", folder / "out.wav", "--seconds", "0.2"],
        "continue": [verb, trained, prompt, "-o", folder / "out.wav", "--seconds", "0.2"],
        "manifest": [verb, folder / "sounds", "-o", folder / "out.jsonl"],
        "tokenize": tokenize(trained, manifest),
    }
    before = listing(folder)
    with limited_files(100):
        code = main([str(each) for each in commands[verb]])
    assert code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "File too large" in line
    assert listing(folder) == before


def test_a_full_disk_is_named(trained: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail_for_want_of_space)
    for option in ("-o", "--stream"):
        line = refused("generate", trained, "a bell", option, tmp_path / "out.wav", "--seconds", 0.1)
        assert "the disk is full" in line and "out.wav" in line and "free some space" in line


def test_a_full_disk_spares_the_sound_that_was_there(
    trained: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.wav").write_bytes(b"earlier")
    monkeypatch.setattr(os, "replace", fail_for_want_of_space)
    assert "the disk is full" in refused("generate", trained, "a bell", "-o", tmp_path / "out.wav", "--seconds", 0.1)
    assert (tmp_path / "out.wav").read_bytes() == b"earlier"


# --- the program itself


def test_the_program_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "audiolm_kit", "generate", str(tmp_path), "a bell", "-o", str(tmp_path / "o.wav")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"audiolm-kit generate: {tmp_path} holds no config.json")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# --- and what is well


def test_every_sound_has_a_sidecar_from_which_it_can_be_made_again_alone(trained: Path, tmp_path: Path) -> None:
    given = ["--seconds", "0.2", "--seed", "5", "--top_k", "4"]
    assert main(["generate", str(trained), "a bell", "rain falls", "-o", str(tmp_path / "out.wav"), *given]) == 0
    told = checkpoint.read_json(tmp_path / "out-2.json")
    assert (told["text"], told["seed"], told["sampling"]["top_k"]) == ("rain falls", 6, 4)
    again = ["generate", str(trained), told["text"], "-o", str(tmp_path / "again.wav"), "--seconds", "0.2"]
    assert main([*again, "--seed", str(told["seed"]), "--top_k", "4"]) == 0
    first, second = (audio.read(tmp_path / name).samples for name in ("out-2.wav", "again.wav"))
    torch.testing.assert_close(first, second, atol=2 / 32768, rtol=0)


def test_a_continuation_has_a_sidecar_too(trained: Path, prompt: Path) -> None:
    output = prompt.parent / "out.flac"
    assert main(["continue", str(trained), str(prompt), "-o", str(output), "--seconds", "0.2", "--text", "rain"]) == 0
    assert audio.info(output).num_samples == round(0.2 * RATE)
    told = checkpoint.read_json(output.with_suffix(".json"))
    assert (told["prompt"], told["text"], told["seed"]) == (str(prompt), "rain", 0)
