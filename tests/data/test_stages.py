"""StageData's windows are of the same time, without repeats where asked for, and pure functions of seed and step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from audiolm_kit.data.modules import TokenBatch
from audiolm_kit.data.shards import TokenFormat, TokenRow, write_shards
from audiolm_kit.data.stages import Grid, StageData
from audiolm_kit.data.tokenize import TokenizeOptions, tokenize
from audiolm_kit.repeats import deduplicate
from audiolm_kit.stages import Stage

SEMANTIC = TokenFormat("5emantic", num_codebooks=1, codebook_size=500, frame_rate=5.0, sample_rate=1000)
CODEC = TokenFormat("c0dec", num_codebooks=4, codebook_size=1000, frame_rate=10.0, sample_rate=1000)
SECONDS = (0.4, 1.0, 2.0, 6.0, 6.0, 6.0, 6.0)


def clock(frames: int, row: int) -> Tensor:
    """Codes that name their frame, and so their time: ``[1, T]``; no two rows begin at the same."""
    return (torch.arange(frames) + 60 * row)[None]


def held(frames: int, row: int) -> Tensor:
    """Semantic codes that last three frames each; a row's own, and their time: ``[1, T]``."""
    return clock(frames, row) // 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards ``semantic`` and ``codec`` (two frames to one of the former), ``held``, and those to validate."""
    path = tmp_path_factory.mktemp("stages")
    kinds: tuple[tuple[str, TokenFormat, Callable[[int, int], Tensor]], ...] = (
        ("semantic", SEMANTIC, clock),
        ("held", SEMANTIC, held),
        ("codec", CODEC, lambda frames, row: torch.cat([clock(frames, 2 * row) + k for k in range(4)])),
    )
    for name, token_format, make in kinds:
        rows = [
            TokenRow(make(round(seconds * token_format.frame_rate), n), f"row {n}", path=f"{n}.wav")
            for n, seconds in enumerate(SECONDS)
        ]
        write_shards(path / name, rows, token_format, rows_per_shard=3)
        write_shards(path / f"valid_{name}", rows[:5], token_format)
    return path


def make_data(folder: Path, stage: str, **options: object) -> StageData:
    """Windows of 2 s, 3 at once."""
    semantic = stage in ("coarse", "acoustic")
    given = {"shards": str(folder / ("semantic" if stage == "semantic" else "codec")), "seconds": 2.0, "batch_size": 3}
    given |= {"prefix_shards": str(folder / "semantic")} if semantic else {}
    given |= {"prefix_codebooks": (0, 1)} if stage == "fine" else {}
    named = {key: str(folder / value) if "shards" in key else value for key, value in options.items()}
    data = StageData(stage, **{**given, **named})
    data.setup("fit")
    return data


def assert_same(one: TokenBatch, other: TokenBatch) -> None:
    assert one.texts == other.texts
    for mine, yours in zip((one.codes, one.mask, one.prefix), (other.codes, other.mask, other.prefix), strict=True):
        assert (mine is None and yours is None) or torch.equal(mine, yours)


def rows_of(batch: TokenBatch) -> list[int]:
    return [int(text.split()[1]) for text in batch.texts]


# --- one law for all stages


@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine", "acoustic"])
def test_a_batch_depends_on_seed_step_and_rank_alone(folder: Path, stage: str) -> None:
    wanted = make_data(folder, stage).make_batch(5)
    walked = make_data(folder, stage)
    for step in (9, 2, 5):
        batch = walked.make_batch(step)
    assert_same(batch, wanted)
    assert make_data(folder, stage, seed=1).make_batch(5).texts != wanted.texts
    halves = []
    for rank in (0, 1):
        data = make_data(folder, stage, batch_size=3)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, lightning_module=None)
        halves.append(data.make_batch(2))
    whole = make_data(folder, stage, batch_size=6).make_batch(2)
    assert torch.equal(torch.cat([half.codes for half in halves]), whole.codes)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_starts_at_the_tasks_step_with_any_number_of_workers(folder: Path, num_workers: int) -> None:
    data = make_data(folder, "coarse", num_workers=num_workers)
    wanted = [data.make_batch(step) for step in range(4, 7)]
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, lightning_module=SimpleNamespace(batches_seen=4))
    for found, expected in zip(itertools.islice(data.train_dataloader(), 3), wanted, strict=True):
        assert_same(found, expected)


@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine", "acoustic"])
def test_validation_takes_each_row_once_from_its_start(folder: Path, stage: str) -> None:
    assert make_data(folder, stage).val_dataloader() == []
    valid = {"valid_shards": "valid_semantic" if stage == "semantic" else "valid_codec"}
    if stage in ("coarse", "acoustic"):
        valid["valid_prefix_shards"] = "valid_semantic"
    data = make_data(folder, stage, **valid)
    batches = list(data.val_dataloader())
    assert [row for batch in batches for row in rows_of(batch)] == list(range(5))
    for batch in batches:
        scale = 60 if stage == "semantic" else 120
        first = data.stage.codebooks[0]
        assert batch.codes[:, 0, 0].tolist() == [scale * row + first for row in rows_of(batch)]
        assert (batch.prefix is None) == (stage == "semantic")


