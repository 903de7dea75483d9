"""Laws of the residual quantiser: its start, its averages, its revivals, its gradients, and ranks that agree.

Run as a script, this file is one of two ranks: ``test_rvq.py RANK STORE FOLDER``.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

import audiolm_kit
from audiolm_kit.codec.rvq import Codebook, QuantizerConfig, ResidualQuantizer, kmeans, nearest

CONFIG = QuantizerConfig(num_codebooks=4, codebook_size=16, dim=3)


def gaussian(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_quantizer(**options: object) -> ResidualQuantizer:
    torch.manual_seed(0)
    return ResidualQuantizer(replace(CONFIG, **options))


def make_codebook(entries: Tensor, **options: object) -> Codebook:
    """A codebook that has started, each entry with the weight of one vector."""
    torch.manual_seed(0)
    book = Codebook(replace(CONFIG, codebook_size=len(entries), dim=entries.shape[1], **options))
    book.embed.copy_(entries)
    book.embed_sum.copy_(entries)
    book.inited.fill_(1)
    return book


def state_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def unchanged(module: torch.nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# --- the start


def test_kmeans_finds_clusters_and_counts_them() -> None:
    centres = torch.tensor([[10.0, 0.0], [0.0, 10.0], [-10.0, -10.0]])
    vectors = (centres[:, None] + 0.1 * gaussian(3, 40, 2)).flatten(0, 1)[: 40 + 40 + 20]
    torch.manual_seed(2)
    centroids, counts = kmeans(vectors, 3, 10)
    order = nearest(centres, centroids)
    torch.testing.assert_close(centroids[order], centres, atol=0.1, rtol=0)
    assert counts[order].tolist() == [40, 40, 20]


def test_kmeans_of_fewer_vectors_than_clusters_puts_them_all_onto_vectors() -> None:
    vectors = gaussian(5, 3)
    torch.manual_seed(0)
    centroids, counts = kmeans(vectors, 16, 3)
    assert counts.sum() == 5 and bool(centroids.isfinite().all())
    assert bool((torch.cdist(centroids, vectors).amin(1) < 1e-4).all())


def test_nearest_is_the_entry_of_least_distance() -> None:
    vectors, entries = gaussian(50, 3), gaussian(16, 3, seed=2)
    assert torch.equal(nearest(vectors, entries), torch.cdist(vectors, entries).argmin(1))


def test_the_first_training_batch_starts_the_codebooks_near_its_clusters() -> None:
    quantizer, latents = make_quantizer(), 5 + gaussian(4, 3, 50)
    assert not any(book.inited for book in quantizer.books)
    distances = quantizer(latents).commitment
    assert all(book.inited for book in quantizer.books)
    assert float(distances) < 0.3 * float(latents.var())
    assert 4 < float(quantizer.books[0].embed.mean()) < 6


# --- the averages


def test_entries_move_to_the_means_of_their_vectors() -> None:
    centres = torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, -4.0]])
    book = make_codebook(centres + 1, decay=0.5)
    vectors = (centres[:, None] + 0.5 * gaussian(3, 30, 2)).flatten(0, 1)
    means = vectors.view(3, 30, 2).mean(1)
    assert torch.cdist(book.embed, means).diagonal().min() > 0.5
    for _ in range(30):
        book.learn(vectors, torch.ones(90))
    torch.testing.assert_close(book.embed, means, atol=1e-3, rtol=0)
    torch.testing.assert_close(book.cluster_size, torch.full((3,), 30.0), atol=1e-3, rtol=0)


def test_one_step_is_the_moving_average_of_sums_over_that_of_counts() -> None:
    book = make_codebook(torch.tensor([[0.0], [10.0]]), decay=0.9)
    book.learn(torch.tensor([[1.0], [3.0], [9.0]]), torch.ones(3))
    sums, counts = torch.tensor([0.9 * 0 + 0.1 * 4, 0.9 * 10 + 0.1 * 9]), torch.tensor([0.9 + 0.2, 0.9 + 0.1])
    torch.testing.assert_close(book.embed[:, 0], sums / counts, atol=1e-3, rtol=0)


def test_dead_codes_are_revived_onto_vectors_of_the_batch() -> None:
    far = torch.tensor([[0.0, 0.0], [1e3, 1e3], [1e3, -1e3]])
    vectors = gaussian(64, 2)
    dying, left = make_codebook(far, decay=0.5), make_codebook(far, decay=0.5, revive_below=0.0)
    for _ in range(12):
        for book in (dying, left):
            book.learn(vectors, torch.ones(64))
    assert dying.embed.abs().max() < 5 and dying.encode(vectors).unique().numel() == 3
    assert left.encode(vectors).unique().numel() == 1
    assert bool(dying.embed.isfinite().all() and left.embed.isfinite().all())


def test_each_codebook_lowers_what_is_left() -> None:
    quantizer = make_quantizer(decay=0.8)
    for seed in range(20):
        quantizer(gaussian(8, 3, 50, seed=seed))
    quantizer.eval()
    latents = gaussian(8, 3, 50, seed=99)  # of the same kind, never seen
    codes = quantizer.encode(latents)
    left = [latents.square().mean()]
    left += [(latents - quantizer.decode(codes[:, :count])).square().mean() for count in range(1, 5)]
    assert all(later < 0.6 * earlier for earlier, later in zip(left, left[1:], strict=False)), left


# --- what is not used


def test_unused_codebooks_add_nothing() -> None:
    quantizer, latents = make_quantizer(), gaussian(3, 3, 20)
    quantizer(latents)
    quantizer.eval()
    made = quantizer(latents, torch.tensor([1, 2, 4]))
    for item, count in enumerate((1, 2, 4)):
        wanted = quantizer.decode(made.codes[item : item + 1, :count])
        torch.testing.assert_close(made.latents[item : item + 1], wanted)
    one = quantizer(latents, torch.tensor([1, 1, 1]))
    distance = (latents - quantizer.decode(one.codes[:, :1])).square().mean()
    torch.testing.assert_close(one.commitment, distance / 4)


def test_unused_codebooks_learn_nothing() -> None:
    quantizer, latents = make_quantizer(), gaussian(3, 3, 20)
    quantizer(latents)
    before = [state_of(book) for book in quantizer.books]
    for _ in range(3):
        quantizer(latents + 1, torch.tensor([2, 1, 2]))
    same = [unchanged(book, old) for book, old in zip(quantizer.books, before, strict=True)]
    assert same == [False, False, True, True]


def test_a_codebook_starts_with_the_first_item_that_uses_it() -> None:
    quantizer, latents = make_quantizer(), gaussian(3, 3, 20)
    quantizer(latents, torch.tensor([1, 2, 1]))
    assert [bool(book.inited) for book in quantizer.books] == [True, True, False, False]


def test_items_that_do_not_use_a_codebook_do_not_move_it() -> None:
    latents = gaussian(2, 3, 40)
    both = make_quantizer(revive_below=0.0)
    both(gaussian(4, 3, 40, seed=3))
    alone = copy.deepcopy(both)
    both(latents, torch.tensor([1, 4]))
    second = latents[1].t()
    assert not unchanged(both.books[1], state_of(alone.books[1]))
    alone.books[1].learn(second - both.books[0].decode(both.books[0].encode(second)), torch.ones(40))
    torch.testing.assert_close(both.books[1].embed, alone.books[1].embed)


# --- gradients and state


def test_the_gradient_passes_straight_through() -> None:
    quantizer, latents, weight = make_quantizer(), gaussian(2, 3, 20).requires_grad_(), gaussian(2, 3, 20, seed=2)
    (quantizer(latents).latents * weight).sum().backward()
    torch.testing.assert_close(latents.grad, weight)


def test_commitment_pulls_latents_to_their_entries() -> None:
    quantizer, latents = make_quantizer().eval(), gaussian(2, 3, 20).requires_grad_()
    made = quantizer(latents)
    (pull,) = torch.autograd.grad(made.commitment, latents)
    with torch.no_grad():
        moved = quantizer(latents - 0.1 * pull / pull.norm())
    assert moved.commitment < made.commitment
    assert not any(parameter.requires_grad for parameter in quantizer.parameters())


def test_codes_are_what_encode_says_and_latents_what_decode_says() -> None:
    quantizer, latents = make_quantizer(), gaussian(2, 3, 20)
    quantizer(latents)
    quantizer.eval()
    made = quantizer(latents)
    assert torch.equal(made.codes, quantizer.encode(latents))
    torch.testing.assert_close(made.latents, quantizer.decode(made.codes))


def trained_quantizer() -> ResidualQuantizer:
    quantizer = make_quantizer(num_codebooks=3).train()
    for step in range(20):
        quantizer(gaussian(8, 3, 50, seed=step))
    return quantizer.eval()


def distances_with_beam(quantizer: ResidualQuantizer, beam: int, latents: Tensor) -> Tensor:
    """The squared distance of each vector to what its codes decode to, [B, T]."""
    searching = ResidualQuantizer(replace(quantizer.config, beam=beam)).eval()
    searching.load_state_dict(quantizer.state_dict())
    return (searching.decode(searching.encode(latents)) - latents).pow(2).sum(1)


def test_a_beam_of_one_takes_the_nearest_entry_of_each_book() -> None:
    quantizer, latents = trained_quantizer(), gaussian(2, 3, 40, seed=99)
    residual, codes = latents.transpose(1, 2), []
    for book in quantizer.books:
        assert isinstance(book, Codebook)
        codes.append(book.encode(residual))
        residual = residual - book.decode(codes[-1])
    assert torch.equal(quantizer.encode(latents), torch.stack(codes, 1))


def test_a_wider_beam_finds_nearer_sums_and_a_full_one_the_nearest_of_all() -> None:
    quantizer, latents = trained_quantizer(), gaussian(2, 3, 40, seed=99)
    greedy, wide, full = (distances_with_beam(quantizer, beam, latents) for beam in (1, 4, 16))
    assert wide.mean() < 0.97 * greedy.mean()
    first, second = (book.embed for book in list(quantizer.books)[:2])
    assert isinstance(first, Tensor) and isinstance(second, Tensor)
    # With two books and every entry of the first kept, nothing is left out: no pair of entries is nearer.
    every = (first[:, None] + second[None]).reshape(-1, 3)
    nearest_pair = torch.cdist(latents.transpose(1, 2), every).pow(2).amin(-1)
    two = ResidualQuantizer(replace(quantizer.config, beam=16)).eval()
    two.load_state_dict(quantizer.state_dict())
    found = (two.decode(two.encode(latents, num_codebooks=2)) - latents).pow(2).sum(1)
    torch.testing.assert_close(found, nearest_pair, rtol=1e-3, atol=1e-4)
    assert full.mean() <= wide.mean()


def test_a_beam_does_not_make_an_item_depend_on_its_neighbours() -> None:
    quantizer = ResidualQuantizer(replace(CONFIG, beam=4)).eval()
    latents = gaussian(3, 3, 10)
    alone = torch.cat([quantizer.encode(item[None]) for item in latents])
    assert torch.equal(quantizer.encode(latents), alone)


def test_evaluation_changes_no_state() -> None:
    quantizer, latents = make_quantizer(), gaussian(2, 3, 20)
    before = state_of(quantizer)
    quantizer.eval()
    quantizer(latents)
    quantizer.decode(quantizer.encode(latents))
    assert unchanged(quantizer, before)
    quantizer.train()
    quantizer.decode(quantizer.encode(latents))
    assert unchanged(quantizer, before)
    quantizer(latents)
    assert not unchanged(quantizer, before)


def test_autocast_does_not_change_the_codes() -> None:
    quantizer, latents = make_quantizer(), gaussian(4, 3, 100)
    quantizer(latents)
    quantizer.eval()
    with torch.autocast("cpu", torch.bfloat16):
        made = quantizer(latents)
    assert torch.equal(made.codes, quantizer.encode(latents))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "beam is 0"),
        ({"num_codebooks": 0}, "at least 1 codebook"),
        ({"dim": 0}, "at least 1 codebook"),
        ({"codebook_size": 65537}, "at most 65536"),
    ],
)
def test_impossible_sizes_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **options)


# --- ranks

SEEN = 12  # steps of the two ranks below


def latents_of(step: int) -> Tensor:
    """The batch of both ranks together: rank 0 has the first two items."""
    return gaussian(4, 3, 25, seed=100 + step)


def share_of(rank: int) -> slice:
    return slice(2 * rank, 2 * rank + 2)


def averages_on_two_ranks(rank: int) -> ResidualQuantizer:
    """Nothing drawn: all ranks start alike, no code is revived."""
    quantizer = make_quantizer(revive_below=0.0)
    for book in quantizer.books:
        book.inited.fill_(1)
    for step in range(SEEN):
        quantizer(latents_of(step)[share_of(rank)])
    return quantizer


def everything_on_two_ranks(rank: int) -> ResidualQuantizer:
    """K-means, revival and quantizer dropout; for a while one rank or both have nothing for the last codebooks."""
    torch.manual_seed(rank)  # also where the ranks draw differently
    quantizer = ResidualQuantizer(replace(CONFIG, decay=0.5, revive_below=0.3))
    for step in range(SEEN):
        most = {0: 4 - 3 * rank, 1: 1 + 3 * rank, 2: 1}.get(step % 4, 4)
        quantizer(latents_of(step)[share_of(rank)] * (1 + step), torch.full((2,), most))
    return quantizer


def run_rank(rank: int, store: str, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for make in (averages_on_two_ranks, everything_on_two_ranks):
        torch.save(make(rank).state_dict(), Path(folder) / f"{make.__name__}-{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the codebooks of two processes that trained together."""
    folder = tmp_path_factory.mktemp("ranks")
    root = str(Path(audiolm_kit.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__]
    given = [str(folder / "store"), str(folder)]
    started = [subprocess.Popen([*command, str(rank), *given], env=environment) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=240) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    return folder


@pytest.mark.parametrize("name", ["averages_on_two_ranks", "everything_on_two_ranks"])
def test_ranks_end_with_the_same_codebooks(ranks: Path, name: str) -> None:
    first, second = (torch.load(ranks / f"{name}-{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(bool(value.isfinite().all()) for value in first.values())
    assert all(bool(first[f"books.{k}.inited"]) for k in range(4))


def test_two_ranks_learn_what_one_would_from_both_their_batches(ranks: Path) -> None:
    quantizer = make_quantizer(revive_below=0.0)
    for book in quantizer.books:
        book.inited.fill_(1)
    for step in range(SEEN):
        quantizer(latents_of(step))
    found = torch.load(ranks / "averages_on_two_ranks-0.pt")
    for key, value in quantizer.state_dict().items():
        torch.testing.assert_close(found[key], value, atol=1e-4, rtol=1e-3)


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), *sys.argv[2:])
