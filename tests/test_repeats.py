"""Repeats: out and in again."""

from __future__ import annotations

import pytest
import torch

from audiolm_kit.repeats import deduplicate, repeat


def test_no_frame_without_repeats_equals_the_one_before_it() -> None:
    runs = deduplicate(torch.tensor([[5, 5, 2, 2, 2, 5, 7]]))
    assert runs.codes.tolist() == [[5, 2, 5, 7]]
    assert runs.lengths.tolist() == [2, 3, 1, 1]


def test_a_frame_is_a_repeat_only_where_all_its_codebooks_repeat() -> None:
    runs = deduplicate(torch.tensor([[1, 1, 1], [4, 4, 6]]))
    assert runs.codes.tolist() == [[1, 1], [4, 6]]


@pytest.mark.parametrize("length", [0, 1, 40])
def test_repeating_gives_back_what_was_there(length: int) -> None:
    codes = torch.randint(3, (1, length), generator=torch.Generator().manual_seed(0))
    assert torch.equal(repeat(deduplicate(codes)), codes)


def test_a_batch_is_refused_as_its_rows_come_out_unequally_long() -> None:
    with pytest.raises(ValueError, match="wanted \\[codebooks, frames\\] of one recording"):
        deduplicate(torch.zeros(2, 1, 4, dtype=torch.long))