# --- time


@pytest.mark.parametrize("stage", ["coarse", "acoustic"])
def test_semantic_and_acoustic_windows_cover_the_same_time(folder: Path, stage: str) -> None:
    data, starts = make_data(folder, stage), set()
    for step in range(80):
        batch = data.make_batch(step)
        assert batch.codes.shape == (3, 4, 20) and batch.prefix is not None
        for codes, mask, prefix, row in zip(batch.codes, batch.mask, batch.prefix, rows_of(batch), strict=True):
            times = prefix[:, prefix[0] < 500][0] - 60 * row  # in semantic frames
            frames = codes[0, mask] - 120 * row  # in frames of the codec
            assert frames.tolist() == [frame for time in times.tolist() for frame in (2 * time, 2 * time + 1)]
            assert len(frames) == min(20, round(10 * SECONDS[row]))
            starts |= {int(times[0])} if SECONDS[row] == 6.0 else set()
    assert starts == set(range(21))  # from the first frame to where the last of the row is the window's


def test_fine_windows_stand_on_the_first_codebooks_of_their_own_frames(folder: Path) -> None:
    data = make_data(folder, "fine", prefix_codebooks=(0, 2), codebooks=(2, 4))
    for step in range(5):
        batch = data.make_batch(step)
        assert batch.prefix is not None
        for codes, mask, prefix in zip(batch.codes, batch.mask, batch.prefix, strict=True):
            frames = int(mask.sum())
            assert torch.equal(prefix[:, -frames:] + 2, codes[:, :frames])
            assert bool((prefix[:, :-frames] == 1000).all())


def test_rates_in_no_simple_ratio_differ_by_half_a_frame_at_most() -> None:
    grid, fast, slow = Grid.of(1.0, [50.0, 86.1328125]), torch.arange(400)[None], torch.arange(232)[None]
    assert grid == Grid(50.0, 50)
    for start in range(180):
        one, other = grid.cut(slow, 50.0, start), grid.cut(fast, 86.1328125, start)
        assert one.shape == (1, 50) and other.shape == (1, 86)
        assert abs(float(one[0, 0]) / 50 - float(other[0, 0]) / 86.1328125) <= 0.5 / 86.1328125 + 1e-9
    assert Grid.of(0.3, [10.0]).frames == 3 and Grid.of(0.31, [10.0]).frames == 4 and Grid.of(1e-3, [10.0]).frames == 1


class Ruler:
    """A tokenizer of sounds that rise evenly: its codes are the time at which each frame begins, in 1/100 s."""

    channels, codebook_size = 1, 1000

    def __init__(self, sample_rate: int, hop: int, num_codebooks: int) -> None:
        self.sample_rate, self.hop, self.num_codebooks = sample_rate, hop, num_codebooks
        self.frame_rate = sample_rate / hop

    def encode(self, audio: Tensor) -> Tensor:
        return (audio[:, :, :: self.hop] * 1000).round().long().clamp(0, 999).repeat(1, self.num_codebooks, 1)


def test_tokenize_takes_any_tokenizer_and_two_of_them_agree_on_the_time(tmp_path: Path) -> None:
    from audiolm_kit import audio as sounds

    for name, seconds in (("long", 6.0), ("short", 0.71)):
        rising = torch.arange(round(seconds * 16000)) / 16000 / 10
        sounds.write(tmp_path / f"{name}.wav", sounds.Sound(rising[None], 16000))
    lines = [f'{{"path": "{name}.wav", "duration": {seconds}}}' for name, seconds in (("long", 6.0), ("short", 0.71))]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    for name, ruler in {"semantic": Ruler(16000, 640, 1), "codec": Ruler(16000, 320, 2)}.items():
        tokenize(ruler, name, tmp_path / "manifest.jsonl", tmp_path / name, TokenizeOptions())
    shards = {"shards": str(tmp_path / "codec"), "prefix_shards": str(tmp_path / "semantic")}
    data = StageData("coarse", **shards, seconds=1.0, batch_size=2, deduplicate=False)
    for step in range(5):
        batch = data.make_batch(step)
        assert batch.prefix is not None and batch.prefix.shape == (2, 1, 25) and batch.codes.shape == (2, 2, 50)
        for codes, mask, prefix in zip(batch.codes, batch.mask, batch.prefix, strict=True):
            times = prefix[0, prefix[0] < 1000]
            assert bool((codes[0, mask][::2] - times).abs().max() <= 1)


# --- repeats


