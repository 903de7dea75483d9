"""Rows of two tokenizers find each other by recording, and runs that do not belong together are refused by name."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audiolm_kit.data.augment import draw_variation
from audiolm_kit.data.pairs import Pairs, joined
from audiolm_kit.data.shards import TokenFormat, TokenRow, open_shards, write_shards

SEMANTIC = TokenFormat("5emantic", num_codebooks=1, codebook_size=500, frame_rate=5.0, sample_rate=1000)
CODEC = TokenFormat("c0dec", num_codebooks=2, codebook_size=500, frame_rate=10.0, sample_rate=1000)


def rows_of(token_format: TokenFormat, count: int, seconds: float = 2.0, **about: object) -> list[TokenRow]:
    """One row a recording; its codes are its number."""
    shape = (token_format.num_codebooks, round(seconds * token_format.frame_rate))
    return [TokenRow(torch.full(shape, n), f"text {n}", path=f"{n}.wav")._replace(**about) for n in range(count)]


def write(folder: Path, token_format: TokenFormat, rows: list[TokenRow]) -> str:
    write_shards(folder, rows, token_format, rows_per_shard=100 if len(rows) > 100 else 4)
    return str(folder)


def test_rows_find_each_other_whatever_their_order(tmp_path: Path) -> None:
    semantic = write(tmp_path / "semantic", SEMANTIC, rows_of(SEMANTIC, 9)[::-1])
    codec = write(tmp_path / "codec", CODEC, rows_of(CODEC, 9))
    pairs = pickle.loads(pickle.dumps(joined(codec, semantic)))  # as loader workers get it
    assert len(pairs) == 9 and pairs.texts == [f"text {n}" for n in range(9)]
    for number in range(9):
        row, front = pairs[number]
        assert front is not None and row.path == front.path == f"{number}.wav"
        assert row.codes.unique().tolist() == front.codes.unique().tolist() == [number]


def test_start_and_variant_tell_rows_of_one_file_apart(tmp_path: Path) -> None:
    what = [{"start": 0.0}, {"start": 2.0}, {"variant": 1}, {"variant": 2, "mixed_with": "b.wav"}]
    sides = []
    for token_format in (CODEC, SEMANTIC):
        rows = [row._replace(path="a.wav", **each) for row, each in zip(rows_of(token_format, 4), what, strict=True)]
        sides.append(write(tmp_path / token_format.fingerprint, token_format, rows if sides else rows[::-1]))
    pairs = joined(*sides)
    assert len(pairs) == 4
    assert all(int(row.codes[0, 0]) == int(front.codes[0, 0]) for row, front in map(pairs.__getitem__, range(4)))


def test_folders_on_each_side_are_one_set(tmp_path: Path) -> None:
    codec, semantic = rows_of(CODEC, 6), rows_of(SEMANTIC, 6)
    parts = [write(tmp_path / "one", CODEC, codec[:2]), write(tmp_path / "two", CODEC, codec[2:])]
    assert len(joined(parts, write(tmp_path / "semantic", SEMANTIC, semantic))) == 6
    with pytest.raises(ValueError, match=r"0.wav from 0 s, variant 0, stands twice in \["):
        joined([parts[0], parts[0]], str(tmp_path / "semantic"))


def test_shards_may_stand_in_front_of_themselves_or_alone(tmp_path: Path) -> None:
    shards = open_shards(write(tmp_path / "codec", CODEC, rows_of(CODEC, 3)))
    assert Pairs(shards)[1][1] is None
    row, front = Pairs(shards, shards)[1]
    assert front is row and Pairs(shards, shards).texts == shards.texts


@pytest.mark.parametrize("shorter", ["codec", "semantic"])
def test_a_few_rows_of_one_side_alone_are_left_out_with_a_warning_many_are_refused(
    tmp_path: Path, shorter: str
) -> None:
    for token_format, name in ((CODEC, "codec"), (SEMANTIC, "semantic")):
        rows = rows_of(token_format, 200, seconds=0.4)
        write(tmp_path / "few" / name, token_format, rows[2:] if name == shorter else rows)
        write(tmp_path / "many" / name, token_format, rows[3:] if name == shorter else rows)
    with pytest.warns(UserWarning, match=r"^2 of the 200 rows .* \(the first: 0.wav from 0 s.*; they are left out$"):
        assert len(joined(str(tmp_path / "few" / "codec"), str(tmp_path / "few" / "semantic"))) == 198
    with pytest.raises(ValueError, match=rf"^3 of the 200 rows .* are not in .*{shorter} \(the first: 0.wav") as caught:
        joined(str(tmp_path / "many" / "codec"), str(tmp_path / "many" / "semantic"))
    assert "same manifest and options" in str(caught.value) and "\n" not in str(caught.value)


def test_runs_of_other_options_are_refused(tmp_path: Path) -> None:
    semantic = write(tmp_path / "semantic", SEMANTIC, rows_of(SEMANTIC, 3))
    longer = write(tmp_path / "longer", CODEC, rows_of(CODEC, 3, seconds=4.0))
    with pytest.raises(ValueError, match=r"0.wav .*, lasts 4.00 s in one folder and 2.00 s .*\(3 such"):
        joined(longer, semantic)
    mixed = write(tmp_path / "mixed", CODEC, rows_of(CODEC, 3, mixed_with="b.wav"))
    with pytest.raises(ValueError, match="is mixed with b.wav in .*, with nothing in .*same options and seed"):
        joined(mixed, semantic)


def test_each_side_has_a_tokenizer_of_its_own(tmp_path: Path) -> None:
    semantic = write(tmp_path / "semantic", SEMANTIC, rows_of(SEMANTIC, 3))
    codec = write(tmp_path / "codec", CODEC, rows_of(CODEC, 3))
    with pytest.raises(ValueError, match="hold codes of one tokenizer, c0dec"):
        joined(codec, codec)
    other = write(tmp_path / "other", replace(SEMANTIC, fingerprint="0ther"), rows_of(SEMANTIC, 3))
    with pytest.raises(ValueError, match="wanted those of codec 5emantic"):
        joined(codec, other, like=joined(codec, semantic))


def test_a_frame_more_on_one_side_is_no_difference(tmp_path: Path) -> None:
    semantic = write(tmp_path / "semantic", SEMANTIC, rows_of(SEMANTIC, 3, seconds=2.2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(joined(write(tmp_path / "codec", CODEC, rows_of(CODEC, 3)), semantic)) == 3


def test_tokenizers_of_other_rates_meet_the_same_variations_but_for_a_part_of_a_frame() -> None:
    """What the join of variants stands on."""
    for row in range(20):
        one, other = draw_variation(0, row, 1, 16000, 640), draw_variation(0, row, 1, 24000, 480)
        assert (one.speed, one.gain_db) == (other.speed, other.gain_db)
        assert abs(one.lead / 16000 - other.lead / 24000) < 640 / 16000
