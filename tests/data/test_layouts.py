"""Layouts of public datasets, each made small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.data.layouts import LAYOUTS, detect, read_layout
from audiolm_kit.data.manifest import build_manifest


def make_sounds(folder: Path, *names: str) -> None:
    """Small sounds, each another one."""
    for name in names:
        seed = sum(map(ord, name))
        samples = torch.rand(1, 800, generator=torch.Generator().manual_seed(seed)) - 0.5
        audio.write(folder / name, Sound(samples, 8000))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """What the detected layout knows of each sound, by its path below the folder; a skip reason as ``skip``."""
    found = {}
    for entry in read_layout(folder):
        known = {name: value for name, value in entry.columns.items() if value is not None}
        found[entry.path.relative_to(folder).as_posix()] = known | ({"skip": entry.skip} if entry.skip else {})
    return found


def test_plain_takes_labels_from_folders_splits_from_top_folders_and_captions_from_beside(tmp_path: Path) -> None:
    make_sounds(tmp_path, "a.wav", "dog/b.flac", "valid/cat/c.ogg", "train/d.mp3", ".hidden/e.wav", "._f.wav")
    write_text(tmp_path / "a.txt", "a bell\nrings\n")
    write_text(tmp_path / "dog" / "b.json", json.dumps({"description": "a dog barks", "keywords": ["Dog"]}))
    write_text(tmp_path / "train" / "d.json", json.dumps({"description": "", "tags": ["Bell", "Rain"], "bpm": 3}))
    write_text(tmp_path / "README.md", "no sound")
    assert detect(tmp_path) == "plain"
    assert read(tmp_path) == {
        "a.wav": {"caption": "a bell rings"},
        "dog/b.flac": {"label": "dog", "caption": "a dog barks", "keywords": ["Dog"]},
        "train/d.mp3": {"split": "train", "tags": ["Bell", "Rain"]},
        "valid/cat/c.ogg": {"label": "cat", "split": "valid"},
    }


def test_a_table_without_the_column_that_names_files_is_told_and_not_silently_left(tmp_path: Path) -> None:
    make_sounds(tmp_path, "a.wav")
    write_text(tmp_path / "metadata.csv", "name,caption\na.wav,a bell\n")
    with pytest.warns(UserWarning, match="metadata.csv has no column 'file_name'"):
        assert read(tmp_path) == {"a.wav": {}}


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    make_sounds(tmp_path / "elsewhere", "b.wav")
    make_sounds(tmp_path / "in", "a.wav")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    assert list(read(tmp_path / "in")) == ["a.wav", "link/b.wav"]


def test_a_folder_with_a_manifest_uses_it(tmp_path: Path) -> None:
    make_sounds(tmp_path, "a.wav", "b.wav")
    write_text(tmp_path / "manifest.jsonl", json.dumps({"path": "a.wav", "caption": "from the manifest"}))
    assert detect(tmp_path) == "manifest"
    assert read(tmp_path) == {"a.wav": {"caption": "from the manifest"}}


def test_audiofolder_csv_words_become_ours_and_unlisted_sounds_are_named(tmp_path: Path) -> None:
    make_sounds(tmp_path, "x/a.wav", "b.wav", "c.wav")
    table = 'file_name,transcription,category,speaker_id,mood\nx/a.wav,"hello, ""you""",greeting,7,glad\nb.wav,bye,,,\n'
    write_text(tmp_path / "metadata.csv", "\ufeff" + table)
    assert detect(tmp_path) == "audiofolder"
    assert read(tmp_path) == {
        "x/a.wav": {"transcript": 'hello, "you"', "label": "greeting", "speaker": "7", "mood": "glad"},
        "b.wav": {"transcript": "bye"},
        "c.wav": {"skip": "not named in metadata"},
    }


def test_audiofolder_jsonl_per_split(tmp_path: Path) -> None:
    make_sounds(tmp_path, "train/a.wav", "validation/b.wav")
    write_text(
        tmp_path / "train" / "metadata.jsonl", json.dumps({"file_name": "a.wav", "caption": "rain", "text": "x"})
    )
    write_text(tmp_path / "validation" / "metadata.jsonl", json.dumps({"file_name": "b.wav", "label": "wind"}))
    assert read(tmp_path) == {
        "train/a.wav": {"split": "train", "caption": "rain", "transcript": "x"},
        "validation/b.wav": {"split": "valid", "label": "wind"},
    }


