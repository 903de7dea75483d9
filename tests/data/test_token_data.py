"""TokenData's batches are pure functions of seed, step and rank; windows and masks say what is real."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from audiolm_kit.data.modules import TokenBatch, TokenData
from audiolm_kit.data.shards import TokenFormat, TokenRow, write_shards

FORMAT = TokenFormat(fingerprint="c0dec", num_codebooks=2, codebook_size=1000, frame_rate=10.0, sample_rate=1000)
LENGTHS = (3, 5, 8, 20, 20, 20, 20)


def count_up(length: int, row: int) -> Tensor:
    """Codes that name their row and their frame: [2, T]."""
    return torch.stack([torch.full((length,), row), torch.arange(length)])


@pytest.fixture
def folder(tmp_path: Path) -> str:
    rows = [TokenRow(count_up(length, number), f"row {number}") for number, length in enumerate(LENGTHS)]
    write_shards(tmp_path / "train", rows, FORMAT, rows_per_shard=3)
    write_shards(tmp_path / "valid", rows[:5], FORMAT)
    return str(tmp_path / "train")


def make_data(folder: str, **options: object) -> TokenData:
    data = TokenData(folder, **{"frames": 8, "batch_size": 3, **options})
    data.setup("fit")
    return data


def assert_same(one: TokenBatch, other: TokenBatch) -> None:
    assert torch.equal(one.codes, other.codes) and torch.equal(one.mask, other.mask) and one.texts == other.texts


def test_windows_are_pieces_of_rows_and_the_mask_ends_with_the_row(folder: str) -> None:
    data = make_data(folder)
    for step in range(10):
        batch = data.make_batch(step)
        assert batch.codes.shape == (3, 2, 8) and batch.mask.shape == (3, 8) and batch.prefix is None
        for codes, mask, text in zip(batch.codes, batch.mask, batch.texts, strict=True):
            row = int(codes[0, 0])
            assert text == f"row {row}"
            assert int(mask.sum()) == min(8, LENGTHS[row]) and bool(mask[: mask.sum()].all())
            assert torch.equal(codes[:, mask], count_up(LENGTHS[row], row)[:, codes[1, 0] :][:, : mask.sum()])
            assert not codes[:, ~mask].any()


def test_windows_start_anywhere_in_a_long_row(folder: str) -> None:
    batches = [make_data(folder).make_batch(step) for step in range(60)]
    starts = {int(codes[1, 0]) for batch in batches for codes in batch.codes if LENGTHS[int(codes[0, 0])] == 20}
    assert starts == set(range(13))


def test_every_row_comes_once_an_epoch(folder: str) -> None:
    data = make_data(folder, batch_size=1)
    seen = [data.make_batch(step).texts[0] for step in range(14)]
    assert Counter(seen[:7]) == Counter(seen[7:]) == Counter(f"row {number}" for number in range(7))
    assert seen[:7] != seen[7:]


def test_a_batch_depends_on_seed_step_and_rank_alone(folder: str) -> None:
    wanted = make_data(folder).make_batch(5)
    walked = make_data(folder)
    for step in (9, 2, 5):
        batch = walked.make_batch(step)
    assert_same(batch, wanted)
    assert make_data(folder, seed=1).make_batch(5).codes.tolist() != wanted.codes.tolist()


def test_ranks_share_the_rows_of_one_large_batch(folder: str) -> None:
    whole = make_data(folder, batch_size=4).make_batch(3)
    parts = []
    for rank in (0, 1):
        data = make_data(folder, batch_size=2)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, lightning_module=None)
        parts.append(data.make_batch(3))
    assert torch.equal(torch.cat([part.codes for part in parts]), whole.codes)
    assert parts[0].texts + parts[1].texts == whole.texts


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_starts_at_the_tasks_step_with_any_number_of_workers(folder: str, num_workers: int) -> None:
    data = make_data(folder, num_workers=num_workers)
    wanted = [data.make_batch(step) for step in range(4, 7)]
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, lightning_module=SimpleNamespace(batches_seen=4))
    for found, expected in zip(itertools.islice(data.train_dataloader(), 3), wanted, strict=True):
        assert_same(found, expected)


def test_validation_takes_each_row_once_from_its_start(folder: str) -> None:
    data = make_data(folder, valid_shards=folder.replace("train", "valid"))
    batches = list(data.val_dataloader())
    assert [text for batch in batches for text in batch.texts] == [f"row {number}" for number in range(5)]
    assert [len(batch.codes) for batch in batches] == [3, 2]
    assert all(int(codes[1, 0]) == 0 for batch in batches for codes in batch.codes)
    assert make_data(folder).val_dataloader() == []


def test_validation_is_as_long_as_its_longest_window(folder: str) -> None:
    data = make_data(folder, frames=30, valid_shards=folder.replace("train", "valid"))
    assert [batch.codes.shape[-1] for batch in data.val_dataloader()] == [8, 20]
    assert [batch.mask.sum(1).tolist() for batch in data.val_dataloader()] == [[3, 5, 8], [20, 20]]


def test_batches_of_like_lengths_hold_the_same_windows_and_less_padding(folder: str) -> None:
    plain, like = make_data(folder, frames=12), make_data(folder, frames=12, like_lengths=7)

    def windows(data: TokenData) -> list[tuple[object, ...]]:
        batches = [data.make_batch(step) for step in range(7)]
        return sorted(
            (text, tuple(codes[1, mask].tolist())) for b in batches for codes, mask, text in zip(*b[:3], strict=True)
        )

    assert windows(like) == windows(plain)
    batches = [like.make_batch(step) for step in range(7)]
    assert all(batch.codes.shape[-1] == batch.mask.shape[-1] == int(batch.mask.sum(1).max()) for batch in batches)
    empty = [int((~batch.mask).sum()) for batch in batches]
    assert sum(empty) < 0.3 * sum(int((~plain.make_batch(step).mask).sum()) for step in range(7))
    again = make_data(folder, frames=12, like_lengths=7)
    assert_same(again.make_batch(5), batches[5])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_like_lengths_go_on_at_the_tasks_step(folder: str, num_workers: int) -> None:
    data = make_data(folder, like_lengths=3, num_workers=num_workers)
    wanted = [data.make_batch(step) for step in range(2, 5)]  # across the end of a pool
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, lightning_module=SimpleNamespace(batches_seen=2))
    for found, expected in zip(itertools.islice(data.train_dataloader(), 3), wanted, strict=True):
        assert_same(found, expected)


def test_several_folders_are_one_set(folder: str) -> None:
    data = make_data([folder, folder.replace("train", "valid")])
    assert len(data.texts) == 12 and data.format == FORMAT


def test_validation_shards_of_another_codec_are_refused(folder: str, tmp_path: Path) -> None:
    write_shards(tmp_path / "other", [TokenRow(count_up(4, 0))], replace(FORMAT, fingerprint="0ther"))
    with pytest.raises(ValueError, match="wanted those of codec c0dec"):
        make_data(folder, valid_shards=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="frames is 0"):
        TokenData(folder, frames=0)
    with pytest.raises(ValueError, match="like_lengths is -1"):
        TokenData(folder, frames=8, like_lengths=-1)
