"""K-means standardises by the whole stream and finds clusters, the same for the same seed; it says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiolm_kit.semantic.kmeans import Sample, assign, fit_kmeans


def batches(*sizes: int, dim: int = 3, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    scale = np.array([1.0, 100.0, 0.01])[:dim]
    return [(draw.normal(size=(size, dim)) * scale + 5 * scale).astype(np.float32) for size in sizes]


def test_two_clear_clusters_are_found_whatever_their_scale() -> None:
    draw = np.random.default_rng(1)
    near = draw.normal(size=(300, 2)) * [0.01, 100] + [0.0, 0.0]
    far = draw.normal(size=(200, 2)) * [0.01, 100] + [1.0, 0.0]  # apart in the dimension of the smaller numbers
    found = fit_kmeans([near.astype(np.float32), far.astype(np.float32)], 2)
    frames = torch.from_numpy(np.concatenate([near, far]).astype(np.float32))
    codes = assign((frames - found.mean) / found.deviation, found.centroids)
    assert len(codes[:300].unique()) == len(codes[300:].unique()) == 1 and codes[0] != codes[-1]


def test_mean_and_deviation_are_those_of_the_whole_stream_though_few_frames_are_kept() -> None:
    parts = batches(10, 1, 500, 0, 200)
    found = fit_kmeans(parts, 4, max_frames=50)
    whole = np.concatenate(parts).astype(np.float64)
    np.testing.assert_allclose(found.mean, whole.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.deviation, whole.std(0), rtol=1e-5)


def test_the_sample_is_uniform_and_whole_while_it_fits() -> None:
    sample = Sample(100, 0)
    for first in range(0, 60, 7):
        sample.add(np.arange(first, min(60, first + 7), dtype=np.float32)[:, None])
    assert sample.frames[:, 0].tolist() == list(range(60))
    counts = np.zeros(40)
    for seed in range(400):
        sample = Sample(10, seed)
        for first in range(0, 40, 8):
            sample.add(np.arange(first, first + 8, dtype=np.float32)[:, None])
        assert len(set(sample.frames[:, 0])) == 10
        counts[sample.frames[:, 0].astype(int)] += 1
    assert counts.sum() == 4000 and 60 < counts.min() and counts.max() < 140  # 100 each, but for chance


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    one, same, other = (fit_kmeans(batches(2000), 8, seed, max_frames=500) for seed in (3, 3, 4))
    assert torch.equal(one.centroids, same.centroids)
    assert not torch.equal(one.centroids, other.centroids)


def test_a_dimension_that_never_changes_has_deviation_1() -> None:
    parts = [np.concatenate([part, np.full((len(part), 1), 0.1, np.float32)], axis=1) for part in batches(100, 50)]
    assert float(fit_kmeans(parts, 3).deviation[3]) == 1


def test_codes_are_the_nearest_centroids() -> None:
    frames, centroids = torch.randn(2, 5, 6), torch.randn(7, 6)
    wanted = (frames[..., None, :] - centroids).square().sum(-1).argmin(-1)
    assert torch.equal(assign(frames, centroids), wanted)
    assert assign(torch.zeros(1, 2), torch.tensor([[1.0, 0], [-1, 0]])).tolist() == [0]


@pytest.mark.parametrize(
    ("parts", "size", "message"),
    [
        (batches(5, 3), 9, "8 frames are too few for 9 centroids: give more recordings"),
        ([], 2, "0 frames are too few for 2 centroids"),
        ([np.ones((50, 3), np.float32)], 4, "only 1 of 4 centroids differ"),
        ([*batches(5), np.full((2, 3), np.nan)], 2, "behind the first 5 hold NaN"),
        ([*batches(5), np.ones((2, 4))], 2, r"shape \[2, 4\], wanted \[N, 3\]"),
        ([np.ones(4)], 2, r"shape \[4\], wanted \[N, D\]"),
        (batches(5), 0, "codebook_size is 0"),
        (batches(5), 501, "codebook_size is 501 and max_frames 500"),
    ],
)
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_what_cannot_be_is_refused(parts: list[np.ndarray], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_kmeans(parts, size, max_frames=500)
