"""Strings of recordings: one voice each, of one split, the same for the same seed, with a caption that says it all."""

from __future__ import annotations

import json
from pathlib import Path

import join_recordings as tool
import pytest
import torch

from audiolm_kit.audio import Sound, read, write
from audiolm_kit.data.manifest import Row, read_manifest, write_manifest

RATE = 8000
LENGTH = 800


def recording(caption: str, word: str | None = None, **columns: object) -> Row:
    return Row("sound.wav", 0.1, caption=caption, transcript=word, **columns)  # type: ignore[arg-type]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two speakers say four words each for training and two for validation; each has its own signs and level."""
    rows = []
    for place, speaker in enumerate(("ann", "bob")):
        for take, word in enumerate(("one", "two", "three", "four", "five", "six")):
            signs = torch.randn(1, LENGTH, generator=torch.Generator().manual_seed(10 * place + take)).sign()
            path = tmp_path / "recordings" / f"{speaker}_{word}.wav"
            write(path, Sound(signs * (1 + take) / 16, RATE))
            split = "valid" if take > 3 else "train"
            caption, extra = f"{speaker} says the digit {word}", {"licence": "free", "take": take}
            rows.append(Row(str(path), LENGTH / RATE, caption, word, word, speaker, split, extra=extra))
    write_manifest(tmp_path / "source.jsonl", rows)
    return tmp_path / "source.jsonl"


def run(manifest: Path, output: Path, *options: str) -> list[Row]:
    tool.main([str(manifest), str(output), "--split", "train", *options])
    return read_manifest(output / "manifest.jsonl")


def test_a_string_is_what_its_caption_says_in_one_voice_of_one_split(manifest: Path, tmp_path: Path) -> None:
    signs = {
        (row.speaker, row.transcript): read(row.path).samples[0].sign() for row in read_manifest(manifest, "train")
    }
    strings = run(manifest, tmp_path / "strings", "--count", "8")
    assert len(strings) == 8
    for row in strings:
        words = (row.transcript or "").split()
        assert row.caption == f"{row.speaker} says the digits {row.transcript}"
        assert row.split == "train" and row.extra["licence"] == "free" and "take" not in row.extra
        audio = read(row.path).samples[0]
        heard = audio[audio != 0].split(LENGTH)
        said = [signs[row.speaker, word] for word in words]  # a word of valid would be a KeyError
        assert all(torch.equal(part.sign(), expected) for part, expected in zip(heard, said, strict=True))
    assert {len((row.transcript or "").split()) for row in strings} == {2, 3}


def test_recordings_of_a_string_are_equally_loud(manifest: Path, tmp_path: Path) -> None:
    for row in run(manifest, tmp_path / "strings", "--count", "4"):
        audio = read(row.path).samples[0]
        assert audio[audio != 0].abs().std() < 1e-4


def test_speakers_take_turns(manifest: Path, tmp_path: Path) -> None:
    assert [row.speaker for row in run(manifest, tmp_path / "strings", "--count", "4")] == ["ann", "bob", "ann", "bob"]


def test_gaps_are_silences_of_50_to_150_milliseconds(manifest: Path, tmp_path: Path) -> None:
    for row in run(manifest, tmp_path / "strings", "--count", "8", "--most", "2"):
        assert 0.05 <= row.duration - 2 * LENGTH / RATE <= 0.15


def test_a_string_depends_on_seed_and_number_alone(manifest: Path, tmp_path: Path) -> None:
    few = run(manifest, tmp_path / "few", "--count", "3")
    many = run(manifest, tmp_path / "many", "--count", "6")
    other = run(manifest, tmp_path / "other", "--count", "3", "--seed", "1")
    assert [row.caption for row in few] == [row.caption for row in many[:3]]
    assert all(Path(a.path).read_bytes() == Path(b.path).read_bytes() for a, b in zip(few, many, strict=False))
    assert [row.caption for row in few] != [row.caption for row in other]


def test_parts_name_the_recordings_relative_to_the_manifest(manifest: Path, tmp_path: Path) -> None:
    [row] = run(manifest, tmp_path / "strings", "--count", "1")
    assert [Path(part).stem for part in row.extra["parts"]] == [f"ann_{word}" for word in row.transcript.split()]
    assert all((tmp_path / "strings" / part).is_file() for part in row.extra["parts"])


def test_singles_keep_their_splits(manifest: Path, tmp_path: Path) -> None:
    source = read_manifest(manifest)
    rows = run(manifest, tmp_path / "strings", "--count", "2", "--with-singles")
    assert rows[:-2] == source and len(rows) == len(source) + 2


def test_a_run_that_fails_leaves_no_manifest(manifest: Path, tmp_path: Path) -> None:
    run(manifest, tmp_path / "strings", "--count", "2")
    for row in read_manifest(manifest, "train"):
        Path(row.path).unlink()
    with pytest.raises(SystemExit):
        run(manifest, tmp_path / "strings", "--count", "2", "--seed", "1")
    assert not (tmp_path / "strings" / "manifest.jsonl").exists()


@pytest.mark.parametrize(
    ("rows", "caption"),
    [
        ([recording("a says the word yes", "yes"), recording("a says the word no", "no")], "a says the words yes no"),
        ([recording("a reads: hello", "hello"), recording("a reads: you", "you")], "a reads: hello you"),
        ([recording("a dog", "one"), recording("a bell", "two")], "a dog and then a bell"),
        ([recording("a says the digit one", "one"), recording("b says the digit two", "two")],
         "a says the digit one and then b says the digit two"),
        ([recording("a bell", label="bell"), recording("a whistle", label="whistle")], "a bell and then a whistle"),
        ([recording("a says one", "one"), recording("", "two")], None),
        ([recording("one", "one"), recording("two", "two")], "one and then two"),
    ],
)  # fmt: skip
def test_captions_are_joined_by_what_they_share(rows: list[Row], caption: str | None) -> None:
    assert tool.join_captions(rows) == caption


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--count", "0"], "--count is 0"),
        (["--count", "1", "--most", "1"], "--most 1"),
        (["--count", "1", "--least", "9", "--most", "9"], "no speaker has 9"),
    ],
)
def test_bad_requests_are_answered_in_one_line(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(manifest, tmp_path / "strings", *options)
    message = capsys.readouterr().err
    assert stop.value.code == 2 and said in message and message.count("\n") == 1


def test_rows_without_a_speaker_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"path": "a.wav", "duration": 1.0}
    (tmp_path / "source.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(SystemExit):
        tool.main([str(tmp_path / "source.jsonl"), str(tmp_path / "strings"), "--count", "1"])
    assert "no speaker has 2" in capsys.readouterr().err