@pytest.mark.parametrize("stage", ["semantic", "coarse"])
def test_repeats_are_taken_out_after_the_window_is_cut(folder: Path, stage: str) -> None:
    which = {"shards": "held"} if stage == "semantic" else {"prefix_shards": "held"}
    plain, short = (make_data(folder, stage, deduplicate=each, **which) for each in (False, True))
    for step in range(10):
        whole, batch = plain.make_batch(step), short.make_batch(step)
        for item in range(3):
            before, after = (
                each.codes[item][:, each.mask[item]] if stage == "semantic" else real(each.prefix[item])
                for each in (whole, batch)
            )
            assert torch.equal(after, deduplicate(before).codes) and after.shape[1] <= before.shape[1]
            assert bool((after[:, 1:] != after[:, :-1]).all())
        assert whole.codes.shape == batch.codes.shape  # the length does not depend on what was said
        if stage == "coarse":
            assert torch.equal(whole.codes, batch.codes) and batch.prefix.shape[2] < whole.prefix.shape[2] == 10


def real(prefix: Tensor) -> Tensor:
    """A row's prefix without the codes in front of it, which must stand there alone."""
    padding = int((prefix[0] == 500).sum())
    assert bool((prefix[:, :padding] == 500).all()) and bool((prefix[:, padding:] < 500).all())
    return prefix[:, padding:]


def test_the_stage_says_what_is_learned_and_how_dense_its_semantic_codes_are(folder: Path) -> None:
    lengths = [round(5 * seconds) for seconds in SECONDS]
    rate = 5 * sum(len(set(held(frames, n)[0].tolist())) for n, frames in enumerate(lengths)) / sum(lengths)
    assert make_data(folder, "semantic", shards="held").stage == Stage(
        "semantic", (0, 1), 2.0, codes_per_second=pytest.approx(rate)
    )
    found = make_data(folder, "coarse", prefix_shards="held", codebooks=(0, 2)).stage
    assert found == Stage("coarse", (0, 2), 2.0, (0, 1), codes_per_second=pytest.approx(rate))
    assert make_data(folder, "semantic", shards="held", deduplicate=False).stage.codes_per_second == 5.0
    assert make_data(folder, "fine").stage == Stage("fine", (1, 4), 2.0, (0, 1))
    assert make_data(folder, "acoustic").stage.codebooks == (0, 4)


def test_the_formats_are_those_of_the_whole_tokenizers(folder: Path) -> None:
    found = {name: make_data(folder, name) for name in ("semantic", "coarse", "fine", "acoustic")}
    assert {name: each.format.fingerprint for name, each in found.items()} == {
        "semantic": "5emantic",
        "coarse": "c0dec",
        "fine": "c0dec",
        "acoustic": "c0dec",
    }
    assert found["semantic"].prefix_format is None
    assert found["coarse"].prefix_format == found["acoustic"].prefix_format == SEMANTIC
    assert found["fine"].prefix_format == found["fine"].format == CODEC
    assert found["coarse"].texts == [f"row {n}" for n in range(7)]


# --- what cannot be


@pytest.mark.parametrize(
    ("stage", "options", "wanted"),
    [
        ("medium", {}, "stage is 'medium', wanted one of semantic, coarse"),
        ("semantic", {"seconds": 0.0}, "seconds is 0.0"),
        ("semantic", {"prefix_shards": "codec"}, "stage semantic has no semantic codes in front: leave prefix_shards"),
        ("coarse", {"prefix_shards": ""}, "stage coarse stands on semantic codes: set prefix_shards"),
        ("coarse", {"valid_shards": "valid_codec"}, "set valid_prefix_shards"),
        ("coarse", {"valid_prefix_shards": "valid_semantic"}, "set these too"),
        ("coarse", {"codebooks": (0, 5)}, "codebooks of stage coarse end at 5, and the shards hold 4"),
        ("coarse", {"prefix_codebooks": (0, 2)}, "prefix_codebooks of stage coarse end at 2, and the shards hold 1"),
        ("fine", {"prefix_codebooks": (0, 0)}, "prefix_codebooks of stage fine"),
        ("fine", {"prefix_codebooks": (0, 4)}, "codebooks of stage fine"),
        ("fine", {"prefix_codebooks": (0, 2), "codebooks": (1, 4)}, "begin codebooks where prefix_codebooks end"),
        ("coarse", {"prefix_shards": "codec"}, "hold codes of one tokenizer, c0dec"),
        ("semantic", {"valid_shards": "codec"}, "wanted those of codec 5emantic"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(
    folder: Path, stage: str, options: dict[str, object], wanted: str
) -> None:
    empty = {key: value for key, value in options.items() if value == ""}
    with pytest.raises(ValueError, match=wanted) as caught:
        if empty:
            StageData(stage, str(folder / "codec"), 2.0, **empty)
        make_data(folder, stage, **options)
    assert "\n" not in str(caught.value)


def test_shards_of_another_tokenizer_do_not_validate(folder: Path, tmp_path: Path) -> None:
    rows = [TokenRow(clock(10, 0), path="0.wav")]
    write_shards(tmp_path / "other", rows, replace(SEMANTIC, fingerprint="0ther"))
    with pytest.raises(ValueError, match="wanted those of codec 5emantic"):
        make_data(folder, "coarse", valid_shards="valid_codec", valid_prefix_shards=tmp_path / "other")
