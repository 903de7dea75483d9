"""Warping: many pairs at once as a plain loop does each, and the same whatever stands beside them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from audiolm_kit.evaluation import warping
from audiolm_kit.evaluation.warping import distances, warp


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_frames(length: int, width: int, seed: int) -> Tensor:
    return torch.randn(length, width, generator=generator(seed), dtype=torch.float64)


def plain_warp(costs: np.ndarray) -> float:
    """The mean along the cheapest path, of several the shortest, found as the definition says: cell by cell."""
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for i, j in np.ndindex(*costs.shape):
        before = [best[cell] for cell in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if cell in best]
        total, length = min(before) if before else (0.0, 0)
        best[i, j] = (total + costs[i, j], length + 1)
    total, length = best[costs.shape[0] - 1, costs.shape[1] - 1]
    return total / length


def plain_distance(first: Tensor, second: Tensor, kind: str) -> float:
    """A distance by its definition, frame by frame."""
    costs = np.zeros((len(first), len(second)))
    for i, j in np.ndindex(*costs.shape):
        one, two = first[i].double(), second[j].double()
        if kind == "mismatch":
            costs[i, j] = float((one != two).double().mean())
        elif kind == "euclidean":
            costs[i, j] = float((one - two).norm())
        else:
            cosine = float(one @ two / (one.norm() * two.norm()))
            costs[i, j] = math.acos(min(1.0, max(-1.0, cosine))) / math.pi
    return plain_warp(costs)


@pytest.mark.parametrize("kind", ["angular", "euclidean"])
def test_distances_of_features_are_those_of_a_plain_loop(kind: str) -> None:
    first = [random_frames(length, 6, length) for length in (1, 4, 7, 3)]
    second = [random_frames(length, 6, 50 + length) for length in (5, 1, 2)]
    found = distances(first, second, kind)
    wanted = torch.tensor([[plain_distance(one, two, kind) for two in second] for one in first], dtype=torch.float64)
    assert torch.allclose(found, wanted, atol=1e-7)


@pytest.mark.parametrize("codebooks", [1, 3])
def test_distances_of_codes_are_those_of_a_plain_loop(codebooks: int) -> None:
    codes = [torch.randint(0, 3, (codebooks, length), generator=generator(length)) for length in (1, 6, 4, 9)]
    found = distances(codes, codes, "mismatch")
    wanted = [[plain_distance(one.T, two.T, "mismatch") for two in codes] for one in codes]
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float64))
    if codebooks == 1:
        assert torch.equal(found, distances([each[0] for each in codes], codes, "mismatch"))


def test_a_distance_does_not_depend_on_what_is_compared_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = [random_frames(length, 6, length) for length in (2, 9, 5, 5, 30)]
    together = distances(sounds, sounds)
    alone = torch.tensor([[float(distances([one], [two])) for two in sounds] for one in sounds], dtype=torch.float64)
    assert torch.allclose(together, alone, atol=1e-12)
    monkeypatch.setattr(warping, "CELLS", 1)  # pair by pair
    assert torch.allclose(distances(sounds, sounds), together, atol=1e-12)


def test_distances_are_symmetric_and_none_to_itself() -> None:
    for kind, sounds in (
        ("angular", [random_frames(length, 6, length) for length in (4, 7, 12)]),
        ("euclidean", [100 * random_frames(length, 6, length) for length in (4, 7, 12)]),
        ("mismatch", [torch.randint(0, 3, (8,), generator=generator(seed)) for seed in range(3)]),
    ):
        found = distances(sounds, sounds, kind)
        assert torch.allclose(found, found.T, atol=1e-9)
        assert torch.equal(found.diagonal(), torch.zeros(3, dtype=torch.float64))


def test_slower_speech_is_the_same_speech() -> None:
    sound = random_frames(6, 4, 0)
    assert float(distances([sound], [sound.repeat_interleave(3, dim=0)])) == 0


def test_of_several_cheapest_paths_the_shortest_counts() -> None:
    # Straight through it costs 1 + 1, and so it does on the way around, 1 + 0 + 1, which a mean would make cheaper.
    costs = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[..., None]
    assert float(warp(costs, torch.tensor([2]), torch.tensor([2]))) == 1.0


@pytest.mark.parametrize(
    ("first", "second", "kind", "said"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 5), "angular", r"\[4, 5\] wide"),
        (torch.zeros(3, 4), torch.zeros(0, 4), "angular", r"\[0, 4\], wanted features"),
        (torch.zeros(3), torch.zeros(3), "angular", r"\[3\], wanted features"),
        (torch.full((3, 4), math.nan), torch.zeros(3, 4), "euclidean", "NaN"),
        (torch.zeros(3, 4), torch.zeros(3, 4), "mismatch", "features cannot be compared by mismatch"),
        (torch.zeros(3).long(), torch.zeros(3).long(), "angular", "codes cannot be compared by angular"),
        (torch.zeros(3, 4), torch.zeros(3, 4), "cosine", "'cosine': give one of angular, euclidean, mismatch"),
        (torch.zeros(0).long(), torch.zeros(3).long(), "mismatch", "of one frame at least"),
    ],
)
def test_what_cannot_be_compared_is_refused(first: Tensor, second: Tensor, kind: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        distances([first], [second], kind)  # type: ignore[arg-type]
