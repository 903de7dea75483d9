"""Tokenizing is exact, independent of batching, resumable, and says what it left out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
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


def test_variants_of_other_tempos_are_longer_and_shorter(manifest: Path, tmp_path: Path) -> None:
    plain = run(manifest, tmp_path / "a", TokenizeOptions(variants=5))
    played = run(manifest, tmp_path / "b", TokenizeOptions(variants=5, tempo=(0.5, 2.0)))
    assert_same_rows([row for row in played if not row.variant], [row for row in plain if not row.variant])
    ratios = [row.seconds / other.seconds for row, other in zip(played, plain, strict=True) if row.variant]
    assert min(ratios) < 0.7 and max(ratios) > 1.4
    with pytest.raises(ValueError, match="was begun with options"):
        run(manifest, tmp_path / "b", TokenizeOptions(variants=5))


def test_variants_some_semitones_away_are_as_long_as_that_makes_them(manifest: Path, tmp_path: Path) -> None:
    rows = run(manifest, tmp_path / "a", TokenizeOptions(variants=5, semitones=12))
    own = {row.path: row.seconds for row in rows if not row.variant}
    ratios = [own[row.path] / row.seconds for row in rows if row.variant]
    assert min(ratios) < 0.8 and max(ratios) > 1.25
    with pytest.raises(ValueError, match="was begun with options"):
        run(manifest, tmp_path / "a", TokenizeOptions(variants=5))


def test_a_clip_is_read_once_for_all_its_variants(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, paths = sounds.read, []  # type: ignore[var-annotated]
    monkeypatch.setattr(sounds, "read", lambda path, *place: paths.append(path) or read(path, *place))
    assert len(run(manifest, tmp_path / "tokens", TokenizeOptions(variants=3))) == 3 * len(LENGTHS)
    assert len(paths) == len(set(paths)) == len(LENGTHS)


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


def test_other_voices_are_told_who_speaks_and_what_to_draw(manifest: Path, tmp_path: Path) -> None:
    """Whoever gives them knows each item, whatever batch it comes in; and the folder remembers."""

    def revoice(audio: Tensor, speakers: Sequence[str], draws: Sequence[tuple[int, ...]]) -> Tensor:
        assert list(speakers) == ["ann"] * len(audio)
        lent = torch.tensor(draws)[:, :, None].expand(-1, -1, audio.shape[2] // HOP)
        return lent[:, 1:]  # row and variant in the place of two codebooks

    def encode(output: str, batch_size: int) -> list[TokenRow]:
        options = TokenizeOptions(other_voices=4, variants=2, seed=5, batch_size=batch_size)
        tokenize(ClipCodec(), "c0dec", manifest, tmp_path / output, options, revoice)
        return list(open_shards(tmp_path / output, "c0dec"))

    rows = encode("one", 1)
    assert [(int(row.codes[0, 0]), int(row.codes[1, 0])) for row in rows] == [
        (number, variant) for number in range(len(LENGTHS)) for variant in range(2)
    ]
    assert_same_rows(rows, encode("three", 3))
    with pytest.raises(ValueError, match="was begun with options"):
        run(manifest, tmp_path / "one", TokenizeOptions(variants=2, seed=5))
    with pytest.raises(ValueError, match="other_voices is 4, and revoice is None: give both"):
        run(manifest, tmp_path / "other", TokenizeOptions(other_voices=4))


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
    for wrong in (
        {"batch_size": 0},
        {"other_voices": -1},
        {"other_voices": 4, "mixes": 1},
        {"variants": 0},
        {"rows_per_shard": 0},
        {"pad": -1.0},
        {"pad": float("nan")},
        {"hold": -0.1},
        {"tempo": (0.0, 1.0)},
        {"semitones": -1},
        {"mixes": -1},
        {"mix_distinct": "clip"},
        {"mix_snr_db": (1.0, 0.0)},
    ):
        with pytest.raises(ValueError, match="wanted"):
            TokenizeOptions(**wrong)


class SteadyCodec(ClipCodec):
    """One that also says codes under a price."""

    def encode_steady(self, audio: Tensor, hold: float) -> Tensor:
        return self.encode(audio) * 0 + round(10 * hold)


def test_a_price_on_changes_goes_to_the_codec_and_belongs_to_the_plan(manifest: Path, tmp_path: Path) -> None:
    held = TokenizeOptions(hold=0.5)
    rows = run(manifest, tmp_path / "tokens", held, SteadyCodec())
    assert all(bool((row.codes == 5).all()) for row in rows)
    with pytest.raises(ValueError, match="was begun with options"):
        run(manifest, tmp_path / "tokens", TokenizeOptions(hold=1.0), SteadyCodec())
    with pytest.raises(ValueError, match=r"hold is 0.5, and this tokenizer knows no price of a change: leave it 0"):
        run(manifest, tmp_path / "other", held)


# --- mixtures

MIXED = TokenizeOptions(split="train", variants=2, mixes=3, rows_per_shard=4, mix_joiner=" and ")


def test_mixtures_follow_the_variants_of_each_clip_and_say_what_they_are_of(manifest: Path, tmp_path: Path) -> None:
    rows = run(manifest, tmp_path / "tokens", MIXED)
    clips = [number for number in range(len(LENGTHS)) if number != 2]
    assert [row.path for row in rows] == [f"clips/{number}.wav" for number in clips for _ in range(5)]
    assert [row.variant for row in rows] == [0, 1, 2, 3, 4] * len(clips)
    for row in rows:
        own, other = Path(row.path).stem, Path(row.mixed_with).stem
        assert bool(other) == (row.variant >= 2) and own != other != "2"
        assert row.text == (f"clip {own} and clip {other}" if other else f"clip {own}")
        assert (row.label, row.speaker, row.split) == ("x", "ann", "train")  # equal labels are said once
    assert len({tuple(row.codes.flatten().tolist()) for row in rows}) == len(rows)


def test_mixtures_are_as_long_as_their_first_clip(manifest: Path, tmp_path: Path) -> None:
    for row in run(manifest, tmp_path / "tokens", MIXED):
        length = LENGTHS[int(Path(row.path).stem)] / RATE
        assert length / 1.06 <= row.seconds <= length / 0.94 + 0.07  # speed, and silence in front
        assert row.codes.shape[1] == -(-round(row.seconds * RATE) // HOP)


def test_mixtures_depend_on_nothing_but_seed_row_and_number(manifest: Path, tmp_path: Path) -> None:
    rows = run(manifest, tmp_path / "a", MIXED)
    assert_same_rows(run(manifest, tmp_path / "b", replace(MIXED, rows_per_shard=7, batch_size=1)), rows)
    fewer = run(manifest, tmp_path / "c", replace(MIXED, variants=1, mixes=2))
    wanted = [row._replace(variant=row.variant - 1) for row in rows if row.variant in (2, 3)]
    assert_same_rows([row for row in fewer if row.mixed_with], wanted)
    plain = run(manifest, tmp_path / "d", replace(MIXED, mixes=0))
    assert_same_rows([row for row in rows if not row.mixed_with], plain)
    other = run(manifest, tmp_path / "e", replace(MIXED, seed=1))
    assert [row.mixed_with for row in other] != [row.mixed_with for row in rows]


def test_mixtures_of_each_split_stay_in_it(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"clips/2.wav finds no partner .* split 'valid'"):
        tokenize(ClipCodec(), "c0dec", manifest, tmp_path / "tokens", replace(MIXED, split=None))
    assert not (tmp_path / "tokens").exists()  # nothing was begun


def test_a_killed_run_of_mixtures_goes_on_where_it_was(manifest: Path, tmp_path: Path) -> None:
    class Dying(ClipCodec):
        def encode(self, audio: Tensor) -> Tensor:
            if len(self.batches) == 9:
                raise KeyboardInterrupt
            return super().encode(audio)

    with pytest.raises(KeyboardInterrupt):
        tokenize(Dying(), "c0dec", manifest, tmp_path / "killed", MIXED)
    done = len(list((tmp_path / "killed").glob("part-*.parquet")))
    assert done >= 1
    codec = ClipCodec()
    rows = run(manifest, tmp_path / "killed", MIXED, codec)
    assert sum(codec.batches) == 30 - 4 * done
    assert_same_rows(rows, run(manifest, tmp_path / "whole", MIXED))


@pytest.mark.parametrize("change", [{"mixes": 2}, {"mix_joiner": ", "}, {"mix_distinct": "caption"}, {"mixes": 0}])
def test_a_folder_begun_with_other_mixtures_is_refused(
    manifest: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    run(manifest, tmp_path / "tokens", MIXED)
    with pytest.raises(ValueError, match="was begun with options"):
        tokenize(ClipCodec(), "c0dec", manifest, tmp_path / "tokens", replace(MIXED, **change))


def test_folders_begun_before_there_were_mixtures_are_gone_on_with(manifest: Path, tmp_path: Path) -> None:
    run(manifest, tmp_path / "tokens", TokenizeOptions())
    plan = json.loads((tmp_path / "tokens" / "tokens.json").read_text())
    assert plan["options"].keys() == {"split", "variants", "pad", "rows_per_shard", "seed"}
    codec = ClipCodec()
    run(manifest, tmp_path / "tokens", TokenizeOptions(mix_joiner=" and "), codec)  # of no account without mixtures
    assert codec.batches == []


def test_a_silent_or_unreadable_partner_is_listed_with_both_names(manifest: Path, tmp_path: Path) -> None:
    sounds.write(tmp_path / "clips" / "1.wav", Sound(torch.zeros(1, 1234), RATE))
    (tmp_path / "clips" / "4.wav").write_bytes(b"no sound")
    rows = run(manifest, tmp_path / "tokens", MIXED)
    listed = [json.loads(line) for line in (tmp_path / "tokens" / "skipped.jsonl").read_text().splitlines()]
    assert len(rows) + len(listed) == 30
    assert not any(row.mixed_with and {row.path, row.mixed_with} & {"clips/1.wav", "clips/4.wav"} for row in rows)
    reasons = {each["reason"] for each in listed if each["path"] not in ("clips/1.wav", "clips/4.wav")}
    assert any(reason.startswith("mixed with clips/1.wav: a silent sound") for reason in reasons)
    assert any(reason.startswith("mixed with clips/4.wav: cannot read") for reason in reasons)
