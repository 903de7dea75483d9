"""Datasets of CSV tables, as their copies commonly lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.data.layouts import detect, read_layout
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


def read(folder: Path, *columns: str) -> list[tuple[Any, ...]]:
    """Each entry: its path below the folder, then the columns or why it is left out."""
    return [
        (entry.path.relative_to(folder).as_posix(), *([entry.skip] if entry.skip else map(entry.columns.get, columns)))
        for entry in read_layout(folder)
    ]


# --- AudioCaps

CAPS = "audiocap_id,youtube_id,start_time,caption\n"
TRAIN = CAPS + '91139,r1nicOVtvkQ,130,"A woman, talking"\n58146,-oKjv1m,30,Rain falls\n'
TEST = CAPS + "".join(f"{number},_7fmOlUlwoNg,0,caption {number}\n" for number in range(5))


@pytest.mark.parametrize(
    "name",
    [
        "r1nicOVtvkQ.wav",
        "Yr1nicOVtvkQ.flac",
        "91139.wav",
        "r1nicOVtvkQ_130.wav",
        "Yr1nicOVtvkQ_130.ogg",
        "r1nicOVtvkQ_130000.wav",
        "r1nicOVtvkQ_000130.wav",
        "r1nicOVtvkQ_130.0.wav",
        "r1nicOVtvkQ_130_140.wav",
        "r1nicOVtvkQ_130.000_140.000.wav",
        "r1nicOVtvkQ_130000_140000.wav",
    ],
)
@pytest.mark.parametrize("place", ["", "audio/", "train/", "audio/train/"])
def test_audiocaps_finds_a_clip_by_any_common_name(name: str, place: str, tmp_path: Path) -> None:
    make_sounds(tmp_path, f"{place}{name}")
    write_text(tmp_path / "train.csv", TRAIN)
    assert detect(tmp_path) == "audiocaps"
    assert read(tmp_path, "caption", "split", "source_id") == [
        (f"{place}{name}", "A woman, talking", "train", "youtube:r1nicOVtvkQ"),
        ("-oKjv1m.wav", "Rain falls", "train", "youtube:-oKjv1m"),  # not there: lint will call it missing
    ]


def test_audiocaps_lists_each_caption_of_a_clip_with_one_file_of_it(tmp_path: Path) -> None:
    make_sounds(tmp_path, "train/r1nicOVtvkQ.wav", "train/-oKjv1m.wav", "other.wav")
    for number in range(5):  # some copies hold the clip once for each caption
        make_sounds(tmp_path / "test", f"{number}.wav")
    write_text(tmp_path / "dataset/train.csv", TRAIN)
    write_text(tmp_path / "dataset/test.csv", TEST)
    report = build_manifest(tmp_path, tmp_path.parent / f"{tmp_path.name}.jsonl")
    kept = [(Path(row.path).name, row.caption, row.split) for row in report.kept]
    assert kept == [
        *(("0.wav", f"caption {number}", "test") for number in range(5)),
        ("r1nicOVtvkQ.wav", "A woman, talking", "train"),
        ("-oKjv1m.wav", "Rain falls", "train"),
    ]
    assert report.rejected == [(str(tmp_path / "other.wav"), "not named in the tables of AudioCaps")]


def test_of_two_sounds_with_one_name_that_in_the_folder_of_its_split_counts(tmp_path: Path) -> None:
    make_sounds(tmp_path, "a/eval/r1nicOVtvkQ.wav", "val/r1nicOVtvkQ.wav", "z/train_audio/r1nicOVtvkQ.wav")
    for split, place in (("train", "z/train_audio"), ("val", "val"), ("test", "a/eval")):
        write_text(tmp_path / f"{split}.csv", TRAIN.rsplit("58146", 1)[0])
        assert read(tmp_path, "split")[0][0] == f"{place}/r1nicOVtvkQ.wav"
        (tmp_path / f"{split}.csv").unlink()


def test_missing_sounds_are_listed_with_their_reason(tmp_path: Path) -> None:
    make_sounds(tmp_path, "r1nicOVtvkQ.wav")
    write_text(tmp_path / "train.csv", TRAIN)
    report = build_manifest(tmp_path, tmp_path.parent / f"{tmp_path.name}.jsonl")
    assert [row.caption for row in report.kept] == ["A woman, talking"]
    assert report.rejected == [(str(tmp_path / "-oKjv1m.wav"), "missing: there is no such file")]


@pytest.mark.parametrize(
    ("line", "empty"), [("1,,30,rain", "youtube_id"), ("1,a,30, ", "caption"), ("1,a", "start_time")]
)
def test_a_row_without_what_it_is_about_is_named(line: str, empty: str, tmp_path: Path) -> None:
    write_text(tmp_path / "train.csv", f"{CAPS}1,a,30,rain\n{line}\n")
    with pytest.raises(ValueError, match=rf"train\.csv line 3 has no {empty}: repair or remove the line"):
        read(tmp_path)


# --- AudioSet

SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=4
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
-0FHUc78Gqo, 0.000, 7.000, "/m/0bt9lr"
gone, 1.500, 10.000, "/m/0bt9lr"
"""
NAMES = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00088,"Gush"\n2,/m/0bt9lr,"Domestic animals, pets"\n'
ONTOLOGY = [
    {"id": mid, "name": name, "child_ids": []} for mid, name in (("/m/09x0r", "Speech"), ("/t/dd00088", "Gush"))
]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("--PJHxphWEs.wav", "-0FHUc78Gqo.wav"),
        ("Y--PJHxphWEs.flac", "Y-0FHUc78Gqo.flac"),
        ("--PJHxphWEs_30000.wav", "-0FHUc78Gqo_0.wav"),
        ("--PJHxphWEs_30.000_40.000.wav", "-0FHUc78Gqo_0.000_7.000.wav"),
        ("--PJHxphWEs_30000_40000.wav", "-0FHUc78Gqo_0_7000.wav"),
    ],
)
def test_audioset_names_its_labels_as_tags(first: str, second: str, tmp_path: Path) -> None:
    make_sounds(tmp_path, f"audio/{first}", f"audio/{second}")
    write_text(tmp_path / "balanced_train_segments.csv", SEGMENTS)
    write_text(tmp_path / "class_labels_indices.csv", NAMES)
    assert detect(tmp_path) == "audioset"
    assert read(tmp_path, "tags", "split", "source_id") == [
        (f"audio/{first}", ["Speech", "Gush"], "train", "youtube:--PJHxphWEs"),
        (f"audio/{second}", ["Domestic animals, pets"], "train", "youtube:-0FHUc78Gqo"),
        ("gone.wav", ["Domestic animals, pets"], "train", "youtube:gone"),
    ]
    report = build_manifest(tmp_path, tmp_path.parent / f"{tmp_path.name}.jsonl", without=["speech"])
    assert [row.caption for row in report.kept] == ["domestic animals pets"]


