"""The verbs that ready data: what is left out and why, and shards of the codec that was named."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch

from audiolm_kit import audio
from audiolm_kit.cli import main
from audiolm_kit.commands import data
from audiolm_kit.data.manifest import Row, read_manifest, write_manifest
from audiolm_kit.data.shards import open_shards


def test_defaults_of_verbs_are_those_of_the_functions_behind_them() -> None:
    from audiolm_kit.data.manifest import build_manifest

    behind, verb = signature(build_manifest).parameters, signature(data.manifest).parameters
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
    twice = [str(tmp_path / "sounds")] * 2  # each sound is kept once
    call = ["manifest", *twice, "-o", str(tmp_path / "m.jsonl")]
    assert main([*call, "--without", "speech", "--without", "music"]) == 0
    assert "1 sounds" in capsys.readouterr().out
    assert [json.loads(line)["path"] for line in (tmp_path / "m.jsonl").read_text().splitlines()] == ["sounds/b.wav"]


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


@pytest.fixture(scope="module")
def said_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: two takes of ann and of bob, their manifest, and a tokenizer of them."""
    folder, rows = tmp_path_factory.mktemp("two"), []
    for number, (speaker, pitch) in enumerate([("ann", 0.1), ("bob", 0.15)] * 2):
        path = folder / f"{number}.wav"
        audio.write(path, audio.Sound(0.5 * torch.sin((torch.arange(8000) * pitch + number) ** 1.1)[None], 8000))
        rows.append(Row(str(path), 1.0, speaker=speaker))
    write_manifest(folder / "m.jsonl", rows)
    kmeans = ["kmeans", str(folder / "m.jsonl"), "-o", str(folder / "semantic"), "--codebook_size", "8"]
    assert main([*kmeans, "--features", "mel", "--sample_rate", "8000", "--standardised", "--context", "1"]) == 0
    return folder


def lend(folder: Path, output: Path, manifest: str = "m.jsonl") -> int:
    """The exit code of lending voices to the codes of a manifest."""
    call = ["tokenize", str(folder / "semantic"), str(folder / manifest), "-o", str(output)]
    return main([*call, "--other_voices", "2"])


def test_tokenize_lends_other_voices_to_semantic_codes(said_by_two: Path, tmp_path: Path) -> None:
    call = ["tokenize", str(said_by_two / "semantic"), str(said_by_two / "m.jsonl"), "-o"]
    assert main([*call, str(tmp_path / "plain")]) == 0
    assert lend(said_by_two, tmp_path / "lent") == 0
    plain, lent = (list(open_shards(tmp_path / name)) for name in ("plain", "lent"))
    assert [row.path for row in plain] == [row.path for row in lent]
    assert any(not torch.equal(one.codes, other.codes) for one, other in zip(plain, lent, strict=True))


def test_a_finished_run_listens_to_nobody_again(said_by_two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(said_by_two, folder)
    assert lend(folder, tmp_path / "lent") == 0
    for path in folder.glob("*.wav"):
        path.unlink()
    assert lend(folder, tmp_path / "lent") == 0


def test_a_recording_that_cannot_be_read_lends_no_voice_and_is_told_of(
    said_by_two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(said_by_two, folder)
    (folder / "0.wav").write_bytes(b"no sound")
    assert lend(folder, tmp_path / "lent") == 0
    assert "3 rows in 1 shards; 1 sounds skipped" in capsys.readouterr().out


def test_voices_that_are_not_there_are_refused_before_a_folder_is_begun(
    said_by_two: Path, audiogen_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_manifest(said_by_two / "m.jsonl")
    write_manifest(said_by_two / "ann.jsonl", [rows[0], rows[2], replace(rows[1], speaker=None)])
    assert lend(said_by_two, tmp_path / "no", "ann.jsonl") == 2
    assert "ann.jsonl names ann: other voices take two speakers or more" in capsys.readouterr().err
    codec = ["tokenize", str(audiogen_folder / "codec"), str(said_by_two / "m.jsonl"), "-o", str(tmp_path / "no")]
    assert main([*codec, "--other_voices", "2"]) == 2
    assert "other_voices is for semantic codes, and this is a codec" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_so_many_speakers_and_seconds_lend_as_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "POOL_SECONDS", 5.0)
    monkeypatch.setattr(data, "POOL_SPEAKERS", 3)
    rows = [Row(f"{number}.wav", 2.0, speaker=f"s{number % 4}" if number % 5 else None) for number in range(60)]
    chosen = data.lenders(rows, seed=1)
    counts = Counter(row.speaker for row in chosen)
    assert len(counts) == 3 and set(counts.values()) == {3} and None not in counts  # 6 seconds: the third reaches 5
    assert data.lenders(rows, seed=1) == chosen != data.lenders(rows, seed=2)
