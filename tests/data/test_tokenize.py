"""Tokenizing is exact, independent of batching, resumable, and says what it left out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from audiolm_kit import audio as sounds
from audiolm_kit.audio import Sound
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.data.shards import TokenRow, open_shards, part_path
from audiolm_kit.data.tokenize import TokenizeOptions, tokenize

RATE, HOP = 8000, 80
LENGTHS = (1600, 1234, 2400, 1600, 801, 1600, 79)


class ClipCodec(nn.Module):
    """A tokenizer whose codes depend on the whole clip, so that foreign padding would show; counts what it encodes."""

    sample_rate, channels, num_codebooks, codebook_size, frame_rate = RATE, 1, 2, 1024, RATE / HOP

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def encode(self, audio: Tensor) -> Tensor:
        """[B, 1, L] -> [B, 2, T]."""
        assert not self.training
        self.batches.append(len(audio))
        frames = audio.view(len(audio), -1, HOP).double()
        mean = audio.double().mean((1, 2))[:, None]
        codes = torch.stack([frames.mean(2) - mean, frames.abs().amax(2)], 1)
        return ((codes + 1) * 511).long().clamp(0, 1023)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number, length in enumerate(LENGTHS):
        path = tmp_path / "clips" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        sounds.write(path, Sound(0.3 * torch.randn(1, length, generator=generator).clamp(-3, 3), RATE))
        split = "valid" if number == 2 else "train"
        rows.append(
            Row(path=str(path), duration=length / RATE, caption=f"clip {number}", speaker="ann", label="x", split=split)
        )
    write_manifest(tmp_path / "clips.jsonl", rows)
    return tmp_path / "clips.jsonl"


def run(manifest: Path, output: Path, options: TokenizeOptions, codec: nn.Module | None = None) -> list[TokenRow]:
    tokenize(codec or ClipCodec(), "c0dec", manifest, output, options)
    return list(open_shards(output, "c0dec"))


def assert_same_rows(found: list[TokenRow], wanted: list[TokenRow]) -> None:
    assert [row[1:] for row in found] == [row[1:] for row in wanted]
    assert all(torch.equal(one.codes, other.codes) for one, other in zip(found, wanted, strict=True))


def test_rows_are_the_clips_in_the_order_of_the_manifest(manifest: Path, tmp_path: Path) -> None:
    rows = run(manifest, tmp_path / "tokens", TokenizeOptions())
    assert [row.text for row in rows] == [f"clip {number}" for number in range(len(LENGTHS))]
    assert rows[1].path == "clips/1.wav" and rows[1].seconds == pytest.approx(1234 / RATE)
    assert (rows[2].speaker, rows[2].label, rows[2].split) == ("ann", "x", "valid")
    assert [row.codes.shape for row in rows] == [(2, -(-length // HOP)) for length in LENGTHS]


def test_batching_does_not_alter_the_codes(manifest: Path, tmp_path: Path) -> None:
    one_by_one = run(manifest, tmp_path / "a", TokenizeOptions(batch_size=1, variants=3))
    codec = ClipCodec()
    assert_same_rows(run(manifest, tmp_path / "b", TokenizeOptions(batch_size=16, variants=3), codec), one_by_one)
    assert max(codec.batches) >= 3


def test_a_long_shard_is_held_piece_by_piece(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(manifest, tmp_path / "a", TokenizeOptions())
    monkeypatch.setattr("audiolm_kit.data.tokenize.HELD_SAMPLES", 2000)
    codec = ClipCodec()
    assert_same_rows(run(manifest, tmp_path / "b", TokenizeOptions(), codec), whole)
    assert max(codec.batches) < 3


def test_padding_is_encoded_silence_at_the_end(manifest: Path, tmp_path: Path) -> None:
    rows = run(manifest, tmp_path / "tokens", TokenizeOptions(pad=0.25))
    assert [row.codes.shape[1] for row in rows] == [25, 25, 30, 25, 25, 25, 25]
    silent = rows[6].codes[:, 1:]
    assert torch.equal(silent, silent[:, :1].expand_as(silent)) and not torch.equal(rows[6].codes[:, :1], silent[:, :1])


def test_only_the_split_asked_for_is_taken(manifest: Path, tmp_path: Path) -> None:
    assert [row.text for row in run(manifest, tmp_path / "tokens", TokenizeOptions(split="valid"))] == ["clip 2"]
    with pytest.raises(ValueError, match="no rows of split 'test'"):
        tokenize(ClipCodec(), "c0dec", manifest, tmp_path / "none", TokenizeOptions(split="test"))


def test_variants_differ_from_the_clip_yet_depend_on_nothing_but_seed_row_and_variant(
    manifest: Path, tmp_path: Path
) -> None:
    rows = run(manifest, tmp_path / "a", TokenizeOptions(variants=3, rows_per_shard=4))
    assert_same_rows(run(manifest, tmp_path / "b", TokenizeOptions(variants=3, rows_per_shard=5)), rows)
    plain = run(manifest, tmp_path / "c", TokenizeOptions())
    assert_same_rows([row for row in rows if row.variant == 0], plain)
    for number in range(len(LENGTHS) - 1):
        clip, first, second = rows[3 * number : 3 * number + 3]
        assert clip.codes.tolist() != first.codes.tolist() != second.codes.tolist()
    other = run(manifest, tmp_path / "d", TokenizeOptions(variants=2, seed=1))
    assert other[1].codes.tolist() != rows[1].codes.tolist()


def test_a_killed_run_goes_on_where_it_was(manifest: Path, tmp_path: Path) -> None:
    class Dying(ClipCodec):
        def encode(self, audio: Tensor) -> Tensor:
            if len(self.batches) == 3:
                raise KeyboardInterrupt
            return super().encode(audio)

    options = TokenizeOptions(rows_per_shard=2, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        tokenize(Dying(), "c0dec", manifest, tmp_path / "killed", options)
    assert part_path(tmp_path / "killed", 0).exists() and not part_path(tmp_path / "killed", 1).exists()
    codec = ClipCodec()
    rows = run(manifest, tmp_path / "killed", options, codec)
    assert sum(codec.batches) == len(LENGTHS) - 2
    assert_same_rows(rows, run(manifest, tmp_path / "whole", options))
    assert not list((tmp_path / "killed").glob(".part-*"))


def test_kill_minus_nine_leaves_no_half_shard(manifest: Path, tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        sys.path.insert(0, sys.argv[3])
        import pyarrow.parquet as pq
        from audiolm_kit.data.tokenize import TokenizeOptions, tokenize
        from test_tokenize import ClipCodec
        whole = pq.write_table
        def half(table, where, **options):
            whole(table, where, **options)
            if "part-00001" in str(where):
                os.truncate(where, 100)
                os.kill(os.getpid(), signal.SIGKILL)
        pq.write_table = half
        tokenize(ClipCodec(), "c0dec", sys.argv[1], sys.argv[2], TokenizeOptions(rows_per_shard=2))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), manifest, tmp_path / "killed", Path(__file__).parent]
    died = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert died.returncode == -signal.SIGKILL
    rows = run(manifest, tmp_path / "killed", TokenizeOptions(rows_per_shard=2))
    assert_same_rows(rows, run(manifest, tmp_path / "whole", TokenizeOptions(rows_per_shard=2)))
    assert not list((tmp_path / "killed").glob(".part-*"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pad": 1.0}, "options"),
        ({"seed": 1}, "options"),
        ({"split": "train"}, "manifest"),
        ({"variants": 2}, "options"),
    ],
)
def test_a_folder_begun_otherwise_is_refused(
    manifest: Path, tmp_path: Path, change: dict[str, object], named: str
) -> None:
    run(manifest, tmp_path / "tokens", TokenizeOptions())
    with pytest.raises(ValueError, match=f"was begun with {named}") as caught:
        tokenize(ClipCodec(), "c0dec", manifest, tmp_path / "tokens", replace(TokenizeOptions(), **change))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="begun with codec c0dec, now it is 0ther"):
        tokenize(ClipCodec(), "0ther", manifest, tmp_path / "tokens", TokenizeOptions())


def test_another_machine_and_another_batch_size_may_go_on(manifest: Path, tmp_path: Path) -> None:
    run(manifest, tmp_path / "tokens", TokenizeOptions())
    codec = ClipCodec()
    run(manifest, tmp_path / "tokens", TokenizeOptions(batch_size=2), codec)
    assert codec.batches == []


def test_unreadable_clips_are_listed_with_the_reason(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "clips" / "1.wav").write_bytes(b"no sound")
    (tmp_path / "clips" / "4.wav").unlink()
    report = tokenize(ClipCodec(), "c0dec", manifest, tmp_path / "tokens", TokenizeOptions(rows_per_shard=2))
    assert (report.rows, report.shards, report.skipped) == (5, 4, 2)
    listed = [json.loads(line) for line in (tmp_path / "tokens" / "skipped.jsonl").read_text().splitlines()]
    assert [each["path"] for each in listed] == ["clips/1.wav", "clips/4.wav"]
    assert all(each["reason"] for each in listed)
    assert [row.text for row in open_shards(tmp_path / "tokens")] == [f"clip {number}" for number in (0, 2, 3, 5, 6)]


def test_options_out_of_range_are_refused() -> None:
    for wrong in ({"batch_size": 0}, {"variants": 0}, {"rows_per_shard": 0}, {"pad": -1.0}, {"pad": float("nan")}):
        with pytest.raises(ValueError, match="wanted"):
            TokenizeOptions(**wrong)
