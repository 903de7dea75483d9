"""Manifests and their lint."""

from __future__ import annotations

import gzip
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.data.manifest import Row, build_manifest, lint, read_manifest, write_manifest

RATE = 8000


def make_sound(path: Path, seconds: float = 0.5, seed: int = 0) -> str:
    """A file of noise; another seed, another sound."""
    samples = 0.5 * torch.rand(1, round(seconds * RATE), generator=torch.Generator().manual_seed(seed)) - 0.25
    audio.write(path, Sound(samples, RATE))
    return str(path)


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def reasons(path: str | Path, **options: Any) -> str:
    """The one reason for which a file alone is left out."""
    report = lint([Row(str(path), 0.0)], **options)
    assert report.kept == []
    assert [rejected.path for rejected in report.rejected] == [str(path)]
    return report.rejected[0].reason


@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz"])
def test_rows_survive_writing_and_reading(tmp_path: Path, name: str) -> None:
    rows = [
        Row(str(tmp_path / "a b" / "ä.wav"), 1.25, caption="one\u2028two\nthree", split="train", start=0.5),
        Row(
            str(tmp_path.parent / "elsewhere.flac"), 2.0, "c", "t", "l", "s", "valid", extra={"fold": 3, "tags": ["x"]}
        ),
    ]
    write_manifest(tmp_path / name, rows)
    assert read_manifest(tmp_path / name) == rows


def test_a_manifest_moves_with_its_sounds(tmp_path: Path) -> None:
    path = make_sound(tmp_path / "old" / "sounds" / "a.wav")
    write_manifest(tmp_path / "old" / "m.jsonl", [Row(path, 0.5)])
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_manifest(tmp_path / "new" / "m.jsonl")[0].path == str(tmp_path / "new" / "sounds" / "a.wav")


def test_what_is_unknown_is_not_written(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [Row(str(tmp_path / "a.wav"), 1.0, label="bell")])
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"path": "a.wav", "duration": 1.0, "label": "bell"}


def test_a_split_is_read_alone(tmp_path: Path) -> None:
    rows = [
        Row(str(tmp_path / f"{number}.wav"), 1.0, split=split) for number, split in enumerate(["train", "valid", None])
    ]
    write_manifest(tmp_path / "m.jsonl", rows)
    assert read_manifest(tmp_path / "m.jsonl", "valid") == [rows[1]]
    assert read_manifest(tmp_path / "m.jsonl", "test") == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"path": "a.wav", "duration": 1', "is not JSON"),
        ('["a.wav", 1]', "is not a JSON object"),
        ('{"duration": 1}', "has no column 'path'"),
        ('{"path": "", "duration": 1}', "has no column 'path'"),
        ('{"path": "a.wav"}', "has no duration: audiolm-kit manifest"),
        ('{"path": "a.wav", "duration": "long"}', "duration 'long'"),
        ('{"path": "a.wav", "duration": NaN}', "duration nan"),
        ('{"path": "a.wav", "duration": 1, "start": -1}', "start -1"),
        ('{"path": "a.wav", "duration": 1, "caption": ["x"]}', "a text is wanted"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "m.jsonl").write_text('{"path": "a.wav", "duration": 1}\n\n' + line + "\n")
    with pytest.raises(ValueError, match="m.jsonl line 3 ") as error:
        read_manifest(tmp_path / "m.jsonl")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("data", "reason"), [(b"\x1f\x8bbroken", "broken gzip"), (b'{"path": "\xff"}', "not UTF-8")])
def test_a_file_that_is_no_text_is_named(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "m.jsonl").write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        read_manifest(tmp_path / "m.jsonl")


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="audiolm-kit manifest FOLDER -o"):
        read_manifest(tmp_path / "m.jsonl")


def test_numbers_serve_as_labels_and_speakers(tmp_path: Path) -> None:
    write_json_lines(
        tmp_path / "m.jsonl", [{"path": "a.wav", "duration": 1, "label": 3, "speaker": 19, "caption": None}]
    )
    row = read_manifest(tmp_path / "m.jsonl")[0]
    assert (row.label, row.speaker, row.caption) == ("3", "19", None)


def test_paths_that_count_from_the_folder_above_are_found_with_a_warning(tmp_path: Path) -> None:
    path = make_sound(tmp_path / "set" / "a.wav")
    write_json_lines(tmp_path / "set" / "m.jsonl", [{"path": "set/a.wav", "duration": 0.5}])
    with pytest.warns(UserWarning, match="not relative to it"):
        assert read_manifest(tmp_path / "set" / "m.jsonl")[0].path == path