def test_a_table_row_without_a_file_is_named_by_line(tmp_path: Path) -> None:
    write_text(tmp_path / "metadata.csv", "file_name,text\na.wav,x\n,y\n")
    with pytest.raises(ValueError, match=r"metadata\.csv line 3 has no column 'file_name'"):
        read(tmp_path)


def test_ljspeech(tmp_path: Path) -> None:
    make_sounds(tmp_path, "wavs/LJ001-0001.wav", "wavs/LJ001-0002.wav", "wavs/extra.wav")
    write_text(
        tmp_path / "metadata.csv",
        'LJ001-0001|In 1999, "so"|In nineteen, "so"\nLJ001-0002|only one|\nLJ001-9|gone|gone\n',
    )
    assert detect(tmp_path) == "ljspeech"
    found = read(tmp_path)
    assert found["wavs/LJ001-0001.wav"] == {
        "transcript": 'In nineteen, "so"',
        "caption": 'a person reads aloud: In nineteen, "so"',
    }
    assert found["wavs/LJ001-0002.wav"]["transcript"] == "only one"
    assert found["wavs/LJ001-9.wav"]["transcript"] == "gone"  # lint will call it missing
    assert found["wavs/extra.wav"] == {"skip": "not named in metadata.csv"}


def test_an_ljspeech_line_without_text_is_named(tmp_path: Path) -> None:
    make_sounds(tmp_path, "wavs/a.wav")
    write_text(tmp_path / "metadata.csv", "a|x\nb\n")
    with pytest.raises(ValueError, match=r"metadata\.csv line 2 is not id\|text"):
        read(tmp_path)


@pytest.mark.parametrize("subset", ["dev-clean/", ""])
def test_librispeech(tmp_path: Path, subset: str) -> None:
    folder = tmp_path / "LibriSpeech"
    make_sounds(folder, f"{subset}84/1/84-1-0000.flac", f"{subset}84/1/84-1-0001.flac", f"{subset}9/2/9-2-0000.flac")
    write_text(folder / subset / "84/1/84-1.trans.txt", "84-1-0000 GO DO YOU HEAR\n")
    write_text(folder / subset / "9/2/9-2.trans.txt", "9-2-0000 YES\n")
    write_text(folder / "SPEAKERS.TXT", "; a comment | with bars\n84   | F | dev-clean | 8.02 | A Name\n")
    assert detect(folder) == "librispeech"
    split = {"split": "valid"} if subset else {}
    texts = {"transcript": "go do you hear", "caption": "a woman reads aloud: go do you hear"}
    assert read(folder) == {
        f"{subset}84/1/84-1-0000.flac": texts | {"speaker": "84", "gender": "female"} | split,
        f"{subset}9/2/9-2-0000.flac": {"transcript": "yes", "caption": "a person reads aloud: yes", "speaker": "9"}
        | split,
        f"{subset}84/1/84-1-0001.flac": {"skip": "not named in a .trans.txt"},
    }


def test_a_librispeech_subset_finds_the_speakers_beside_it(tmp_path: Path) -> None:
    make_sounds(tmp_path / "train-clean-100", "84/1/84-1-0000.flac")
    write_text(tmp_path / "train-clean-100/84/1/84-1.trans.txt", "84-1-0000 GO\n")
    write_text(tmp_path / "SPEAKERS.TXT", "84 | M | train-clean-100 | 8.02 | A Name\n")
    known = read(tmp_path / "train-clean-100")["84/1/84-1-0000.flac"]
    assert (known["gender"], known["split"], known["caption"]) == ("male", "train", "a man reads aloud: go")


