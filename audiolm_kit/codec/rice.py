"""The logarithm of a magnitude that is partly a tone and partly noise (Rice), in closed forms fitted to it."""

from __future__ import annotations

import math

from torch import Tensor

EULER = 0.5772156649


def mean_log(tonal: Tensor) -> Tensor:
    """The mean of ln |X|, X of power 1, of which a share is a tone and the rest complex Gaussian noise.

    It is (ln t + E1(t / (1 - t))) / 2, the mean of a Rice distribution's logarithm; this is within 0.002 of that.
    """
    return -0.5 * EULER * (1 - tonal.pow(2.685)).clamp_min(1e-12).pow(1.198)


def variance_log(tonal: Tensor) -> Tensor:
    """The variance of the same: pi^2 / 24 of noise alone, 0 of a tone; within 0.005 of what draws show."""
    return math.pi**2 / 24 * (1 - tonal.pow(3.103)).clamp_min(1e-12).pow(1.494)
