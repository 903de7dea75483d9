"""The experiments on continuations, of speech and of piano: who is asked, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import continuations
import pytest
import torch
from reading import load
from sound_arms import Wordless
from verdicts import Voices, prompted, read_arms, voices

from audiolm_kit.audio import Sound
from audiolm_kit.data.manifest import Row
from audiolm_kit.lm.sampling import Sampling

SPEECH, PIANO = load("audiolm_speech", "experiment").VOICES, load("piano", "experiment").CONTINUATIONS


def test_prompts_are_of_speakers_in_turn_and_long_enough() -> None:
    rows = [Row(f"/{who}-{take}.flac", 5.0 + take, speaker=who) for who in "ba" for take in (0, 1, 2)]
    found = SPEECH.asked([*rows, Row("/nobody.flac", 9.0)], 3)
    assert [(row.label, row.path, row.duration) for row in found] == [
        ("a", "/a-1.flac", 6.0),
        ("b", "/b-1.flac", 6.0),
        ("a", "/a-2.flac", 6.0),
    ]
    with pytest.raises(ValueError, match="1 speakers have held-out recordings of 6 s: at least 2 are wanted"):
        SPEECH.asked(rows[:3], 3)


def test_windows_lie_side_by_side_and_pieces_take_turns() -> None:
    rows = [Row("/a.flac", 60.0, extra={"piece": "a"}), Row("/b.flac", 39.9), Row("/b.flac", 20.0, start=39.9)]
    found = [(row.label, row.start, row.duration) for row in PIANO.asked(rows, 4)]
    assert found == [("a", 0, 20), ("b", 0, 20), ("a", 20, 20), ("b", 39.9, 20)]
    with pytest.raises(ValueError, match="1 pieces have held-out recordings of 20 s: at least 2 are wanted"):
        PIANO.asked(rows[:1], 4)


def test_a_model_without_text_is_not_given_any() -> None:
    class Told:
        def continue_(self, *given: Any) -> list[Any]:
            return list(given)

    model: Any = Told()
    prompts, sampling = [Sound(torch.zeros(1, 8), 8)], Sampling()
    assert Wordless(model).continue_(prompts, 6.0, ["a.flac"], sampling, [3]) == [prompts, 6.0, None, sampling, [3]]


def test_arms_of_other_prompts_and_arms_that_were_not_run_are_refused(tmp_path: Path) -> None:
    none: Any = None
    with pytest.raises(ValueError, match="have other prompts than the recordings: write both anew"):
        prompted([Voices(none, none, ["a", "b"])], Voices(none, none, ["a", "c"]))
    with pytest.raises(ValueError, match=r"has no arm only-\*: write and judge the sounds first"):
        read_arms(tmp_path, "only-*", "voices.json", voices)


@pytest.mark.parametrize(
    ("experiment", "wanted"),
    [(SPEECH, {"audiolm-3": 1.0, "only-3": 1.0}), (PIANO, {"audiolm-3": 2.0, "only-3": 1.0, "free-3": 1.0})],
)
def test_what_leads_audiolm_leads_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, experiment: Any, wanted: dict[str, float]
) -> None:
    arms: dict[str, Any] = {}
    for kind in ("AudioLM", "AudioGen"):
        monkeypatch.setattr(f"continuations.{kind}.load", lambda folder: folder.name)
    monkeypatch.setattr(
        "continuations.write_arm", lambda model, arm, items, folder: arms.update({arm.name: (model, arm)})
    )
    continuations.write_continuations(experiment, tmp_path, [], [3])
    drawn = {name: getattr(arm.sampling, "acoustic", arm.sampling) for name, (_, arm) in arms.items()}
    assert {name: own.prefix_guidance_scale for name, own in drawn.items()} == wanted
    assert len({own.temperature for own in drawn.values()}) == 1
    assert {name: model.model for name, (model, _) in arms.items()} == {
        name: "only-3" if name == "only-3" else "audiolm-3" for name in wanted
    }
