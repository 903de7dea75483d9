"""Codebooks: use and entropy by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from audiolm_kit.evaluation.codebooks import bits, counts, entropy, use


def test_counts_are_of_each_sound_and_codebook() -> None:
    found = counts([torch.tensor([[0, 0, 2], [1, 1, 1]]), torch.tensor([[3], [1]])], 4)
    assert found.tolist() == [[[2, 0, 1, 0], [0, 3, 0, 0]], [[0, 0, 0, 1], [0, 1, 0, 0]]]


def test_use_is_the_share_that_occurs_and_entropy_its_bits() -> None:
    codes = [torch.arange(8).repeat(2, 1), torch.zeros(2, 3, dtype=torch.long)]
    found = counts(codes, 16)
    assert use(found)(np.array([1.0, 0.0])) == 0.5 and use(found)(np.array([0.0, 1.0])) == 1 / 16
    assert entropy(found)(np.array([1.0, 0.0])) == pytest.approx(3) and entropy(found)(np.array([0.0, 2.0])) == 0


def test_entropy_is_that_of_scipy() -> None:
    total = np.random.default_rng(0).integers(0, 9, (3, 20)).astype(float)
    assert bits(total) == pytest.approx(scipy_entropy(total, base=2, axis=1))


def test_codes_that_are_none_are_refused() -> None:
    for codes, said in (([], "one frame"), ([torch.zeros(2)], "one frame"), ([torch.full((1, 2), 9)], "from 9 to 9")):
        with pytest.raises(ValueError, match=said):
            counts(codes, 4)
