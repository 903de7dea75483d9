"""The digits recipe's experiments: where words are cut, what is asked for, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reading import content, load
from verdicts import Voices

from audiolm_kit.audio import Sound
from audiolm_kit.data.manifest import Row

cuts, experiment, results, tradeoff = (
    load("audiolm_digits", name) for name in ("cuts", "experiment", "results", "tradeoff")
)

# --- cuts

RATE = 8000


def spoken(*parts: tuple[float, float]) -> Sound:
    """Noise of so many seconds and such an amplitude, one part behind the other, [1, L]."""
    generator = torch.Generator().manual_seed(0)
    pieces = [level * torch.randn(1, round(seconds * RATE), generator=generator) for seconds, level in parts]
    return Sound(torch.cat(pieces, dim=1), RATE)


def seconds(found: list[slice]) -> list[tuple[float, float]]:
    return [(word.start / RATE, word.stop / RATE) for word in found]


PAIR = ((0.3, 0.2), (0.15, 1e-4), (0.4, 0.2), (0.2, 1e-4))


def test_words_lie_between_silences_with_a_margin_on_both_sides() -> None:
    assert seconds(cuts.words(spoken(*PAIR))) == [(0, pytest.approx(0.35)), (pytest.approx(0.4), pytest.approx(0.9))]


def test_a_word_behind_a_start_takes_nothing_from_before_it() -> None:
    [word] = seconds(cuts.words(spoken(*PAIR), 0.43))
    assert word == (pytest.approx(0.43), pytest.approx(0.9))
    assert cuts.words(spoken(*PAIR), 0.85) == []


def test_a_closure_is_part_of_its_word_and_a_click_is_none() -> None:
    stop = spoken((0.2, 0.2), (0.06, 1e-4), (0.1, 0.2), (0.2, 1e-4))
    assert seconds(cuts.words(stop)) == [(0, pytest.approx(0.41))]
    click = spoken((0.3, 0.2), (0.2, 1e-4), (0.03, 0.2), (0.2, 1e-4))
    assert len(cuts.words(click)) == 1


def test_loudness_is_beside_the_loudest_and_not_of_full_scale() -> None:
    loud, soft = spoken(*PAIR), spoken(*((length, level / 100) for length, level in PAIR))
    assert cuts.words(loud) == cuts.words(soft)
    # What is far softer than the word before the start is silence, however loud it is by itself.
    assert cuts.words(spoken((0.3, 0.2), (0.15, 1e-5), (0.3, 1e-3)), 0.4) == []


def test_silence_has_no_words() -> None:
    assert cuts.words(Sound(torch.zeros(1, RATE), RATE)) == []
    assert cuts.words(Sound(torch.zeros(1, 0), RATE)) == []


def test_a_prompt_is_whole_frames_up_to_just_behind_its_last_digit() -> None:
    found = cuts.prompt_seconds([0.4, 1.013, 1.6], 2, 50)
    assert found == pytest.approx(1.06) and (found * 50) % 1 == pytest.approx(0, abs=1e-6)
    assert 1.013 < found <= 1.013 + cuts.BEHIND < 1.013 + 0.12  # strings.py: no pause is shorter
    with pytest.raises(ValueError, match="leave at least one of each"):
        cuts.prompt_seconds([0.4, 1.0], 2, 50)


# --- what is asked for


def a_row(digits: list[int], label: str = "rule", split: str = "valid") -> Row:
    ends = [0.5 * (place + 1) for place in range(len(digits))]
    words = " ".join(experiment.DIGITS[digit] for digit in digits)
    extra = {"digits": digits, "ends": ends}
    return Row("a.flac", ends[-1] + 0.15, None, words, label, "theo", split, extra=extra)


class AtFifty:
    frame_rate = 50.0


def test_the_rule_says_what_is_wanted_behind_a_prompt() -> None:
    rows = [a_row([3, 4, 5]), a_row([8, 9, 0, 1]), a_row([2, 7, 1], "free")]
    told = [prompt.told for prompt in experiment.prompted(rows, AtFifty())]
    assert [each["wanted"] for each in told] == ["five", "zero", "eight"]
    assert all(each["prompt"] == pytest.approx(1.06) and each["labels"] == ["theo"] for each in told)


def test_too_few_held_out_strings_are_told_of(tmp_path: Path) -> None:
    rows = [a_row([1, 2, 3]), a_row([1, 2, 3], split="train"), a_row([1, 3, 7], "free")]
    given = experiment.Given(tmp_path, rows, tmp_path, [0], 2)
    assert len(given.held_out(least=2)) == 2
    with pytest.raises(ValueError, match="1 held-out strings rule, 2 were asked for"):
        given.held_out("rule", least=2)


def test_where_nothing_is_said_a_silence_stands_for_it() -> None:
    told = {"path": "0000.flac", "prompt": 0.5, "wanted": "two"}
    [(about, piece)] = experiment.digit_behind(told, spoken((0.4, 0.2), (0.6, 1e-5)))
    assert about["empty"] and not piece.samples.any()
    [(about, piece)] = experiment.digit_behind(told, spoken(*PAIR, *PAIR))
    assert not about["empty"] and about["labels"] == ["two"] and piece.samples.abs().max() > 0.1
    assert len(experiment.all_digits(told, spoken(*PAIR, *PAIR))) == 4


# --- what is counted


@pytest.mark.parametrize(
    ("wanted", "said", "right"),
    [
        ("1 2 3", "1 2 3", "yyy"),
        ("1 2 3", "1 3", "yny"),
        ("1 2 3", "1 7 2 3", "yyy"),
        ("1 2 3", "1 7 3", "yny"),
        ("1 2 3", "", "nnn"),
        ("1 2 3", "3 1 2", "yyn"),
        ("1 2 3", "4 5 6 7", "nnn"),
        ("4 4", "4", "yn"),
    ],
)
def test_words_are_aligned_by_as_few_changes_as_can_be(wanted: str, said: str, right: str) -> None:
    found = results.right_words(wanted.split(), said.split())
    assert sum(found) == right.count("y") and len(found) == len(right)
    if wanted != "4 4":  # either of two like words may be the one that is heard
        assert found == [each == "y" for each in right]


def voices(speakers: list[str], behind: list[list[float]]) -> Voices:
    """Those of sounds without a prompt."""
    return Voices(np.zeros_like(behind), np.array(behind, float), speakers)


def test_the_nearest_mean_voice_is_heard_and_silence_is_nobody() -> None:
    known = voices(["a", "a", "b"], [[1, 0], [0.8, 0.6], [0, 1]])
    centres = results.centroids(known)
    assert np.linalg.norm(centres["a"]) == pytest.approx(1)
    arm = voices(["a", "b", "a", "a"], [[0.9, 0.1], [0.1, 0.9], [0, 1], [0, 0]])
    assert results.same(arm, centres).tolist() == [1, 1, 0, 0]


def an_arm(home: Path, sounds: list[dict[str, Any]], voices: np.ndarray | None = None) -> None:
    """What the scripts and judges leave in an arm's folder."""
    home.mkdir(parents=True)
    named = [{"path": f"{number:04d}.flac"} | sound for number, sound in enumerate(sounds)]
    (home / "index.json").write_text(json.dumps({"settings": {}, "sounds": named}))
    (home / "verdicts.json").write_text(json.dumps({"asked": {}, "sounds": named}))
    np.save(home / "vectors.npy", np.zeros((len(sounds), 2)))
    if voices is not None:
        (home / "voices.json").write_text(json.dumps({"asked": {}, "sounds": named}))
        np.save(home / "voices.npy", np.stack([np.zeros_like(voices), voices], 1))