def test_lint_keeps_good_sounds_in_order_and_measures_them(tmp_path: Path) -> None:
    paths = [make_sound(tmp_path / f"{number}.wav", 0.1 * number, number) for number in (3, 1, 2)]
    kept, rejected = lint([Row(path, 0.0, caption=path) for path in paths])
    assert [(row.path, row.duration, row.caption) for row in kept] == list(
        zip(paths, (0.3, 0.1, 0.2), paths, strict=True)
    )
    assert rejected == []


def test_lint_says_missing(tmp_path: Path) -> None:
    assert reasons(tmp_path / "none.wav").startswith("missing")


def test_lint_says_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_text("this is not music")
    assert reasons(tmp_path / "a.mp3").startswith("unreadable")
    (tmp_path / "folder.wav").mkdir()
    assert reasons(tmp_path / "folder.wav").startswith("unreadable")


def test_lint_says_empty(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    soundfile.write(tmp_path / "b.wav", [], RATE)
    assert reasons(tmp_path / "a.wav") == "empty: 0 bytes"
    assert reasons(tmp_path / "b.wav") == "empty: it has no samples"


def test_lint_says_cut_off(tmp_path: Path) -> None:
    path = Path(make_sound(tmp_path / "a.flac", 5))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reasons(path).startswith("cut off")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_lint_says_nan(tmp_path: Path, value: float) -> None:
    soundfile.write(tmp_path / "a.wav", [0.1, value] * 1000, RATE, subtype="FLOAT")
    assert reasons(tmp_path / "a.wav").startswith("NaN")


def test_lint_says_too_short(tmp_path: Path) -> None:
    path = make_sound(tmp_path / "a.wav", 0.2)
    assert reasons(path, min_seconds=0.3) == "too short: 0.200 s, at least 0.3 s are wanted"
    assert len(lint([Row(path, 0.0)], min_seconds=0.2).kept) == 1


def test_lint_says_silent(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.wav", Sound(torch.full((2, RATE), 1e-4), RATE))
    assert reasons(tmp_path / "a.wav").startswith("silent")


def test_lint_says_clipped(tmp_path: Path) -> None:
    samples = torch.full((1, 1000), 0.1)
    samples[:, ::20] = 1
    audio.write(tmp_path / "a.wav", Sound(samples, RATE))
    assert reasons(tmp_path / "a.wav") == "clipped: 5.0% of its samples are at full scale"
    assert len(lint([Row(str(tmp_path / "a.wav"), 0.0)], max_clipped=0.06).kept) == 1


def test_lint_says_duplicate_of_the_first_whatever_the_format(tmp_path: Path) -> None:
    first, copy = make_sound(tmp_path / "a.wav"), make_sound(tmp_path / "b.flac")
    kept, rejected = lint([Row(first, 0.0), Row(copy, 0.0), Row(make_sound(tmp_path / "c.wav", seed=1), 0.0)])
    assert [Path(row.path).name for row in kept] == ["a.wav", "c.wav"]
    assert rejected == [(copy, f"duplicate: the same sound as {first}")]


def test_two_captions_of_one_sound_are_no_duplicates_but_equal_rows_are(tmp_path: Path) -> None:
    row = Row(make_sound(tmp_path / "a.wav"), 0.5, caption="a bell")
    kept, rejected = lint([row, replace(row, caption="ringing"), row])
    assert [row.caption for row in kept] == ["a bell", "ringing"]
    assert len(rejected) == 1


def test_segments_of_one_file_are_measured_apart(tmp_path: Path) -> None:
    path = make_sound(tmp_path / "a.wav", 2)
    rows = [Row(path, 0.5), Row(path, 0.5, start=0.5), Row(path, 0.5, start=1.8), Row(path, 0.5, start=9)]
    kept, rejected = lint(rows)
    assert [(row.start, row.duration) for row in kept] == [(0.0, 0.5), (0.5, 0.5), (1.8, 0.2)]
    assert "from 9 s: it ends at 2.000 s" in rejected[0].reason


def test_no_file_makes_lint_fail(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    data = Path(make_sound(tmp_path / "a.flac")).read_bytes()
    rows = []
    for number in range(60):
        broken = bytearray(data[: int(torch.randint(1, len(data), (), generator=generator))])
        for place in torch.randint(0, len(broken), (4,), generator=generator).tolist():
            broken[place] ^= 0xFF
        path = tmp_path / f"{number}{('.wav', '.flac', '.mp3', '.ogg')[number % 4]}"
        path.write_bytes(broken)
        rows.append(Row(str(path), 0.0))
    kept, rejected = lint(rows)
    assert len(kept) + len(rejected) == 60
    assert all("\n" not in row.reason for row in rejected)


def test_progress_is_told_of_every_sound(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    lint([Row("none.wav", 0.0)] * 3, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_building_lists_every_sound_once_kept_or_rejected(tmp_path: Path) -> None:
    make_sound(tmp_path / "in" / "dog" / "good.wav")
    make_sound(tmp_path / "in" / "dog" / "same.ogg", seed=3)
    (tmp_path / "in" / "bad.wav").write_text("x")
    (tmp_path / "in" / "phone.m4a").write_text("x")
    (tmp_path / "in" / "notes.txt").write_text("not a sound")
    report = build_manifest(tmp_path / "in", tmp_path / "out" / "m.jsonl")
    assert [(row.path, row.label) for row in report.kept] == [
        (str(tmp_path / "in" / "dog" / "good.wav"), "dog"),
        (str(tmp_path / "in" / "dog" / "same.ogg"), "dog"),
    ]
    assert read_manifest(tmp_path / "out" / "m.jsonl") == report.kept
    complaints = [json.loads(line) for line in (tmp_path / "out" / "m.rejected.jsonl").read_text().splitlines()]
    assert [row["path"] for row in complaints] == ["../in/bad.wav", "../in/phone.m4a"]
    assert all(row["reason"].startswith("unreadable") for row in complaints)
    assert sorted(os.listdir(tmp_path / "out")) == ["m.jsonl", "m.rejected.jsonl"]


def test_building_again_without_complaints_removes_the_old_ones(tmp_path: Path) -> None:
    make_sound(tmp_path / "in" / "a.wav")
    (tmp_path / "in" / "b.wav").write_text("x")
    build_manifest(tmp_path / "in", tmp_path / "m.jsonl")
    assert (tmp_path / "m.rejected.jsonl").exists()
    make_sound(tmp_path / "in" / "b.wav", seed=1)
    assert build_manifest(tmp_path / "in", tmp_path / "m.jsonl").rejected == []
    assert not (tmp_path / "m.rejected.jsonl").exists()


def test_building_says_nothing_where_there_is_no_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_sound(tmp_path / "in" / "a.wav")
    build_manifest(tmp_path / "in", tmp_path / "m.jsonl")
    assert capfd.readouterr() == ("", "")


def test_building_reads_audiocrafts_manifests_and_the_words_beside_the_sounds(tmp_path: Path) -> None:
    paths = [make_sound(tmp_path / f"{name}.wav", seed=seed) for seed, name in enumerate("abc")]
    (tmp_path / "a.json").write_text(json.dumps({"description": "a bell rings", "keywords": "bell"}))
    (tmp_path / "b.json").write_text(json.dumps({"description": "", "keywords": ["rain", "wind"]}))
    rows = [
        {"path": path, "duration": 0.5, "sample_rate": RATE, "amplitude": None, "weight": None, "info_path": None}
        for path in paths
    ]
    with gzip.open(tmp_path / "data.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    report = build_manifest(tmp_path / "data.jsonl.gz", tmp_path / "m.jsonl")
    assert [(row.path, row.caption) for row in report.kept] == list(
        zip(paths, ["a bell rings", "rain wind", None], strict=True)
    )
    assert [row.extra for row in report.kept] == [
        {"sample_rate": RATE, "keywords": "bell"},
        {"sample_rate": RATE, "keywords": ["rain", "wind"]},
        {"sample_rate": RATE},
    ]


def test_building_measures_a_manifest_without_durations(tmp_path: Path) -> None:
    make_sound(tmp_path / "a.wav", 0.25)
    source = write_json_lines(tmp_path / "given.jsonl", [{"path": "a.wav", "mood": "calm"}, {"path": "b.wav"}])
    report = build_manifest(source, tmp_path / "m.jsonl")
    assert [(row.duration, row.extra) for row in report.kept] == [(0.25, {"mood": "calm"})]
    assert report.rejected == [(str(tmp_path / "b.wav"), "missing: there is no such file")]


def test_names_that_are_not_utf8_are_rejected_and_listed(tmp_path: Path) -> None:
    make_sound(tmp_path / "in" / "a.wav")
    try:
        os.rename(tmp_path / "in" / "a.wav", os.fsencode(tmp_path / "in") + b"/\xff.wav")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    make_sound(tmp_path / "in" / "b.wav", seed=1)
    report = build_manifest(tmp_path / "in", tmp_path / "m.jsonl")
    assert [Path(row.path).name for row in report.kept] == ["b.wav"]
    assert "not UTF-8" in json.loads((tmp_path / "m.rejected.jsonl").read_text())["reason"]


def test_building_refuses_sources_without_sounds_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="no sounds in"):
        build_manifest(tmp_path / "in", tmp_path / "m.jsonl")
    with pytest.raises(FileNotFoundError, match="no folder or manifest"):
        build_manifest(tmp_path / "none", tmp_path / "m.jsonl")
    with pytest.raises(ValueError, match="give a folder, or a manifest"):
        build_manifest(make_sound(tmp_path / "a.wav"), tmp_path / "m.jsonl")
    (tmp_path / "in" / "a.wav").write_text("x")
    with pytest.raises(ValueError, match="none of the 1 sounds .*m.rejected.jsonl"):
        build_manifest(tmp_path / "in", tmp_path / "m.jsonl")
    assert not (tmp_path / "m.jsonl").exists()


def test_several_sources_make_one_manifest_in_which_each_keeps_its_layout(tmp_path: Path) -> None:
    make_sound(tmp_path / "digits" / "7_ann_3.wav")
    make_sound(tmp_path / "words" / "yes" / "bob_nohash_0.wav", seed=1)
    make_sound(tmp_path / "words" / "no" / "bob_nohash_0.wav", seed=0)  # the sound of the digit once more
    (tmp_path / "words" / "testing_list.txt").write_text("yes/bob_nohash_0.wav\n")
    report = build_manifest([tmp_path / "digits", tmp_path / "words"], tmp_path / "m.jsonl")
    assert [(row.label, row.speaker, row.split) for row in report.kept] == [
        ("seven", "ann", "valid"),
        ("yes", "bob", "test"),
    ]
    assert [Path(row.path).parent.name for row in report.rejected] == ["no"]
    assert read_manifest(tmp_path / "m.jsonl") == report.kept
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no sounds in .*none: give"):
        build_manifest([tmp_path / "digits", tmp_path / "none"], tmp_path / "m.jsonl")


# --- tags and words


@pytest.mark.parametrize("name", ["tags", "labels", "keywords"])
@pytest.mark.parametrize(
    "tags", [["Bark", "Music, (other)", "bark"], "Bark,music_other", "bark; Music other", "bark|music other"]
)
def test_a_row_of_tags_without_a_caption_gets_a_pseudo_sentence(tmp_path: Path, name: str, tags: Any) -> None:
    rows = [{"path": "a.wav", "duration": 1, name: tags}, {"path": "a.wav", "duration": 1, name: tags, "caption": "a"}]
    found = read_manifest(write_json_lines(tmp_path / "m.jsonl", rows))
    assert [row.caption for row in found] == ["bark music other", "a"]
    assert [row.extra for row in found] == [{name: tags}] * 2


@pytest.mark.parametrize("tags", [[], "", [3, 17], "3", {"dog": 1}, 7, None, ["", "_"]])
def test_what_is_no_list_of_words_makes_no_caption(tmp_path: Path, tags: Any) -> None:
    [row] = read_manifest(write_json_lines(tmp_path / "m.jsonl", [{"path": "a.wav", "duration": 1, "tags": tags}]))
    assert row.caption is None


def test_building_leaves_out_what_is_told_to_hold_a_word(tmp_path: Path) -> None:
    names = ["caption", "tags", "label", "longer", "phrase", "kept"]
    for seed, name in enumerate(names):
        make_sound(tmp_path / f"{name}.wav", seed=seed)
    words: list[dict[str, Any]] = [
        {"caption": "A SPEECH, then rain"},
        {"tags": ["Child speech, kid speaking", "rain"], "caption": "a child"},
        {"label": "speech_synthesizer"},
        {"caption": "speeches"},
        {"tags": ["background", "Radio noise"]},
        {"tags": ["radio"], "caption": "noise"},
    ]
    rows = [{"path": f"{name}.wav"} | said for name, said in zip(names, words, strict=True)]
    source = write_json_lines(tmp_path / "given.jsonl", rows)
    report = build_manifest(source, tmp_path / "m.jsonl", without=["speech", "radio noise"])
    assert [Path(row.path).stem for row in report.kept] == ["longer", "kept"]
    assert [(Path(row.path).stem, row.reason) for row in report.rejected] == [
        *((name, "its words hold 'speech', which is to be left out") for name in ("caption", "tags", "label")),
        ("phrase", "its words hold 'radio noise', which is to be left out"),
    ]


def test_a_word_to_leave_out_must_be_one(tmp_path: Path) -> None:
    source = write_json_lines(tmp_path / "given.jsonl", [{"path": make_sound(tmp_path / "a.wav")}])
    with pytest.raises(ValueError, match="give words to leave out, such as speech"):
        build_manifest(source, tmp_path / "m.jsonl", without=["speech", " "])


def test_several_captions_of_a_sound_are_rows_of_their_own_and_the_sound_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    survey = audio.survey

    def watched(path: str, *given: Any) -> audio.Survey:
        read.append(path)
        return survey(path, *given)

    monkeypatch.setattr(audio, "survey", watched)
    path = make_sound(tmp_path / "a.wav")
    kept, rejected = lint([Row(path, 0.0, caption=caption) for caption in ("a bell", "ringing", "a bell")])
    assert [row.caption for row in kept] == ["a bell", "ringing"] and len(rejected) == 1 and read == [path]
