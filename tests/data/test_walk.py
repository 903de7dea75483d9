"""Batches of like lengths take the places that the plain walk takes, and depend on seed, step and ranks alone."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from audiolm_kit.data.walk import LikeLengths, Steps, TimedLoader, places_of_step, row_of_place

LENGTHS = np.random.default_rng(0).integers(1, 100, size=37)
POOL, BATCH = 6, 4


def lengths_of(places: list[int], seed: int = 0) -> list[int]:
    return [int(LENGTHS[row_of_place(place, len(LENGTHS), seed)]) for place in places]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_pool_of_steps_takes_the_same_places_as_the_plain_walk(ranks: int) -> None:
    walk = LikeLengths(LENGTHS, POOL, 0)
    for pool in (0, 1, 4):
        both = [(step, rank) for step in range(pool * POOL, (pool + 1) * POOL) for rank in range(ranks)]
        found = [place for step, rank in both for place in walk.places_of_step(step, BATCH, rank, ranks)]
        plain = [place for step, rank in both for place in places_of_step(step, BATCH, rank, ranks)]
        assert sorted(found) == plain


def test_lengths_of_a_batch_are_like_and_those_of_its_other_ranks_too() -> None:
    walk = LikeLengths(LENGTHS, POOL, 0)
    spans = []
    for step in range(POOL):
        whole = [length for rank in (0, 1) for length in lengths_of(walk.places_of_step(step, BATCH, rank, 2))]
        spans.append((min(whole), max(whole)))
    for (_, longest), (shortest, _) in itertools.pairwise(sorted(spans)):
        assert longest <= shortest  # no step has rows between those of another
    assert spans != sorted(spans)  # yet short ones do not always come first


def test_a_batch_depends_on_seed_step_and_rank_alone() -> None:
    wanted = LikeLengths(LENGTHS, POOL, 0).places_of_step(8, BATCH, 1, 2)
    walk = LikeLengths(LENGTHS, POOL, 0)
    for step in (20, 1, 8):
        found = walk.places_of_step(step, BATCH, 1, 2)
    assert found == wanted
    assert LikeLengths(LENGTHS, POOL, 1).places_of_step(8, BATCH, 1, 2) != wanted
    assert walk.places_of_step(8, BATCH, 0, 2) != wanted


def test_the_loader_knows_how_long_it_was_waited_for() -> None:
    def make(step: int) -> int:
        time.sleep(0.01)
        return step

    loader = TimedLoader(Steps(make, 5), batch_size=None)
    begun = time.perf_counter()
    assert list(itertools.islice(loader, 3)) == [5, 6, 7]
    assert 0.03 <= loader.waited <= time.perf_counter() - begun
    assert list(TimedLoader([1, 2], batch_size=None)) == [1, 2]