def rules(rows: list[dict[str, Any]]) -> list[bool]:
    return [row["rule"]["passed"] for row in rows if "rule" in row]


NOBODY: Any = None  # the judges are not asked again
WORDS = ("one", "two", "three", "four")


def strings_heard(home: Path, wrong: int, kept: float) -> None:
    """40 strings of four digits, of which the last ``wrong`` are misheard, and ``kept`` of their speakers right."""
    speakers = [f"s{number % 4}" for number in range(40)]
    heard = [int(number % 4) if number < 40 * kept else (number + 1) % 4 for number in range(40)]
    sounds = [{"text": " ".join(WORDS), "labels": [speaker]} for speaker in speakers]
    an_arm(home, sounds, np.eye(4)[heard])
    said = [*WORDS[: len(WORDS) - wrong], *["nine"] * wrong]
    of = [f"{number:04d}.flac" for number in range(40)]
    pieces = [{"of": each, "empty": False, "heard": word} for each in of for word in said]
    an_arm(home.parent.with_name(f"{home.parent.name}.digits") / home.name, pieces)


def a_study(folder: Path, wrong: int, generated: float, continued: float) -> Path:
    for name in ("real", "reconstruction", "training"):
        strings_heard(folder / "recordings" / name, 0, 1)
    for seed in range(3):
        strings_heard(folder / "voices" / f"resynthesis-{seed}", wrong, generated)
        strings_heard(folder / "voices" / f"continuation-{seed}", 0, continued)
    return folder


