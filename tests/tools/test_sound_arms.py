"""An experiment's sounds are written once, each as its model, setting and seed make it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import sound_arms
import torch
from sound_arms import Arm, Item, repeated, write_arm, write_recordings, write_sounds

from audiolm_kit import AudioGen, Sampling, audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.data.manifest import Row

ITEMS = [Item("a bell rings", ("bell",)), Item("rain falls", ("rain",)), Item("a bell rings", ("bell",))]
ARM = Arm("plain-0", Sampling(), seconds=0.2, seed=7)


@pytest.fixture(scope="module")
def model(trained: Path) -> AudioGen:
    return AudioGen.load(trained)


def modified(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.flac")}


def test_each_sound_is_the_models_own_for_its_text_and_seed(model: AudioGen, tmp_path: Path) -> None:
    write_arm(model, ARM, ITEMS, tmp_path)
    index = json.loads((tmp_path / "plain-0" / "index.json").read_text())
    assert [sound["seed"] for sound in index["sounds"]] == [7, 8, 9]
    assert [sound["labels"] for sound in index["sounds"]] == [["bell"], ["rain"], ["bell"]]
    [wanted] = model.generate(["rain falls"], 0.2, seed=8)
    found = audio.read(tmp_path / "plain-0" / "0001.flac")
    torch.testing.assert_close(found.samples, wanted.samples, atol=1e-4, rtol=0)


def test_of_several_takes_the_model_keeps_one(model: AudioGen, tmp_path: Path) -> None:
    arms = sound_arms.guided("plain", 0.2, 7)
    assert len({arm.name for arm in arms}) == len(arms) and [arm.candidates for arm in arms] == [1] * 5 + [4]
    assert "candidates" not in arms[0].told and arms[-1].told["candidates"] == 4
    write_arm(model, arms[-1], ITEMS, tmp_path)
    [wanted] = model.generate(["rain falls"], 0.2, arms[-1].sampling, seed=8, candidates=4, scorer="self")
    found = audio.read(tmp_path / arms[-1].name / "0001.flac")
    torch.testing.assert_close(found.samples, wanted.samples, atol=1e-4, rtol=0)


def test_of_several_takes_the_scorer_that_came_along_keeps_one(model: AudioGen, tmp_path: Path) -> None:
    arm = sound_arms.chosen("plain", 0.2, 7)
    assert arm.name not in {each.name for each in sound_arms.guided("plain", 0.2, 7)} and arm.told["scorer"] == ""
    with pytest.raises(ValueError, match="this model brings no scorer"):
        write_arm(model, arm, ITEMS, tmp_path)


def test_a_stopped_arm_goes_on_and_a_finished_one_is_left_alone(model: AudioGen, tmp_path: Path) -> None:
    write_arm(model, ARM, ITEMS, tmp_path)
    before = modified(tmp_path / "plain-0")
    (tmp_path / "plain-0" / "index.json").unlink()
    (tmp_path / "plain-0" / "0002.flac").unlink()
    write_arm(model, ARM, ITEMS, tmp_path)
    after = modified(tmp_path / "plain-0")
    assert after.keys() == before.keys() and after["0001.flac"] == before["0001.flac"]
    write_arm(model, ARM, ITEMS, tmp_path)
    assert modified(tmp_path / "plain-0") == after


def test_another_setting_begins_the_arm_anew(model: AudioGen, tmp_path: Path) -> None:
    write_arm(model, ARM, ITEMS, tmp_path)
    before = modified(tmp_path / "plain-0")
    write_arm(model, Arm("plain-0", Sampling(temperature=0.5), seconds=0.2, seed=7), ITEMS[:2], tmp_path)
    after = modified(tmp_path / "plain-0")
    assert len(after) == 2 and after["0000.flac"] != before["0000.flac"]


def test_a_folder_of_something_else_is_refused(model: AudioGen, tmp_path: Path) -> None:
    (tmp_path / "plain-0").mkdir()
    (tmp_path / "plain-0" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        write_arm(model, ARM, ITEMS, tmp_path)


def test_what_is_made_at_once_is_chosen_by_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_arms, "BATCH", 2)
    batches: list[list[int]] = []

    def make(numbers: Sequence[int]) -> list[Sound]:
        batches.append(list(numbers))
        return [Sound(torch.full((1, 8), number / 8), 8000) for number in numbers]

    told = [{"length": length} for length in (2, 1, 2, 1)]
    write_sounds(tmp_path / "arm", {}, told, make, rank=lambda number: told[number]["length"])
    assert batches == [[1, 3], [0, 2]]
    index = json.loads((tmp_path / "arm" / "index.json").read_text())["sounds"]
    assert index == [{"path": f"000{number}.flac"} | each for number, each in enumerate(told)]
    assert audio.read(tmp_path / "arm" / "0003.flac").samples[0, 0] == pytest.approx(3 / 8, abs=1e-3)


def test_prompts_are_cut_and_continued(model: AudioGen, tmp_path: Path) -> None:
    noise = Sound(0.1 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)), 8000)
    audio.write(tmp_path / "noise.wav", noise)
    row = Row(str(tmp_path / "noise.wav"), 1.0, label="noise")
    arm = Arm("continued", Sampling(), seconds=0.4, prompt_seconds=0.2)
    write_arm(model, arm, [Item("rain falls", ("rain",), prompt=row)], tmp_path)
    [told] = json.loads((tmp_path / "continued" / "index.json").read_text())["sounds"]
    assert told["prompt_label"] == "noise" and told["prompt"] == "noise.wav"
    assert audio.read(tmp_path / "continued" / told["path"]).samples.shape[1] == 3200


def test_recordings_stand_beside_what_the_codec_leaves_of_them(model: AudioGen, tmp_path: Path) -> None:
    audio.write(tmp_path / "tone.wav", Sound(0.5 * torch.sin(torch.arange(4000) / 5)[None], 8000))
    row = Row(str(tmp_path / "tone.wav"), 0.3, label="tone", start=0.1)
    write_recordings(model.codec, [row], tmp_path / "out", checkpoint.fingerprint(model.codec))
    real, remade = (audio.read(tmp_path / "out" / kind / "0000.flac") for kind in ("real", "reconstruction"))
    assert real.samples.shape == remade.samples.shape == (1, 2400)
    assert not torch.allclose(real.samples, remade.samples, atol=1e-3)


def test_items_are_repeated_in_turn() -> None:
    assert [item.labels[0] for item in repeated(ITEMS[:2], 5)] == ["bell", "rain", "bell", "rain", "bell"]
