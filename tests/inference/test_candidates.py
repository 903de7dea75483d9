"""Best of n: the winner is the first of the highest scores, under seeds that make each candidate again."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiolm_kit.audio import Sound
from audiolm_kit.inference import candidates
from audiolm_kit.inference.candidates import STRIDE, TOGETHER, best_of, candidate_seed, scorer_of

TEXTS = ["rain", "a dog", "a bell"]


def make(texts: list[str], seeds: list[int]) -> list[Sound]:
    """A sound of a length of its own for each text and seed, as random as torch's generator makes it."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return [
        Sound(torch.rand(1, 3 + len(text), generator=each), 8000) for text, each in zip(texts, generators, strict=True)
    ]


def loudness(sounds: list[Sound], texts: list[str]) -> Tensor:
    return torch.stack([sound.samples.mean() for sound in sounds])


def test_the_best_candidate_is_the_one_that_its_seed_makes_again() -> None:
    choices = best_of(make, TEXTS, [5, 6, 7], 4, loudness)
    for choice, text, seed in zip(choices, TEXTS, [5, 6, 7], strict=True):
        all_of_them = make([text] * 4, [candidate_seed(seed, j) for j in range(4)])
        scores = loudness(all_of_them, [text] * 4)
        winner = int(scores.argmax())
        assert choice.scores == tuple(scores.tolist())
        assert choice.score == float(scores.max())
        assert torch.equal(choice.sound.samples, all_of_them[winner].samples)
        [again] = make([text], [choice.seed])
        assert torch.equal(again.samples, choice.sound.samples)
    assert len({choice.scores.index(choice.score) for choice in choices}) > 1  # not always the same place


def test_one_candidate_is_the_sound_without_candidates() -> None:
    plain = make(TEXTS, [5, 6, 7])
    for choice, sound, seed in zip(best_of(make, TEXTS, [5, 6, 7], 1, loudness), plain, [5, 6, 7], strict=True):
        assert torch.equal(choice.sound.samples, sound.samples)
        assert choice.seed == seed and choice.scores == (choice.score,)


def test_more_candidates_keep_the_earlier_ones_and_are_never_worse() -> None:
    few, many = best_of(make, TEXTS, [0, 1, 2], 3, loudness), best_of(make, TEXTS, [0, 1, 2], 8, loudness)
    for before, after in zip(few, many, strict=True):
        assert after.scores[:3] == before.scores and after.score >= before.score


def test_of_equals_the_first_is_taken() -> None:
    choices = best_of(make, TEXTS, [1, 2, 3], 5, lambda sounds, texts: torch.zeros(len(sounds)))
    assert [choice.seed for choice in choices] == [1, 2, 3]


def test_an_item_does_not_depend_on_the_others_and_few_sounds_are_held_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def counting(texts: list[str], seeds: list[int]) -> list[Sound]:
        asked.append(len(texts))
        return make(texts, seeds)

    texts = [f"text {i}" for i in range(11)]
    seeds = list(range(11))
    together = best_of(counting, texts, seeds, 6, loudness)
    assert sum(asked) == 66 and max(asked) <= TOGETHER
    for i, choice in enumerate(together):
        [alone] = best_of(make, [texts[i]], [seeds[i]], 6, loudness)
        assert alone.seed == choice.seed and alone.scores == choice.scores
    monkeypatch.setattr(candidates, "TOGETHER", 1)
    asked.clear()
    assert [choice.scores for choice in best_of(counting, texts, seeds, 6, loudness)] == [
        choice.scores for choice in together
    ]
    assert asked == [6] * 11


def test_no_texts_have_no_choices() -> None:
    assert best_of(make, [], [], 4, loudness) == []


# --- seeds


@pytest.mark.parametrize("seed", [0, 1, -1, -(2**63), 2**63, 2**64 - 1, 123456789])
def test_candidates_have_seeds_that_torch_takes_and_tells_apart(seed: int) -> None:
    seeds = [candidate_seed(seed, j) for j in range(50)]
    assert seeds[0] == seed
    assert all(-(2**63) <= each < 2**64 for each in seeds)
    drawn = {torch.rand(2, generator=torch.Generator().manual_seed(each)).sum().item() for each in seeds}
    assert len(drawn) == 50
    assert candidate_seed(2**64 - 1, 1) == STRIDE - 1


def test_torch_tells_seeds_apart_by_their_last_32_bits_alone() -> None:
    """The reason for the stride; if this fails one day, it has become better."""
    first, second = (torch.rand(2, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3 + 2**32))
    assert torch.equal(first, second)


def test_items_one_apart_share_no_candidate() -> None:
    items, several = 5000, 64
    seeds = {candidate_seed(7 + i, j) % 2**32 for i in range(items) for j in range(several)}
    assert len(seeds) == items * several


def test_multiples_of_the_stride_stay_far_apart() -> None:
    for several in (2, 3, 10, 100, 1000):
        least = min(min(j * STRIDE % 2**32, -j * STRIDE % 2**32) for j in range(1, several))
        assert least > 2**32 / (2.3 * several)


# --- scorers


def test_a_scorer_is_an_object_or_the_name_of_a_clap(tmp_path: Path) -> None:
    assert scorer_of(loudness) is loudness
    made: list[str] = []
    with pytest.raises(FileNotFoundError, match="no CLAP at '.*nowhere'"):
        best_of(lambda texts, seeds: made.extend(texts) or [], TEXTS, [1, 2, 3], 2, str(tmp_path / "nowhere"))
    assert not made  # said before the work


def test_what_ranks_nothing_is_refused_in_one_line() -> None:
    nan = torch.full((6,), math.nan)
    for act, told in (
        (lambda: best_of(make, TEXTS, [1, 2, 3], 0, loudness), "candidates is 0: ask for at least 1"),
        (lambda: best_of(make, TEXTS, [1], 2, loudness), "1 seeds for 3 texts"),
        (lambda: best_of(make, TEXTS, [1, 2, 3], 2, lambda s, t: nan), "gave NaN for a sound of 'rain'"),
        (lambda: best_of(make, TEXTS, [1, 2, 3], 2, lambda s, t: nan[:5]), r"gave \[5\] for 6 sounds"),
        (lambda: best_of(make, TEXTS, [1, 2, 3], 2, lambda s, t: nan[:, None]), r"gave \[6, 1\] for 6 sounds"),
        (lambda: best_of(lambda t, s: [], TEXTS, [1, 2, 3], 2, loudness), "0 sounds were made for 6 texts"),
    ):
        with pytest.raises(ValueError, match=told) as refusal:
            act()
        assert "\n" not in str(refusal.value)


def test_infinite_scores_can_be_compared() -> None:
    low = best_of(make, ["rain"], [1], 2, lambda s, t: torch.tensor([-math.inf, 0.0]))
    assert low[0].scores == (-math.inf, 0.0) and low[0].score == 0
