"""The verbs that make sound: what is written beside it, streams, timelines, and one line for what cannot be made."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiolm_kit import audio
from audiolm_kit.cli import main
from audiolm_kit.inference import orders
from audiolm_kit.inference.orders import numbered


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


def test_a_model_judges_its_own_candidates(audiogen_folder: Path, tmp_path: Path) -> None:
    call = ["generate", str(audiogen_folder), "--seconds", "0.2", "-o", str(tmp_path / "out.wav"), "rain"]
    assert main([*call, "--candidates", "3", "--scorer", "self"]) == 0
    about = json.loads((tmp_path / "out.json").read_text())
    assert len(set(about["scores"])) == 3 and about["score"] == max(about["scores"]) and about["scorer"] == "self"


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
        (["rain", "--candidates", "2", "-o", "x.wav"], "this model brings no scorer: give one"),
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