def test_audioset_reads_the_ontology_and_the_held_out_set(tmp_path: Path) -> None:
    make_sounds(tmp_path, "--PJHxphWEs.wav")
    write_text(tmp_path / "csv/eval_segments.csv", "\n".join(SEGMENTS.splitlines()[:4]))
    write_text(tmp_path / "ontology/ontology.json", json.dumps(ONTOLOGY))
    assert read(tmp_path, "tags", "split") == [("--PJHxphWEs.wav", ["Speech", "Gush"], "test")]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("ontology.json", json.dumps(ONTOLOGY), r"line 5 has label '/m/0bt9lr', which is not named: put class_labels"),
        ("ontology.json", "{", "is not AudioSet's ontology"),
        ("class_labels_indices.csv", "a,b\n", "has no column display_name, mid"),
        ("x_segments.csv", "# YTID\nabc, 1.0\n", "line 2 is not YTID, start, end, labels"),
    ],
)
def test_an_audioset_that_is_not_whole_says_what_is_wrong(name: str, content: str, told: str, tmp_path: Path) -> None:
    write_text(tmp_path / "z_segments.csv", SEGMENTS)
    write_text(tmp_path / "class_labels_indices.csv", NAMES if name == "x_segments.csv" else "")
    if name == "ontology.json":
        (tmp_path / "class_labels_indices.csv").unlink()
    write_text(tmp_path / name, content)
    with pytest.raises(ValueError, match=told):
        read(tmp_path)


# --- Clotho


@pytest.mark.parametrize("place", ["development", "clotho_audio_development", "audio/development"])
def test_clotho_has_five_captions_for_a_sound(place: str, tmp_path: Path) -> None:
    name = "Distorted AM Radio  noise. v1.wav"
    make_sounds(tmp_path, f"clotho_audio_evaluation/{name}", f"{place}/{name}")
    head = "file_name," + ",".join(f"caption_{number}" for number in range(1, 6)) + "\n"
    write_text(tmp_path / "clotho_captions_development.csv", f'{head}{name},"one, two",three,,four,five\n')
    assert detect(tmp_path) == "clotho"
    assert read(tmp_path, "caption", "split")[:4] == [
        (f"{place}/{name}", caption, "train") for caption in ("one, two", "three", "four", "five")
    ]
    assert read(tmp_path)[4:] == [(f"clotho_audio_evaluation/{name}", "not named in the tables of Clotho")]


@pytest.mark.parametrize(("table", "split"), [("validation", "valid"), ("evaluation", "test")])
def test_clotho_names_its_splits_in_its_own_way(table: str, split: str, tmp_path: Path) -> None:
    make_sounds(tmp_path, f"{table}/a.wav")
    write_text(tmp_path / f"clotho_captions_{table}.csv", "file_name,caption_1,caption_2\na.wav,rain,wind\n")
    write_text(tmp_path / f"clotho_metadata_{table}.csv", "file_name,keywords,sound_id\na.wav,rain;wind,1\n")
    assert {columns[-1] for columns in read(tmp_path, "caption", "split")} == {split}


