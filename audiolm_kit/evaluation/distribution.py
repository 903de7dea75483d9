"""How far two sets of sounds are from one another: Frechet and kernel distances, and what classifiers make of them.

Shapes: N and M sounds, D width of an embedding, C classes. Weights [N] say how often each sound counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

SCALE = 1000.0
"""What kernel distances are multiplied by, so that they are numbers to be read; kadtk, of its authors, takes 100."""
_RARE = 1e-12  # the least probability whose logarithm is taken

Weights = np.ndarray


def frechet(reference: Tensor, made: Tensor) -> Callable[[Weights, Weights], float]:
    """The Frechet distance of two sets of embeddings [N, D] and [M, D], as a function of both sets' weights.

    Both are taken for normal distributions: the squared distance of their means, and Tr(A + B - 2 sqrt(AB)) of their
    covariances (Heusel et al. 2017; of sounds Kilgour et al. 2019). No root of a covariance is taken: with centred data
    X and Y, Tr sqrt(AB) is the sum of the singular values of X Y^T, so that a set is at 0 from itself, also where it
    has fewer sounds than dimensions. It is biased: the fewer sounds, the larger.

    Raises:
        ValueError: Not two matrices of one width, of at least two sounds each, of finite numbers.
    """
    first, second = _in_their_span(*_matrices(reference, made))

    def distance(left: Weights, right: Weights) -> float:
        (mean, factor), (other_mean, other) = _moments(first, left), _moments(second, right)
        shared = torch.linalg.svdvals(factor @ other.T).sum()
        spread = factor.square().sum() + other.square().sum() - 2 * shared
        return float(((mean - other_mean).square().sum() + spread).clamp_min(0))

    return distance


def frechet_distance(reference: Tensor, made: Tensor) -> float:
    """As ``frechet``, every sound counted once."""
    return frechet(reference, made)(np.ones(len(reference)), np.ones(len(made)))


def kernel(reference: Tensor, made: Tensor, pairs: bool = False) -> Callable[[Weights, Weights], float]:
    """The kernel audio distance (arXiv:2502.15602) of [N, D] and [M, D], as a function of both sets' weights.

    It is the maximum mean discrepancy, squared and times ``SCALE``, in its unbiased estimate: near 0, also a little
    below, for two sets of one kind, however few they are. The kernel is Gaussian, as wide as the median distance of
    two references. A sound that counts twice makes no pair with itself.

    Args:
        pairs: What stands in one place of both belongs together (a recording and what a codec leaves of it), and is
            weighed together: then a sound is not compared with its own reference, which would make the estimate too
            low. A set is at 0 from itself.

    Raises:
        ValueError: As ``frechet``, the references are all alike, or pairs are two unequal sets.
    """
    first, second = _matrices(reference, made)
    if pairs and len(first) != len(second):
        raise ValueError(f"{len(first)} references and {len(second)} sounds make no pairs: give as many of both")
    width = float(np.median(torch.nn.functional.pdist(first).numpy()))
    if width == 0:
        raise ValueError(f"more than half of the {len(first)} references are alike: a kernel wants sounds that differ")
    inside, outside, between = (_gaussian(*pair, width) for pair in ((first, first), (second, second), (first, second)))

    def distance(left: Weights, right: Weights) -> float:
        across = _pairs(between, left) if pairs else left @ between @ right / (left.sum() * right.sum())
        return float(SCALE * (_pairs(inside, left) + _pairs(outside, right) - 2 * across))

    return distance


def kernel_distance(reference: Tensor, made: Tensor) -> float:
    """As ``kernel``, every sound counted once."""
    return kernel(reference, made)(np.ones(len(reference)), np.ones(len(made)))


def divergence(reference: Tensor, made: Tensor) -> Tensor:
    """KL(reference || made) of the classes' probabilities of each pair of sounds, [N, C] twice -> [N] in nats.

    Raises:
        ValueError: They are no probabilities of the same sounds and classes.
    """
    if reference.shape != made.shape:
        raise ValueError(f"probabilities are {list(reference.shape)} and {list(made.shape)}: give pairs of sounds")
    real, heard = probabilities(reference), probabilities(made)
    return (real * (real.clamp_min(_RARE).log() - heard.clamp_min(_RARE).log())).sum(-1).clamp_min(0)


def inception(made: Tensor) -> Callable[[Weights], float]:
    """The inception score of probabilities [N, C], as a function of the sounds' weights: 1 to C, higher is better.

    exp of the mean KL(p(class | sound) || p(class)) (Salimans et al. 2016), over all sounds at once and not over splits
    of them: high where each sound is clearly of one class, and all classes are there.
    """
    heard = probabilities(made).numpy()
    logs = np.log(np.maximum(heard, _RARE))
    clear = (heard * logs).sum(-1)

    def score(weights: Weights) -> float:
        share = weights / weights.sum()
        mean = share @ heard
        return math.exp(max(0.0, float(share @ clear - mean @ np.log(np.maximum(mean, _RARE)))))

    return score


def probabilities(given: Tensor) -> Tensor:
    """[N, C] as float64, if its rows are probabilities."""
    rows = given.double()
    sums = rows.sum(-1) if rows.dim() == 2 and rows.numel() else torch.zeros(1)
    if not bool(torch.isfinite(sums).all()) or float((sums - 1).abs().max()) > 1e-3 or float(rows.min()) < 0:
        raise ValueError(f"a classifier's answer is {list(given.shape)}, wanted probabilities [N, C] that add up to 1")
    return rows


def _matrices(reference: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64 on the CPU, less what they have in common."""
    for name, given in (("references", reference), ("sounds", made)):
        if given.dim() != 2 or len(given) < 2:
            raise ValueError(f"embeddings of the {name} are {list(given.shape)}: a distance wants [N, D] of 2 at least")
        if not bool(torch.isfinite(given).all()):
            raise ValueError(f"embeddings of the {name} hold NaN or infinite numbers: look at the embedder")
    if reference.shape[1] != made.shape[1]:
        raise ValueError(f"embeddings are {reference.shape[1]} and {made.shape[1]} wide: embed both sets by one model")
    first, second = reference.detach().cpu().double(), made.detach().cpu().double()
    middle = first.mean(0)
    return first - middle, second - middle


def _in_their_span(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The same points in as few dimensions as they need: fewer sounds than dimensions cost less then."""
    both = torch.cat([first, second])
    if len(both) >= both.shape[1]:
        return first, second
    basis = torch.linalg.qr(both.T).Q  # [D, N + M]
    return first @ basis, second @ basis


def _moments(vectors: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """Mean [D], and some F [.., D] whose F^T F is the covariance."""
    counts = torch.from_numpy(weights)
    mean = counts @ vectors / counts.sum()
    factor = (vectors - mean) * (counts / (counts.sum() - 1)).sqrt()[:, None]
    return mean, torch.linalg.qr(factor, mode="r").R if len(factor) > factor.shape[1] else factor


def _gaussian(first: Tensor, second: Tensor, width: float) -> np.ndarray:
    """The kernel of all pairs, [N, M]."""
    apart = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    found: np.ndarray = (-0.5 * (apart / width).square()).exp().numpy()
    return found


def _pairs(values: np.ndarray, weights: Weights) -> float:
    """The mean of [N, N] over different places."""
    squares = weights @ weights
    alike = float((weights**2) @ np.diagonal(values))
    return float(weights @ values @ weights - alike) / max(float(weights.sum() ** 2 - squares), 1e-12)
