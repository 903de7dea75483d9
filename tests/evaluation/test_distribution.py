"""Distances of sets: scipy's and torchmetrics' values, a set from itself, and what they must not depend on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.spatial.distance import cdist, pdist
from torch import Tensor

from audiolm_kit.evaluation.distribution import (
    SCALE,
    divergence,
    frechet,
    frechet_distance,
    inception,
    kernel,
    kernel_distance,
)

Distance = Callable[[Tensor, Tensor], float]
DISTANCES: list[Distance] = [frechet_distance, kernel_distance]


def points(count: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    """Correlated, far from the origin, of unlike scales."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mixing + 5 + shift


def scipy_frechet(first: Tensor, second: Tensor) -> float:
    """As the papers write it down."""
    a, b = (np.atleast_2d(np.cov(each.numpy(), rowvar=False)) for each in (first, second))
    means = ((first.mean(0) - second.mean(0)) ** 2).sum()
    return float(means + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real))


@pytest.mark.parametrize(("count", "other", "width"), [(50, 50, 8), (200, 70, 16), (30, 90, 1)])
def test_the_frechet_distance_is_that_of_scipy(count: int, other: int, width: int) -> None:
    first, second = points(count, width, 0), points(other, width, 1, shift=0.3)
    assert frechet_distance(first, second) == pytest.approx(scipy_frechet(first, second), rel=1e-7)


def test_fewer_sounds_than_dimensions_have_the_distance_of_singular_covariances() -> None:
    first, second = points(6, 20, 0), points(9, 20, 1)
    assert frechet_distance(first, second) == pytest.approx(scipy_frechet(first, second), rel=1e-4)  # theirs is rough
    padded = [torch.cat([each, torch.zeros(len(each), 40)], 1) for each in (first, second)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(first, second), rel=1e-10)


@pytest.mark.slow  # torchmetrics takes seconds to import
def test_the_frechet_distance_is_that_of_torchmetrics() -> None:
    theirs = pytest.importorskip("torchmetrics.image.fid")._compute_fid
    first, second = points(100, 12, 0), points(80, 12, 1, shift=1.0)
    wanted = theirs(first.mean(0), first.T.cov(), second.mean(0), second.T.cov())
    assert frechet_distance(first, second) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("count", [3, 40, 400])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_set_is_at_nought_from_itself(count: int, scale: float) -> None:
    own = scale * torch.randn(count, 64, generator=torch.Generator().manual_seed(1)) + scale
    assert frechet_distance(own, own) < 1e-6
    assert frechet_distance(own, own.flip(0)) < 1e-6


def test_a_shift_alone_is_the_square_of_its_length() -> None:
    own = points(50, 5, 0)
    assert frechet_distance(own, own + 2) == pytest.approx(5 * 4, rel=1e-9)


def test_normals_of_one_dimension_have_their_closed_form() -> None:
    own = points(1000, 1, 0)
    wanted = (own.std() - (3 * own).std()) ** 2 + (own.mean() - 3 * own.mean()) ** 2
    assert frechet_distance(own, 3 * own) == pytest.approx(float(wanted), rel=1e-9)


def test_the_kernel_distance_is_that_of_scipys_distances() -> None:
    first, second = points(30, 7, 0), points(20, 7, 1, shift=1.0)
    width = np.median(pdist(first.numpy()))
    inside, outside, between = (
        np.exp(-cdist(a, b, "sqeuclidean") / (2 * width**2))
        for a, b in ((first, first), (second, second), (first, second))
    )
    own, other = (inside.sum() - 30) / (30 * 29), (outside.sum() - 20) / (20 * 19)
    assert kernel_distance(first, second) == pytest.approx(SCALE * (own + other - 2 * between.mean()), rel=1e-9)


def test_the_kernel_distance_of_one_kind_is_nought_on_average_however_few() -> None:
    for count in (5, 40):
        found = [kernel_distance(points(count, 4, 2 * seed), points(count, 4, 2 * seed + 1)) for seed in range(200)]
        error = np.std(found) / math.sqrt(len(found))
        assert abs(np.mean(found)) < 4 * error
        assert min(found) < 0


def test_a_sound_that_counts_twice_makes_no_pair_with_itself() -> None:
    first, second = points(12, 4, 0), points(12, 4, 1, shift=1.0)
    generator, statistic = np.random.default_rng(0), kernel(first, second)
    drawn = [
        statistic(*(generator.multinomial(12, np.full(12, 1 / 12)).astype(float) for _ in range(2)))
        for _ in range(2000)
    ]
    assert np.mean(drawn) == pytest.approx(kernel_distance(first, second), abs=4 * np.std(drawn) / math.sqrt(2000))


def test_pairs_leave_their_own_out() -> None:
    first = points(12, 4, 0)
    second = first + points(12, 4, 1) / 9
    ones, width = np.ones(12), np.median(pdist(first.numpy()))
    inside, outside, between = (
        np.exp(-cdist(a, b, "sqeuclidean") / (2 * width**2))
        for a, b in ((first, first), (second, second), (first, second))
    )
    apart = ~np.eye(12, dtype=bool)
    wanted = SCALE * (inside[apart].mean() + outside[apart].mean() - 2 * between[apart].mean())
    assert kernel(first, second, pairs=True)(ones, ones) == pytest.approx(wanted, rel=1e-9)
    assert kernel(first, first, pairs=True)(ones, ones) == pytest.approx(0, abs=1e-9)
    assert kernel_distance(first, first) < -1
    with pytest.raises(ValueError, match="12 references and 11 sounds make no pairs"):
        kernel(first, second[1:], pairs=True)