def test_esc50_holds_fold_5_out(tmp_path: Path) -> None:
    make_sounds(tmp_path, "audio/1-10-A-0.wav", "audio/5-20-B-1.wav", "audio/odd.wav")
    head = "filename,fold,target,category,esc10,src_file,take\n"
    write_text(
        tmp_path / "meta/esc50.csv", head + "1-10-A-0.wav,1,0,dog,True,10,A\n5-20-B-1.wav,5,1,sea_waves,False,20,B\n"
    )
    assert detect(tmp_path) == "esc50"
    found = read(tmp_path)
    assert found["audio/1-10-A-0.wav"] == {
        "caption": "dog",
        "label": "dog",
        "split": "train",
        "fold": "1",
        "source_id": "freesound:10",
    }
    assert found["audio/5-20-B-1.wav"]["split"] == "valid"
    assert found["audio/5-20-B-1.wav"]["caption"] == "sea waves"
    assert found["audio/odd.wav"]["skip"] == "not named in meta/esc50.csv"


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "meta/esc50.csv", "filename,target\na.wav,1\n")
    with pytest.raises(ValueError, match=r"esc50\.csv has no column category, fold"):
        read(tmp_path)


def test_speech_commands(tmp_path: Path) -> None:
    make_sounds(
        tmp_path, "yes/aa_nohash_0.wav", "yes/bb_nohash_1.wav", "no/cc_nohash_0.wav", "_background_noise_/tap.wav"
    )
    write_text(tmp_path / "validation_list.txt", "yes/bb_nohash_1.wav\n")
    write_text(tmp_path / "testing_list.txt", "no/cc_nohash_0.wav\nno/gone_nohash_0.wav\n")
    assert detect(tmp_path) == "speech_commands"
    found = read(tmp_path)
    assert found["yes/aa_nohash_0.wav"] == {
        "caption": "a person says the word yes",
        "transcript": "yes",
        "label": "yes",
        "speaker": "aa",
        "split": "train",
    }
    assert [found[name]["split"] for name in ("yes/bb_nohash_1.wav", "no/cc_nohash_0.wav")] == ["valid", "test"]
    assert found["_background_noise_/tap.wav"]["skip"] == "background noise, not a word"
    assert "no/gone_nohash_0.wav" in found  # listed, not there: lint will call it missing


@pytest.mark.parametrize("place", ["", "recordings/"])
def test_spoken_digits_hold_takes_0_to_4_out(tmp_path: Path, place: str) -> None:
    make_sounds(
        tmp_path, f"{place}7_george_4.wav", f"{place}7_george_5.wav", f"{place}0_yweweler_49.wav", f"{place}test.wav"
    )
    assert detect(tmp_path) == "digits"
    found = read(tmp_path)
    assert found[f"{place}7_george_4.wav"] == {
        "caption": "george says the digit seven",
        "transcript": "seven",
        "label": "seven",
        "speaker": "george",
        "split": "valid",
    }
    assert found[f"{place}7_george_5.wav"]["split"] == "train"
    assert found[f"{place}0_yweweler_49.wav"]["label"] == "zero"
    assert found[f"{place}test.wav"] == {"skip": "not named DIGIT_SPEAKER_TAKE"}


def test_what_a_layout_skips_is_in_the_report(tmp_path: Path) -> None:
    make_sounds(tmp_path / "in", "yes/aa_nohash_0.wav", "_background_noise_/tap.wav")
    write_text(tmp_path / "in" / "testing_list.txt", "no/gone_nohash_0.wav\n")
    report = build_manifest(tmp_path / "in", tmp_path / "m.jsonl")
    assert [Path(row.path).name for row in report.kept] == ["aa_nohash_0.wav"]
    assert report.rejected == [
        (str(tmp_path / "in" / "_background_noise_" / "tap.wav"), "background noise, not a word"),
        (str(tmp_path / "in" / "no" / "gone_nohash_0.wav"), "missing: there is no such file"),
    ]


def test_a_layout_can_be_chosen_and_a_wrong_choice_is_told(tmp_path: Path) -> None:
    make_sounds(tmp_path, "7_george_4.wav")
    assert next(read_layout(tmp_path, "plain")).columns == {"label": None, "split": None}
    with pytest.raises(ValueError, match="unknown layout 'esc': choose auto or one of"):
        read_layout(tmp_path, "esc")
    with pytest.raises(ValueError, match="is not laid out as esc50"):
        read_layout(tmp_path, "esc50")


def test_every_layout_is_tried_here() -> None:
    files = (Path(__file__), Path(__file__).with_name("test_tables.py"))
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    assert [name for name in LAYOUTS if f'"{name}"' not in source] == []
