"""Shards give back what was written, and refuse what is not theirs."""

from __future__ import annotations

import json
import pickle
import socket
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from audiolm_kit.data.shards import (
    METADATA,
    SCHEMA,
    Part,
    Skipped,
    TokenFormat,
    TokenRow,
    open_shards,
    part_path,
    read_part,
    write_part,
    write_shards,
)

FORMAT = TokenFormat(fingerprint="c0dec", num_codebooks=3, codebook_size=65536, frame_rate=12.5, sample_rate=16000)


def make_rows(count: int, seed: int = 0) -> list[TokenRow]:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index in range(count):
        codes = torch.randint(0, FORMAT.codebook_size, (3, 4 + index), generator=generator)
        rows.append(
            TokenRow(
                codes, f"text {index} ä", f"clips/{index}.wav", index, 0.1, 1 / 3, f"speaker {index}", "bell", "train"
            )
        )
    return rows


def assert_same_rows(found: list[TokenRow], wanted: list[TokenRow]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.codes.dtype == torch.int64
        assert torch.equal(one.codes, other.codes)
        assert one[1:] == other[1:]


@pytest.mark.parametrize("rows_per_shard", [1, 2, 100])
def test_rows_come_back_exactly(tmp_path: Path, rows_per_shard: int) -> None:
    rows = [*make_rows(5), TokenRow(torch.tensor([[0], [65535], [1]]))]
    write_shards(tmp_path, rows, FORMAT, rows_per_shard)
    shards = open_shards(tmp_path, "c0dec")
    assert shards.format == FORMAT
    assert_same_rows(list(shards), rows)
    assert shards.texts == [row.text for row in rows]
    assert shards.num_frames.tolist() == [row.codes.shape[1] for row in rows]


def test_several_folders_are_read_in_the_order_given(tmp_path: Path) -> None:
    first, second = make_rows(2, seed=1), make_rows(3, seed=2)
    write_shards(tmp_path / "b", first, FORMAT)
    write_shards(tmp_path / "a", second, FORMAT)
    assert_same_rows(list(open_shards([tmp_path / "b", tmp_path / "a"])), first + second)


def test_shards_survive_pickling_for_loader_workers(tmp_path: Path) -> None:
    rows = make_rows(3)
    write_shards(tmp_path, rows, FORMAT)
    assert_same_rows(list(pickle.loads(pickle.dumps(open_shards(tmp_path)))), rows)


def test_opening_needs_no_network_and_writes_only_beside_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    write_shards(tmp_path / "tokens", make_rows(2), FORMAT)
    assert len(open_shards(tmp_path / "tokens")) == 2
    assert {path.name for path in (tmp_path / "tokens").iterdir()} == {"part-00000.parquet", ".cache"}


def test_rewritten_shards_are_not_read_from_an_old_cache(tmp_path: Path) -> None:
    write_shards(tmp_path, make_rows(2, seed=1), FORMAT)
    open_shards(tmp_path)
    rows = make_rows(2, seed=2)
    write_shards(tmp_path, rows, FORMAT)
    assert_same_rows(list(open_shards(tmp_path)), rows)


def test_another_codecs_codes_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, make_rows(1), FORMAT)
    with pytest.raises(ValueError, match="codec c0dec, wanted those of codec 0ther") as caught:
        open_shards(tmp_path, fingerprint="0ther")
    assert "\n" not in str(caught.value)


def test_codes_of_two_codecs_are_refused(tmp_path: Path) -> None:
    write_part(tmp_path, Part(0, 2), make_rows(1), FORMAT)
    write_part(tmp_path, Part(1, 2), make_rows(1), replace(FORMAT, fingerprint="0ther"))
    with pytest.raises(ValueError, match="two codecs"):
        open_shards(tmp_path)