@pytest.mark.parametrize("make", [frechet, kernel])
def test_weights_are_repetitions(make: Callable[..., Callable[..., float]]) -> None:
    first, second = points(10, 3, 0), points(8, 3, 1)
    weights = np.array([2, 0, 1, 1, 3, 0, 1, 1, 1, 0], float)
    again = first.repeat_interleave(torch.from_numpy(weights).long(), 0)
    found = make(first, second)(weights, np.ones(8))
    if make is frechet:
        assert found == pytest.approx(frechet_distance(again, second), rel=1e-9)
    else:
        assert found != pytest.approx(kernel_distance(again, second))  # which counts pairs of one sound with itself


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_do_not_depend_on_order(distance: Distance) -> None:
    first, second = points(20, 6, 0), points(15, 6, 1, shift=0.5)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    assert distance(first[order], second.flip(0)) == pytest.approx(distance(first, second), rel=1e-9)


def test_distances_do_not_depend_on_a_turn_of_the_space() -> None:
    first, second = points(40, 6, 0), points(35, 6, 1, shift=0.5)
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))).Q
    for distance in DISTANCES:
        assert distance(first @ turn, second @ turn) == pytest.approx(distance(first, second), rel=1e-8)


def test_the_frechet_distance_is_symmetric() -> None:
    first, second = points(20, 6, 0), points(15, 6, 1, shift=0.5)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-9)


@pytest.mark.parametrize("distance", DISTANCES)
def test_more_noise_is_farther(distance: Distance) -> None:
    first, noise = points(200, 6, 0), torch.randn(200, 6, generator=torch.Generator().manual_seed(5))
    found = [distance(first, points(200, 6, 1) + level * noise) for level in (0, 1, 3, 9)]
    assert found == sorted(found) and found[0] < found[-1]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 5), "4 and 5 wide: embed both sets by one model"),
        (torch.zeros(1, 4), torch.zeros(3, 4), r"references are \[1, 4\]"),
        (torch.randn(3, 4), torch.zeros(3), r"sounds are \[3\]"),
        (torch.randn(3, 4), torch.full((3, 4), math.nan), "sounds hold NaN"),
    ],
)
def test_what_has_no_distance_is_refused(distance: Distance, first: Tensor, second: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        distance(first, second)


def test_references_that_are_all_alike_have_no_kernel() -> None:
    with pytest.raises(ValueError, match="more than half of the 4 references are alike"):
        kernel_distance(torch.ones(4, 3), torch.randn(4, 3))


# --- classifiers ------------------------------------------------------------------------------------------------------


def verdicts(count: int, classes: int, seed: int) -> Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)).mul(2).double().softmax(-1)


def test_the_divergence_is_that_of_torch_and_nought_to_itself() -> None:
    real, made = verdicts(6, 5, 0), verdicts(6, 5, 1)
    wanted = torch.nn.functional.kl_div(made.log(), real, reduction="none").sum(-1)
    assert torch.allclose(divergence(real, made), wanted)
    assert torch.equal(divergence(real, real), torch.zeros(6, dtype=torch.float64))


def test_a_class_that_is_never_heard_leaves_the_divergence_a_number() -> None:
    real, made = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert 10 < float(divergence(real, made)) < 20


def test_the_inception_score_reaches_from_one_to_the_number_of_classes() -> None:
    assert inception(torch.full((7, 4), 0.25))(np.ones(7)) == pytest.approx(1)
    assert inception(torch.eye(4).repeat(3, 1))(np.ones(12)) == pytest.approx(4)
    assert inception(torch.eye(4)[:1].repeat(3, 1))(np.ones(3)) == pytest.approx(1)  # clear, but always the same


def test_the_inception_score_is_the_exponential_of_mutual_information() -> None:
    made = verdicts(50, 6, 0)
    mean = made.mean(0)
    wanted = (made * (made.log() - mean.log())).sum(-1).mean().exp()
    assert inception(made)(np.ones(50)) == pytest.approx(float(wanted))


@pytest.mark.slow  # torchmetrics takes seconds to import
def test_the_inception_score_is_that_of_torchmetrics() -> None:
    theirs = pytest.importorskip("torchmetrics.image.inception").InceptionScore

    class Logits(torch.nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            return given.flatten(1).float()

    made = verdicts(40, 9, 3)
    metric = theirs(feature=Logits(), splits=1)
    metric.update(made.log()[:, :, None, None])
    assert inception(made)(np.ones(40)) == pytest.approx(float(metric.compute()[0]), rel=1e-5)


def test_what_is_no_probability_is_refused() -> None:
    for given in (torch.ones(3, 4), torch.tensor([[1.5, -0.5]]), torch.ones(3), torch.zeros(0, 4)):
        with pytest.raises(ValueError, match="wanted probabilities"):
            inception(given)
    with pytest.raises(ValueError, match="give pairs"):
        divergence(verdicts(3, 4, 0), verdicts(2, 4, 0))
