"""The verbs that ready data: what is left out and why, and shards of the codec that was named."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path

import pytest
import torch

from audiolm_kit import audio
from audiolm_kit.cli import main
from audiolm_kit.commands import data
from audiolm_kit.data.manifest import Row, write_manifest
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
    call = ["manifest", str(tmp_path / "sounds"), "-o", str(tmp_path / "m.jsonl")]
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


def test_tokenize_lends_other_voices_to_semantic_codes(
    audiogen_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for number, (speaker, pitch) in enumerate([("ann", 0.1), ("bob", 0.15)] * 2):
        path = tmp_path / f"{number}.wav"
        audio.write(path, audio.Sound(0.5 * torch.sin((torch.arange(8000) * pitch + number) ** 1.1)[None], 8000))
        rows.append(Row(str(path), 1.0, speaker=speaker))
    write_manifest(tmp_path / "m.jsonl", rows)
    kmeans = ["kmeans", str(tmp_path / "m.jsonl"), "-o", str(tmp_path / "semantic"), "--codebook_size", "8"]
    assert main([*kmeans, "--features", "mel", "--sample_rate", "8000", "--standardised", "--context", "1"]) == 0
    call = ["tokenize", str(tmp_path / "semantic"), str(tmp_path / "m.jsonl"), "-o"]
    assert main([*call, str(tmp_path / "plain")]) == 0
    assert main([*call, str(tmp_path / "lent"), "--other_voices", "2"]) == 0
    plain, lent = (list(open_shards(tmp_path / name)) for name in ("plain", "lent"))
    assert [row.path for row in plain] == [row.path for row in lent]
    assert any(not torch.equal(one.codes, other.codes) for one, other in zip(plain, lent, strict=True))
    codec = ["tokenize", str(audiogen_folder / "codec"), *call[2:], str(tmp_path / "no"), "--other_voices", "2"]
    assert main(codec) == 2
    assert "other_voices is for semantic codes, and this is a codec" in capsys.readouterr().err
