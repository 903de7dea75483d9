"""What is asked for becomes frames, or one line about why it cannot."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from audiolm_kit.inference.items import (
    Item,
    alike,
    batches,
    length_of,
    lengths_of,
    negatives_of,
    samples_of,
    seeds_of,
    windows_of,
)
from audiolm_kit.inference.streaming import Windows
from audiolm_kit.lm.sampling import Sampling

HOP, RATE = 160, 8000  # 50 frames a second
PLAIN, AT_ONCE = Sampling(), Windows()


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [
        ("rain", 800, [(5, "rain")]),
        ("rain", 801, [(6, "rain")]),
        ("rain", None, [(None, "rain")]),
        (["0-0.1: rain", "0.1-0.2: dog"], 1600, [(5, "rain"), (10, "dog")]),
        (["0-0.1: rain", "0.1-0.2: dog"], 2400, [(5, "rain"), (10, "dog"), (15, "")]),
        (["0.1-0.2: dog"], 1600, [(5, ""), (10, "dog")]),
        (["0-0.1: rain", "0.1-: dog"], None, [(5, "rain"), (None, "dog")]),
        (["0-0.1: rain", "0.1-0.2: dog"], None, [(5, "rain"), (10, "dog"), (None, "")]),
        (["0-: rain"], None, [(None, "rain")]),
        (["0-0.105: rain", "0.105-: dog"], None, [(5, "rain"), (None, "dog")]),
    ],
)
def test_sections_end_at_frames(text: str | list[str], length: int | None, expected: list[Any]) -> None:
    assert Item(text, 0, length).sections(HOP, RATE) == expected


def test_captions_go_side_by_side_however_long_they_are_and_like_lengths_next_to_each_other() -> None:
    items = [Item("rain", 0, RATE * seconds) for seconds in (3, 1, 2)]
    prompted = Item("rain", 0, 3 * RATE, prompt=torch.ones(1, HOP))
    mixed = [*items, Item(["0-1: rain", "1-2: wind"], 0, 2 * RATE), prompted]
    assert together(mixed) == [[1, 2, 0, 4], [3]]
    assert [len(places) for places in together(items * 20)] == [32, 28]
    assert together(items, windows=Windows(50, 10)) == [[0], [1], [2]]
    assert together(items, Sampling(prompt_guidance_scale=2)) == [[0], [1], [2]]
    assert together(items, Sampling(guidance_schedule="linear")) == [[0], [1], [2]]


def together(items: list[Item], sampling: Sampling = PLAIN, windows: Windows = AT_ONCE) -> list[list[int]]:
    return list(batches([item.shape(HOP, RATE) for item in items], [item.free(sampling, windows) for item in items]))


def test_only_equal_shapes_are_made_together() -> None:
    items = [Item("a", 0, 800), Item(["0-0.1: a"], 0, 800), Item("b", 0, 801), Item(["0-0.04: a"], 0, 800)]
    assert list(alike([item.shape(HOP, RATE) for item in items])) == [[0, 1], [2], [3]]
    assert [len(places) for places in alike([(1,)] * 70)] == [32, 32, 6]


@pytest.mark.parametrize(
    ("window", "overlap", "text", "expected"),
    [
        (None, None, "a", Windows(None, 50)),
        (None, 0.5, ["0-: a"], Windows(None, 25)),
        (10.0, None, "a", Windows(500, 150)),
        (10.0, 0, "a", Windows(500, 0)),
        (0.001, None, "a", Windows(1, 0)),
    ],
)
def test_windows_in_seconds_become_frames(
    window: float | None, overlap: float | None, text: str | list[str], expected: Windows
) -> None:
    assert windows_of(window, overlap, [text], RATE / HOP) == expected


@pytest.mark.parametrize("wrong", [None, 0, -1.0, math.nan, math.inf])
def test_a_length_is_a_positive_number(wrong: float | None) -> None:
    with pytest.raises(ValueError, match=f"chunk is {wrong}: ask for a positive number"):
        samples_of(wrong, RATE, "chunk")


def test_what_a_text_says_of_its_length() -> None:
    assert (length_of("0-4: rain"), length_of(["0-4: rain", "4-6: dog"]), length_of(["0-: rain"])) == (None, 6, None)


def test_a_length_for_each_item_or_one_for_all() -> None:
    assert lengths_of(0.5, 2, RATE) == [4000, 4000] and lengths_of([0.5, 1], 2, RATE) == [4000, 8000]
    with pytest.raises(ValueError, match="1 lengths for 2 items: give one for each, or a single one"):
        lengths_of([0.5], 2, RATE)


def test_each_item_has_its_own_of_what_is_said_once() -> None:
    assert seeds_of(5, 3) == [5, 6, 7] and seeds_of(range(2), 2) == [0, 1]
    assert negatives_of("rain", 2) == ["rain", "rain"] and negatives_of(("a", "b"), 2) == ["a", "b"]
