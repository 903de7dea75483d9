"""Which sounds are judged, and by what: notes, lists, names that are alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.evaluation.examples import Clip, Example, read_examples, with_references


def put(path: Path, **note: object) -> Path:
    audio.write(path, Sound(torch.rand(1, 400) - 0.5, 8000))
    if note:
        path.with_suffix(".json").write_text(json.dumps(note))
    return path


def test_a_folder_is_read_in_the_order_of_its_numbers_with_the_notes_beside(tmp_path: Path) -> None:
    prompt = put(tmp_path / "elsewhere" / "prompt.wav")
    folder = tmp_path / "made"
    put(folder / "10.wav", text="rain")
    put(folder / "2.wav", text=["0-1: a bell", "1-2: rain"], transcript="two", prompt=str(prompt))
    put(folder / "deep" / "1.flac")
    put(folder / ".hidden" / "1.wav")
    found = read_examples(folder)
    assert [each.name for each in found] == ["2", "10", "deep/1"]
    assert found[0].text == "0-1: a bell, 1-2: rain" and found[0].transcript == "two"
    assert found[0].prompt == Clip(prompt) and found[1].prompt is None and found[1].text == "rain"
    assert found[0].clip.read().samples.shape == (1, 400)


def test_an_index_says_what_belongs_to_a_folder_and_wins_over_notes(tmp_path: Path) -> None:
    put(tmp_path / "a.wav", text="rain", transcript="ay")
    put(tmp_path / "b.wav")
    put(tmp_path / "c.wav")
    listed = [{"path": "a.wav", "text": "wind"}, {"path": "b.wav", "prompt": "gone.wav", "reference": "c.wav"}]
    for content in (listed, {"settings": {}, "sounds": listed}):
        (tmp_path / "index.json").write_text(json.dumps(content))
        for source in (tmp_path, tmp_path / "index.json"):
            found = read_examples(source)
            assert [(each.name, each.text, each.transcript) for each in found] == [("a", "wind", "ay"), ("b", "", "")]
            assert found[1].prompt is None and found[1].reference == Clip(tmp_path / "c.wav")


def test_names_differ_also_where_suffixes_alone_do(tmp_path: Path) -> None:
    for name in ("1.wav", "1.flac", "2.wav"):
        put(tmp_path / name)
    assert sorted(each.name for each in read_examples(tmp_path)) == ["1.flac", "1.wav", "2"]


def example(name: str, text: str = "", transcript: str = "") -> Example:
    return Example(name, Clip(Path(f"{name}.wav")), text=text, transcript=transcript)


def test_references_are_found_by_the_whole_name_then_by_its_last_part() -> None:
    real = [example("x/1", "one"), example("y/1", "uno"), example("y/2", "dos", "said"), example("3")]
    made = with_references([example("y/1"), example("2", "two"), example("1"), example("4")], real)
    assert [each.reference for each in made] == [real[1].clip, real[2].clip, None, None]  # x/1 or y/1?
    assert [each.text for each in made] == ["uno", "two", "", ""] and made[1].transcript == "said"


def test_no_two_sounds_get_one_reference_by_the_last_part_of_their_names() -> None:
    made = with_references([example("seed-1/1"), example("seed-2/1")], [example("1")])
    assert [each.reference for each in made] == [None, None]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "index.json is not JSON"),
        ('{"sounds": 3}', "index.json lists no sounds"),
        ('[{"text": "rain"}]', "index.json lists no sounds"),
        ('[{"path": "gone.wav"}]', "no sound file .*gone.wav: paths are relative"),
        ("[]", "holds no sounds"),
    ],
)
def test_lists_that_are_none_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
        read_examples(tmp_path)
    assert "\n" not in str(error.value)


def test_folders_without_sounds_and_broken_notes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere: give a folder of sounds"):
        read_examples(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no sounds"):
        read_examples(tmp_path)
    put(tmp_path / "1.wav").with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match="1.json is not JSON"):
        read_examples(tmp_path)