def test_the_rules_of_voices_hold_where_they_should(tmp_path: Path) -> None:
    assert rules(results.voices(NOBODY, a_study(tmp_path / "good", 0, 0.25, 0.9))) == [True, True, True, True]
    assert rules(results.voices(NOBODY, a_study(tmp_path / "leak", 0, 0.6, 0.9))) == [False, False, True, True]
    assert rules(results.voices(NOBODY, a_study(tmp_path / "lost", 1, 0.25, 0.6))) == [True, False, True, False]


@pytest.mark.parametrize(("angle", "kept"), [(0.6, True), (0.9, False)])
def test_a_continuation_is_to_be_as_like_its_prompt_as_another_string_of_the_speaker(angle: float, kept: bool) -> None:
    """Strings of a speaker are 0.7 apart (a cosine of 0.765), speakers a right angle."""

    def at(*angles: float) -> np.ndarray:
        return np.stack([np.cos(angles), np.sin(angles)], 1)

    names = ["a", "a", "b", "b"]
    own, quarter = (0.0, 0.7, np.pi / 2, np.pi / 2 + 0.7), np.pi / 2
    real = Voices(np.zeros((4, 2)), at(*own), names)
    after = Voices(at(*own), at(*(each + angle for each in own)), names)
    same, others, made = results.likeness(real, [after, after])
    assert same["value"] == pytest.approx(np.cos(0.7), abs=1e-3)
    assert others["value"] == pytest.approx(
        np.median(np.cos([quarter, quarter + 0.7, quarter - 0.7, quarter])), abs=1e-3
    )
    assert made["value"] == pytest.approx(np.cos(angle), abs=1e-3) and made["rule"]["passed"] == kept


def followers(home: Path, share: float, empty: bool = False) -> None:
    sounds = [
        {"labels": ["two"], "heard": "two" if number < 50 * share else "six", "empty": empty} for number in range(50)
    ]
    an_arm(home, sounds)


@pytest.mark.parametrize(("kept", "empty", "met"), [(0.8, False, True), (0.3, False, False), (0.8, True, False)])
def test_the_rule_of_structure_wants_more_than_the_baseline(
    tmp_path: Path, kept: float, empty: bool, met: bool
) -> None:
    home = tmp_path / "structure.digits"
    for name in ("real", "reconstruction"):
        followers(home / name, 1)
    for seed in range(3):
        followers(home / f"audiolm-{seed}", kept, empty)
        for name in ("only", "bold", "free"):
            followers(home / f"{name}-{seed}", 0.3)
    assert rules(results.structure(NOBODY, tmp_path)) == [met, met]