# --- FSD50K


@pytest.mark.parametrize(
    ("tables", "dev", "evaluation"),
    [
        ("FSD50K.ground_truth", "FSD50K.dev_audio", "FSD50K.eval_audio"),
        ("labels", "clips/dev", "clips/eval"),
        (".", "dev_audio", "eval_audio"),
    ],
)
def test_fsd50k(tables: str, dev: str, evaluation: str, tmp_path: Path) -> None:
    make_sounds(tmp_path, f"{dev}/64760.wav", f"{dev}/16399.wav", f"{evaluation}/37199.wav")
    head = "fname,labels,mids"
    rows = '64760,"Electric_guitar,Music","/m/02sgy,/m/04rlf",train\n16399,Bark,/m/05tny_,val\n'
    write_text(tmp_path / tables / "dev.csv", f"{head},split\n{rows}")
    write_text(tmp_path / tables / "eval.csv", f'{head}\n37199,"Domestic_animals_and_pets",/m/068hy\n')
    write_text(tmp_path / tables / "vocabulary.csv", "0,Accelerating,/m/07q2z82\n")
    assert detect(tmp_path) == "fsd50k"
    assert read(tmp_path, "tags", "split", "source_id") == [
        (f"{dev}/64760.wav", ["Electric guitar", "Music"], "train", "freesound:64760"),
        (f"{dev}/16399.wav", ["Bark"], "valid", "freesound:16399"),
        (f"{evaluation}/37199.wav", ["Domestic animals and pets"], "test", "freesound:37199"),
    ]


# --- VGGSound


@pytest.mark.parametrize("head", ["", "youtube_id,start_seconds,label,split\n"])
def test_vggsound(head: str, tmp_path: Path) -> None:
    make_sounds(tmp_path, "video/---g-f_I2yQ_000001.flac", "--0PQM4-hqg_30.wav")
    rows = '---g-f_I2yQ,1,"people marching",test\n--0PQM4-hqg,30,waterfall burbling,train\n'
    write_text(tmp_path / "vggsound.csv", head + rows)
    assert detect(tmp_path) == "vggsound"
    assert read(tmp_path, "caption", "label", "split", "source_id") == [
        ("video/---g-f_I2yQ_000001.flac", "people marching", "people marching", "test", "youtube:---g-f_I2yQ"),
        ("--0PQM4-hqg_30.wav", "waterfall burbling", "waterfall burbling", "train", "youtube:--0PQM4-hqg"),
    ]


@pytest.mark.parametrize("line", ["a,1,rain", "a,soon,rain,train", 'a,1,"rain" x,train'])
def test_a_vggsound_line_that_is_none_is_named(line: str, tmp_path: Path) -> None:
    write_text(tmp_path / "vggsound.csv", f"a,1,rain,train\n{line}\n")
    with pytest.raises(ValueError, match=r"vggsound\.csv line 2 is not"):
        read(tmp_path)


# --- MAESTRO

MAESTRO = "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration\n"
PIECES = (
    'Alban Berg,"Sonata, Op. 1",train,2018,2018/a.midi,2018/a.wav,698.7\n'
    "Franz Liszt,Gnomenreigen,validation,2009,2009/b.midi,2009/b.wav,168.9\n"
    "Frédéric Chopin,Barcarolle,test,2009,2009/c.midi,2009/c.wav,500.5\n"
)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_maestro(suffix: str, tmp_path: Path) -> None:
    make_sounds(tmp_path, f"2018/a.{suffix}", f"2009/b.{suffix}", "2009/other.wav")
    write_text(tmp_path / "maestro-v3.0.0.csv", MAESTRO + PIECES)
    assert detect(tmp_path) == "maestro"
    assert read(tmp_path, "composer", "piece", "split", "midi") == [
        (f"2018/a.{suffix}", "Alban Berg", "Sonata, Op. 1", "train", "2018/a.midi"),
        (f"2009/b.{suffix}", "Franz Liszt", "Gnomenreigen", "valid", "2009/b.midi"),
        ("c.wav", "Frédéric Chopin", "Barcarolle", "test", "2009/c.midi"),  # not there: lint will call it missing
        ("2009/other.wav", "not named in the table of MAESTRO"),
    ]
    report = build_manifest(tmp_path, tmp_path.parent / f"{tmp_path.name}.jsonl")
    assert [row.caption for row in report.kept] == [
        "solo piano, a piece by Alban Berg",
        "solo piano, a piece by Franz Liszt",
    ]
    assert [row.extra["piece"] for row in report.kept] == ["Sonata, Op. 1", "Gnomenreigen"]


def test_a_maestro_row_without_a_split_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "maestro-v3.0.0.csv", MAESTRO + PIECES.replace("train", ""))
    with pytest.raises(ValueError, match=r"maestro-v3\.0\.0\.csv line 2 has no split: repair or remove the line"):
        read(tmp_path)