def test_a_cut_off_shard_is_refused(tmp_path: Path) -> None:
    (path,) = write_shards(tmp_path, make_rows(4), FORMAT)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="not a whole Parquet file") as caught:
        open_shards(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_pages_are_refused_in_one_line(tmp_path: Path) -> None:
    (path,) = write_shards(tmp_path, make_rows(4), FORMAT)
    content = bytearray(path.read_bytes())
    content[8:200] = bytes(192)
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="cannot be read") as caught:
        open_shards(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (path,) = write_shards(tmp_path, make_rows(1), FORMAT)
    pq.write_table(pq.read_table(path).drop_columns(["text", "label"]), path)
    with pytest.raises(ValueError, match="lacks the columns text, label"):
        open_shards(tmp_path)


def test_a_foreign_parquet_file_is_refused(tmp_path: Path) -> None:
    (path,) = write_shards(tmp_path, make_rows(1), FORMAT)
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    with pytest.raises(ValueError, match="no token shard"):
        open_shards(tmp_path)


def test_an_unfinished_folder_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, make_rows(3), FORMAT, rows_per_shard=1)
    part_path(tmp_path, 1).unlink()
    with pytest.raises(FileNotFoundError, match="2 of 3 shards"):
        open_shards(tmp_path)
    with pytest.raises(FileNotFoundError, match="no shard folder"):
        open_shards(tmp_path / "nowhere")


def test_a_part_without_rows_is_skipped_but_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    write_part(tmp_path / "one", Part(0, 2, (Skipped("a.wav", "empty"),)), [], FORMAT)
    write_part(tmp_path / "one", Part(1, 2), make_rows(2), FORMAT)
    assert len(open_shards(tmp_path / "one")) == 2
    assert read_part(part_path(tmp_path / "one", 0))[1].skipped == (Skipped("a.wav", "empty"),)
    write_part(tmp_path / "none", Part(0, 1), [], FORMAT)
    with pytest.raises(ValueError, match="no rows"):
        open_shards(tmp_path / "none")


def test_parts_with_and_without_mixtures_make_one_folder(tmp_path: Path) -> None:
    rows = make_rows(4)
    rows[1] = rows[1]._replace(mixed_with="clips/3.wav")
    rows[3] = rows[3]._replace(mixed_with="clips/0.wav")
    write_shards(tmp_path / "a", rows, FORMAT, rows_per_shard=1)
    assert_same_rows(list(open_shards(tmp_path / "a")), rows)
    write_shards(tmp_path / "b", rows[:1], FORMAT)
    both = open_shards([tmp_path / "b", tmp_path / "a"])
    assert_same_rows(list(pickle.loads(pickle.dumps(both))), rows[:1] + rows)
    assert both.texts == [row.text for row in rows[:1] + rows] and both.num_frames.tolist() == [4, 4, 5, 6, 7]


def test_shards_without_mixtures_are_the_bytes_that_version_0_1_wrote(tmp_path: Path) -> None:
    rows = make_rows(3)
    (path,) = write_shards(tmp_path / "ours", rows, FORMAT)
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names if hasattr(rows[0], name)}
    columns["codes"] = [row.codes.flatten().numpy().astype(np.uint16) for row in rows]
    columns["num_frames"] = [row.codes.shape[1] for row in rows]
    about = {"version": 1, **asdict(FORMAT), "part": 0, "parts": 1, "skipped": []}
    schema = SCHEMA.with_metadata({METADATA: json.dumps(about)})
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "then.parquet", compression="zstd")
    assert (tmp_path / "then.parquet").read_bytes() == path.read_bytes()
    assert SCHEMA.names == "codes num_frames text path variant start seconds speaker label split".split()


@pytest.mark.parametrize(
    "codes", [torch.tensor([[0], [70000], [0]]), torch.tensor([[-1], [0], [0]]), torch.zeros(2, 4).long()]
)
def test_codes_that_do_not_fit_are_never_written(tmp_path: Path, codes: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="wanted"):
        write_shards(tmp_path, [TokenRow(codes)], FORMAT)
    assert list(tmp_path.iterdir()) == []


def test_a_codebook_beyond_16_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bits"):
        replace(FORMAT, codebook_size=65537)
