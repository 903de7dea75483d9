"""Intervals: as wide as they should be, around the value, the same for a seed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from audiolm_kit.evaluation.measures import Bootstrap


def draws(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, count)


def test_an_interval_is_as_wide_as_the_normal_distribution_says() -> None:
    found = Bootstrap(2000).mean(draws(400))
    assert found.value == pytest.approx(draws(400).mean()) and found.size == 400
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * draws(400).std() / 20, rel=0.1)


def test_intervals_shrink_as_sounds_are_added() -> None:
    widths = [(lambda m: m.high - m.low)(Bootstrap().mean(draws(count))) for count in (10, 100, 1000)]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_intervals_hold_the_truth_nineteen_times_of_twenty() -> None:
    found = [Bootstrap(200).mean(draws(40, seed)) for seed in range(300)]
    assert 0.90 < np.mean([each.low <= 3 <= each.high for each in found]) < 0.98


def test_a_seed_makes_one_interval_and_order_none_other() -> None:
    values = draws(50)
    assert Bootstrap(100, 3).mean(values) == Bootstrap(100, 3).mean(values)
    assert Bootstrap(100, 3).mean(values) != Bootstrap(100, 4).mean(values)


def test_a_ratio_weighs_sounds_by_what_is_below() -> None:
    assert Bootstrap().ratio([1, 0, 4], [2, 8, 10]).value == pytest.approx(0.25)


def test_draws_that_see_less_variety_leave_the_interval_around_the_value() -> None:
    def variety(weights: np.ndarray) -> float:
        return float((weights > 0).mean())  # 1 of all, about 0.63 of any draw

    found = Bootstrap().of_sets(variety, 100)
    assert found.value == 1 and found.low < 1 < found.high and found.high - found.low < 0.2


def test_what_is_drawn_together_stays_together_and_within_bounds() -> None:
    values = draws(50)

    def difference(one: np.ndarray, other: np.ndarray) -> float:
        return float(one @ values / one.sum() - other @ values / other.sum())

    alone, together = (Bootstrap().of_sets(difference, 50, 50, together=each) for each in (False, True))
    assert together.low == together.high == 0 and alone.low < -0.3 < 0.3 < alone.high
    bounded = Bootstrap().of_sets(difference, 50, 50, bounds=(-0.1, math.inf))
    assert bounded.low == -0.1 and bounded.high == alone.high


def test_one_sound_has_a_value_and_no_interval() -> None:
    found = Bootstrap().mean([2.5])
    assert found.value == 2.5 and math.isnan(found.low) and math.isnan(found.high) and found.size == 1


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="no sound is left"):
        Bootstrap().mean([])
    with pytest.raises(ValueError, match="draws is 3"):
        Bootstrap(3)