def measured(above: float, better: float) -> dict[str, Any]:
    score = {"value": 0.2, "interval": [0.1, 0.3], "count": 9}
    apart = {"value": above, "interval": [above - 0.01, above + 0.01]}
    sides = ("within", "across")
    return {
        "errors": {name: dict.fromkeys(sides, score) for name in results.CODES},
        "above": {f"{name} {side}": apart for name in ("acoustic", "first") for side in sides},
        "reconstruction": {"si_sdr": [5.0 + better] * 8, "mel_distance": [5.0 - better] * 8},
        "resynthesis": [{"si_sdr": [5.0] * 8, "mel_distance": [5.0] * 8}] * 3,
    }


def test_the_rules_of_the_tradeoff_want_both_sides_of_it() -> None:
    assert rules(results.tradeoff_table(measured(0.1, 1))) == [True] * 4
    assert rules(results.tradeoff_table(measured(-0.1, 1))) == [False, False, True, True]
    assert rules(results.tradeoff_table(measured(0.1, -1))) == [True, True, False, False]


def test_the_rules_of_steps_count_them_and_what_they_cost(tmp_path: Path) -> None:
    a_study(tmp_path, 1, 0.25, 0.9)
    for seed in range(3):
        strings_heard(tmp_path / "steps" / f"flat-{seed}", 0, 0.25)
    models = {
        "flat": {"seconds": 4.0, "steps": {"semantic": 60, "coarse": 200, "fine": 200}},
        "audiolm": {"seconds": 2.0, "steps": {"semantic": 60, "acoustic": 103}},
    }
    times = {"settings": {"seconds": 2.0, "batch": 4}, "models": models}
    (tmp_path / "times.json").write_text(json.dumps(times))
    assert rules(results.steps(NOBODY, tmp_path)) == [True, False, True]  # a quarter of the digits is lost


def test_what_is_made_is_compared_at_the_level_and_length_of_the_recording() -> None:
    real = spoken((0.5, 0.2))
    one, other = tradeoff.alike(Sound(torch.cat([real.samples / 3, torch.ones(1, 40)], 1), RATE), real)
    assert torch.allclose(one.samples, other.samples, atol=1e-6)


# --- recipes


def test_both_ways_have_stages_of_one_size_and_make_all_codebooks_once() -> None:
    codec = content("audiolm_digits", "codec")[0]["codec"]["quantizer"]
    models = {name: content("audiolm_digits", name) for name in ("semantic", "coarse", "fine", "acoustic", "only")}
    coarse, fine, acoustic = (models[name] for name in ("coarse", "fine", "acoustic"))
    for model in (coarse, fine):
        assert model[0]["lm"]["codebook_size"] == codec["codebook_size"]
    assert coarse[0]["lm"]["prefix"] == acoustic[0]["lm"]["prefix"]
    assert coarse[1]["codebooks"] == fine[1]["prefix_codebooks"] and fine[1]["codebooks"][1] == codec["num_codebooks"]
    sizes = {name: dict(model[0]["lm"]["transformer"]) for name, model in models.items()}
    layers = {name: size.pop("layers") for name, size in sizes.items()}
    dropout = {name: size.pop("dropout") for name, size in sizes.items()}
    assert len({dropout[name] for name in ("acoustic", "coarse", "fine", "only")}) == 1  # what is compared learns alike
    assert all(size == sizes["semantic"] for size in sizes.values())
    assert layers["coarse"] == layers["fine"] == layers["acoustic"]
    assert layers["only"] == layers["semantic"] + layers["acoustic"]


def test_the_baseline_sees_no_fewer_codes_than_semantic_and_acoustic_stage_together() -> None:
    seen = {}
    for name in ("semantic", "acoustic", "only"):
        model, data, steps = content("audiolm_digits", name)
        frames = data.get("frames") or round((25 if name == "semantic" else 50) * data["seconds"])
        seen[name] = steps * data["batch_size"] * frames * model["lm"]["num_codebooks"]
    assert seen["only"] >= seen["semantic"] + seen["acoustic"]
