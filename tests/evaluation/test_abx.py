"""ABX: 0 for what tells categories apart, one half for what does not, whatever the order of the sounds."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from audiolm_kit.evaluation.abx import Item, abx, choose, interval, mean
from audiolm_kit.evaluation.warping import Distance, distances

WORDS = ("one", "two", "three")
VOICES = ("ann", "bob", "cy")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spoken(frames, takes: int = 3, words=WORDS, voices=VOICES) -> list[Item]:
    """An item for each word, voice and take, of ``frames(word number, voice number, take)``."""
    cells = itertools.product(enumerate(words), enumerate(voices), range(takes))
    return [Item(frames(word, voice, take), name, who) for (word, name), (voice, who), take in cells]


def random_frames(length: int, width: int, seed: int) -> Tensor:
    return torch.randn(length, width, generator=generator(seed), dtype=torch.float64)


def direction(number: int, length: int, width: int = 4) -> Tensor:
    """Frames that all point one way."""
    return torch.eye(width)[number % width].expand(length, -1)


def noise(word: int, voice: int, take: int) -> Tensor:
    return random_frames(3 + take % 4, 5, 1000 * word + 100 * voice + take)


def plain_abx(items: list[Item], kind: Distance) -> tuple[float, float]:
    """Within and across by the definition, triplet by triplet."""
    frames = [item.frames for item in items]
    apart = distances(frames, frames, kind).tolist()  # test_warping.py holds them against a plain loop
    errors: dict[bool, dict[tuple[str, str], dict[str, dict[str, list[float]]]]] = {True: {}, False: {}}
    for (i, a), (j, b), (k, x) in itertools.product(enumerate(items), repeat=3):
        if a.category == x.category != b.category and a.speaker == b.speaker and i != k:
            near, far = apart[i][k], apart[j][k]
            wrong = 1.0 if near > far + 1e-12 else 0.5 if abs(near - far) <= 1e-12 else 0.0
            pairs = errors[a.speaker == x.speaker].setdefault((a.category, b.category), {})
            pairs.setdefault(a.speaker, {}).setdefault(x.speaker, []).append(wrong)
    scores = []
    for pairs in (errors[True], errors[False]):
        each = [[np.mean([np.mean(v) for v in xs.values()]) for xs in by.values()] for by in pairs.values()]
        scores.append(float(np.mean([np.mean(one) for one in each])))
    return scores[0], scores[1]


def test_features_that_carry_the_category_make_no_mistake() -> None:
    score = abx(spoken(lambda word, voice, take: direction(word, 2 + take)))
    assert (score.within, score.across) == (0, 0)
    assert score.intervals == ((0, 0), (0, 0))
    assert score.counts == (27, 3, 3, 3 * 6 * (3 * 2 * 3), 3 * 2 * 6 * 27)


def test_random_features_are_wrong_half_of_the_time() -> None:
    score = abx(spoken(noise, takes=10))
    assert abs(score.within - 0.5) < 0.05 and abs(score.across - 0.5) < 0.05
    for value, (low, high) in zip((score.within, score.across), score.intervals, strict=True):
        assert low <= value <= high


def test_what_is_identical_ties() -> None:
    same = random_frames(5, 7, 0)
    score = abx(spoken(lambda word, voice, take: same))
    assert (score.within, score.across) == (0.5, 0.5)
    other = abx(spoken(lambda word, voice, take: torch.tensor([1, 2, 2])), "mismatch")
    assert (other.within, other.across) == (0.5, 0.5)


def test_features_of_the_speaker_alone_tell_nothing() -> None:
    voices = [random_frames(4, 6, voice) for voice in range(3)]
    score = abx(spoken(lambda word, voice, take: voices[voice]))
    assert (score.within, score.across) == (0.5, 0.5)


def test_words_that_each_speaker_says_in_another_way_are_right_within_and_wrong_across() -> None:
    words, voices = ("a", "b"), ("ann", "bob")
    score = abx(spoken(lambda word, voice, take: direction(word + voice, 3, 2), words=words, voices=voices))
    assert (score.within, score.across) == (0, 1)


@pytest.mark.parametrize("kind", ["angular", "euclidean", "mismatch"])
def test_scores_are_those_of_triplets_counted_one_by_one(kind: Distance) -> None:
    items = spoken(noise, takes=2)[1:]  # cells of unequal size
    if kind == "mismatch":
        items = [Item((item.frames[:, :2] > 0).long().T, *item[1:]) for item in items]
    score, wanted = abx(items, kind), plain_abx(items, kind)
    assert (score.within, score.across) == pytest.approx(wanted, abs=1e-12)


def test_the_order_of_the_items_does_not_matter() -> None:
    items = spoken(noise, takes=6)
    shuffled = [items[place] for place in torch.randperm(len(items), generator=generator(0)).tolist()]
    first, second = abx(items, per_cell=4, others=1), abx(shuffled, per_cell=4, others=1)
    assert first[:4] == second[:4]
    assert torch.equal(first.tables.across.nan_to_num(), second.tables.across.nan_to_num())


def test_the_seed_decides_which_items_are_compared() -> None:
    items = spoken(noise, takes=8)
    scores = [abx(items, per_cell=3, seed=seed) for seed in (0, 0, 1)]
    assert scores[0][:4] == scores[1][:4] and scores[0].within != scores[2].within
    assert scores[0].counts.items == 27


def test_speakers_of_x_are_bounded() -> None:
    items = spoken(noise, takes=2)
    assert abx(items, others=1).counts.across * 2 == abx(items).counts.across


def test_each_pair_of_categories_weighs_the_same() -> None:
    """One word is said ten times as often, and mistaken; it counts for no more."""

    def frames(word: int, voice: int, take: int) -> Tensor:
        return direction(1 if word == 2 else word, 3)  # three sounds like two

    many = spoken(frames, takes=2) + [Item(direction(0, 3), "one", "ann")] * 5
    score = abx(many)
    assert score.within == score.across == pytest.approx((0.5 + 0.5) / 6)
    assert score.tables.within[1, 2].tolist() == [0.5] * 3 and score.tables.within[0, 1].tolist() == [0] * 3


def test_a_lone_speaker_has_no_score_across_and_lone_takes_none_within() -> None:
    alone = abx(spoken(noise, voices=("ann",)))
    assert math.isnan(alone.across) and alone.within >= 0 and math.isnan(alone.intervals.across.low)
    once = abx(spoken(noise, takes=1))
    assert math.isnan(once.within) and once.across >= 0 and once.counts.within == 0


def test_speakers_who_share_no_word_are_never_compared() -> None:
    items = spoken(noise, voices=("ann",)) + spoken(noise, words=("four", "five"), voices=("bob",))
    score = abx(items)
    assert score.counts.across == 0 and score.counts.speakers == 2
    assert score.tables.within[:, :, 0].isnan().sum() == 25 - 6  # ann said three words


@pytest.mark.parametrize(
    ("items", "options", "said"),
    [
        ([], {}, "no items"),
        (spoken(noise, words=("one",)), {}, "9 items of 1 categories by 3 speakers make no triplet"),
        (spoken(noise, takes=1, voices=("ann",)), {}, "make no triplet"),
        (spoken(noise), {"per_cell": 0}, "per_cell is 0"),
        (spoken(noise), {"others": 0}, "others is 0"),
        (spoken(noise), {"distance": "mismatch"}, "features cannot be compared by mismatch"),
    ],
)
def test_what_makes_no_triplet_is_refused(items: list[Item], options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        abx(items, **options)


def test_chosen_places_rise_and_small_cells_stay_whole() -> None:
    cells = [("a", "x")] * 5 + [("b", "x")] * 2 + [("a", "x")] * 5
    places = choose(cells, 3, seed=1)
    assert places == sorted(set(places)) and places == choose(cells, 3, seed=1)
    assert [cells[place] for place in places].count(("a", "x")) == 3 and {5, 6} <= set(places)


def test_a_mean_is_taken_over_speakers_first() -> None:
    table = torch.full((2, 2, 2), math.nan)
    table[0, 1] = torch.tensor([0.0, 1.0])
    table[1, 0, 0] = 1.0
    assert mean(table) == 0.75
    low, high = interval(table)
    assert 0 <= low <= 0.75 <= high <= 1


def test_more_speakers_make_an_interval_narrower() -> None:
    def width(speakers: int) -> float:
        table = torch.rand(6, 6, speakers, generator=generator(0)) + torch.rand(speakers, generator=generator(1))
        return interval(table)[1] - interval(table)[0]

    assert width(40) < 0.5 * width(4)


def test_two_scores_of_the_same_items_are_compared_cell_by_cell() -> None:
    items = spoken(noise)
    blurred = [Item(item.frames.round(), *item[1:]) for item in items]
    first, second = abx(items).tables.across, abx(blurred).tables.across
    assert interval(first - first) == (0, 0)
    assert mean(first - second) == pytest.approx(mean(first) - mean(second))
    assert interval(first - second) != (0, 0)


@pytest.mark.slow
def test_ten_digits_of_five_speakers_take_less_than_a_minute() -> None:
    words, voices = [str(word) for word in range(10)], [str(voice) for voice in range(5)]
    items = spoken(lambda w, v, t: random_frames(20 + (w + t) % 15, 256, t), takes=10, words=words, voices=voices)
    began = time.process_time()
    abx(items)
    assert time.process_time() - began < 60
