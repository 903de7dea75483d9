"""MixedTokenData: codes of crops and mixtures, pure functions of seed, step and rank, as if they had been tokenized."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from audiolm_kit import audio as sounds
from audiolm_kit.audio import Sound
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.data.mixed_tokens import MixedTokenData, Waveforms
from audiolm_kit.data.mixing import Mixing, Partners, draw_mix
from audiolm_kit.data.modules import TokenBatch, TokenSource
from audiolm_kit.data.shards import TokenFormat, TokenRow, open_shards
from audiolm_kit.data.tokenize import TokenizeOptions, tokenize

RATE, HOP = 8000, 80
LENGTHS = (1600, 1234, 2400, 1600, 801, 1600, 4000)  # the first two are for validation
NEVER, ALWAYS = Mixing(probability=0.0), Mixing(probability=1.0, joiner=" and ")


class ClipCodec(nn.Module):
    """A tokenizer whose codes depend on the whole clip, so that foreign padding would show."""

    sample_rate, channels, num_codebooks, codebook_size, frame_rate = RATE, 1, 2, 4096, RATE / HOP

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def encode(self, audio: Tensor) -> Tensor:
        """[B, 1, L] -> [B, 2, T]."""
        assert not self.training and audio.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        frames = audio.view(len(audio), -1, HOP).double() * self.weight
        mean = audio.double().mean((1, 2))[:, None]
        codes = torch.stack([frames.mean(2) - mean, frames.abs().amax(2)], 1)
        return ((codes + 1) * 2047).long().clamp(0, 4095)


FORMAT = TokenFormat("c0dec", 2, 4096, RATE / HOP, RATE)


def write_recordings(folder: Path, lengths: tuple[int, ...] = LENGTHS, valid: int = 2) -> Path:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number, length in enumerate(lengths):
        path = folder / f"{number}.wav"
        sounds.write(path, Sound(0.1 * torch.randn(1, length, generator=generator), RATE))
        split = "valid" if number < valid else "train"
        rows.append(Row(str(path), length / RATE, caption=f"clip {number}", label="x", split=split))
    write_manifest(folder / "clips.jsonl", rows)
    return folder / "clips.jsonl"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_recordings(tmp_path_factory.mktemp("recordings")))


def make_data(manifest: str, mixing: Mixing = ALWAYS, **options: Any) -> MixedTokenData:
    data = MixedTokenData(manifest, mixing=mixing, **{"seconds": 0.2, "batch_size": 3, **options})
    data.setup("fit")
    data.attach(ClipCodec(), "c0dec")
    return data


def batch_of(data: MixedTokenData, step: int) -> TokenBatch:
    return data.on_after_batch_transfer(data.make_batch(step), 0)


def on_rank(data: MixedTokenData, rank: int, ranks: int, batches_seen: int = 0) -> MixedTokenData:
    task = SimpleNamespace(batches_seen=batches_seen)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=ranks, lightning_module=task)
    return data


def assert_same(one: TokenBatch | Waveforms, other: TokenBatch | Waveforms) -> None:
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left, right) if isinstance(left, Tensor) else left == right


def tokenized(manifest: str, folder: Path, **options: Any) -> dict[str, TokenRow]:
    tokenize(ClipCodec(), "c0dec", manifest, folder, TokenizeOptions(**options))
    return {row.text: row for row in open_shards(folder)}


# --- without mixing: what tokenize gives


def test_whole_clips_that_are_not_mixed_have_the_codes_that_tokenize_writes(manifest: str, tmp_path: Path) -> None:
    wanted = tokenized(manifest, tmp_path / "tokens")
    data, seen = make_data(manifest, NEVER, seconds=0.5), Counter[str]()
    for step in range(5):
        batch = batch_of(data, step)
        assert batch.codes.shape == (3, 2, 50) and batch.mask.shape == (3, 50) and batch.prefix is None
        for codes, mask, text in zip(batch.codes, batch.mask, batch.texts, strict=True):
            frames = wanted[text].codes.shape[1]
            assert torch.equal(codes[:, :frames], wanted[text].codes) and not codes[:, frames:].any()
            assert mask.tolist() == [True] * frames + [False] * (50 - frames)
            seen[text] += 1
    assert seen == Counter({f"clip {number}": 3 for number in range(2, 7)})


def test_crops_have_the_codes_that_tokenizing_the_crop_gives(manifest: str, tmp_path: Path) -> None:
    data = make_data(manifest, NEVER, seconds=0.1, batch_size=5)
    sent, batch = data.make_batch(2), batch_of(data, 2)
    rows = []
    for number, (bits, frames) in enumerate(zip(sent.bits, sent.frames, strict=True)):
        assert frames == 10
        crop = bits.view(torch.float32)
        whole = sounds.read(Path(manifest).parent / f"{batch.texts[number].split()[-1]}.wav").samples
        assert (whole.unfold(1, 800, 1) == crop[:, None]).all(-1).any()  # a piece of its recording
        sounds.write(tmp_path / f"{number}.wav", Sound(crop, RATE))
        rows.append(Row(str(tmp_path / f"{number}.wav"), 0.1, caption=str(number)))
    write_manifest(tmp_path / "crops.jsonl", rows)
    wanted = tokenized(str(tmp_path / "crops.jsonl"), tmp_path / "tokens")
    assert all(torch.equal(codes, wanted[str(number)].codes) for number, codes in enumerate(batch.codes))


def test_padding_is_encoded_silence_up_to_its_length(manifest: str, tmp_path: Path) -> None:
    wanted = tokenized(manifest, tmp_path / "tokens", pad=0.25)
    batch = batch_of(make_data(manifest, NEVER, seconds=0.3, pad=0.25, batch_size=20), 0)
    for codes, mask, text in zip(batch.codes, batch.mask, batch.texts, strict=True):
        if text == "clip 6":  # longer than the window
            assert bool(mask.all())
            continue
        frames = wanted[text].codes.shape[1]
        assert frames >= 25 and int(mask.sum()) == frames and torch.equal(codes[:, :frames], wanted[text].codes)


def test_frames_that_a_codec_did_not_make_do_not_count(manifest: str) -> None:
    """A codec that cuts sounds into segments may make fewer than the hop says."""

    class Short(ClipCodec):
        def encode(self, audio: Tensor) -> Tensor:
            return super().encode(audio)[..., :-1]

    whole, short = make_data(manifest, NEVER), make_data(manifest, NEVER)
    short.attach(Short().eval(), "c0dec")
    batches = [batch_of(data, 0) for data in (whole, short)]
    assert torch.equal(batches[1].mask.sum(1), batches[0].mask.sum(1) - 1)
    assert torch.equal(batches[1].codes[:, :, :-1], batches[0].codes[:, :, :-1].where(batches[1].mask[:, None, :-1], 0))


def test_a_window_starts_anywhere_in_a_long_recording(manifest: str) -> None:
    data = make_data(manifest, NEVER, seconds=0.1, batch_size=1)
    crops = [data.make_batch(step) for step in range(100)]
    crops = [crop.bits.view(torch.float32)[0, 0, :4] for crop in crops if crop.texts == ["clip 6"]]
    whole = sounds.read(Path(manifest).parent / "6.wav").samples[0].unfold(0, 4, 1)
    starts = [int((whole == crop).all(1).nonzero()) for crop in crops]
    assert len(set(starts)) == 20 and min(starts) < 600 and max(starts) > 2600


# --- with mixing


def test_mixtures_are_of_another_row_each_and_change_with_the_epoch(manifest: str) -> None:
    data, pairs = make_data(manifest, batch_size=5), []
    for step in range(8):
        batch = batch_of(data, step)
        for text in batch.texts:
            first, second = text.split(" and ")
            assert first != second and {first, second} <= {f"clip {number}" for number in range(2, 7)}
        pairs.append(sorted(batch.texts))
    assert len({tuple(each) for each in pairs}) > 1


def test_about_half_of_the_items_are_mixed_each_decided_for_itself(manifest: str) -> None:
    data = make_data(manifest, Mixing(joiner=" and "), batch_size=20)
    mixed = [["and" in text for text in data.make_batch(step).texts] for step in range(8)]
    assert 60 < sum(map(sum, mixed)) < 100 and all(0 < sum(each) < 20 for each in mixed)
    plain = make_data(manifest, NEVER, batch_size=20)
    for step in range(2):  # what is not mixed is as without mixing
        one, other = batch_of(data, step), batch_of(plain, step)
        for number, is_mixed in enumerate(mixed[step]):
            assert is_mixed != torch.equal(one.codes[number], other.codes[number])


def test_captions_hold_mixed_ones_too_for_the_vocabulary(manifest: str) -> None:
    own = [f"clip {number}" for number in range(2, 7)]
    assert make_data(manifest, NEVER).texts == own
    data = make_data(manifest)
    partners = Partners(data.rows)
    mixed = [f"clip {n + 2} and clip {draw_mix(0, n, 1, partners, ALWAYS).partner + 2}" for n in range(5)]
    assert data.texts == own + mixed


def test_variations_change_the_codes_but_not_the_captions(manifest: str) -> None:
    plain, varied = (make_data(manifest, vary=vary, batch_size=5, seconds=0.4) for vary in (False, True))
    assert plain.make_batch(0).texts == varied.make_batch(0).texts
    first, second = varied.make_batch(0), varied.make_batch(0)
    assert_same(first, second)
    assert not torch.equal(first.bits, plain.make_batch(0).bits)
    # Slower or faster, what is longer than a window fills it.
    assert {varied._crop(4, number).samples.shape[1] for number in range(1, 20)} == {3200}


def test_a_silent_crop_is_left_unmixed(tmp_path: Path) -> None:
    manifest = write_recordings(tmp_path, (1600, 1600, 1600), valid=0)
    sounds.write(tmp_path / "1.wav", Sound(torch.zeros(1, 1600), RATE))
    data = make_data(str(manifest), batch_size=3)
    texts = [text for step in range(10) for text in data.make_batch(step).texts]
    assert {text for text in texts if "1" in text} == {"clip 1"}
    assert {"clip 0", "clip 0 and clip 2"} <= set(texts)  # alone where its partner was silent


# --- by step


def test_a_batch_depends_on_seed_step_and_rank_alone(manifest: str) -> None:
    wanted = batch_of(make_data(manifest), 5)
    walked = make_data(manifest, cache_megabytes=0)
    batches = [batch_of(walked, step) for step in (9, 2, 5)]
    assert_same(batches[2], wanted)
    assert not torch.equal(batches[0].codes, wanted.codes)
    assert not torch.equal(batch_of(make_data(manifest, seed=1), 5).codes, wanted.codes)


def test_ranks_share_the_items_of_one_large_batch(manifest: str) -> None:
    whole = batch_of(make_data(manifest, batch_size=4), 3)
    parts = [batch_of(on_rank(make_data(manifest, batch_size=2), rank, 2), 3) for rank in (0, 1)]
    assert torch.equal(torch.cat([part.codes for part in parts]), whole.codes)
    assert parts[0].texts + parts[1].texts == whole.texts


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_starts_at_the_tasks_step_with_any_number_of_workers(manifest: str, num_workers: int) -> None:
    data = make_data(manifest, num_workers=num_workers)
    wanted = [data.make_batch(step) for step in range(4, 8)]
    found = itertools.islice(on_rank(data, 0, 1, 4).train_dataloader(), 4)
    for batch, expected in zip(found, wanted, strict=True):
        assert_same(batch, expected)


def test_it_travels_to_workers_without_its_codec(manifest: str) -> None:
    data = on_rank(make_data(manifest), 1, 2)
    wanted = data.make_batch(4)
    data._codec.hook = lambda: None  # what cannot be pickled
    there = pickle.loads(pickle.dumps(data))
    assert_same(there.make_batch(4), wanted)
    assert there._codec is None and isinstance(data._codec, ClipCodec)


# --- validation


def test_validation_takes_the_valid_rows_as_they_are(manifest: str, tmp_path: Path) -> None:
    wanted = tokenized(manifest, tmp_path / "tokens", split="valid")
    data = make_data(manifest, batch_size=1, vary=True)
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()]
    assert [batch.texts for batch in batches] == [["clip 0"], ["clip 1"]]
    for batch in batches:
        codes = wanted[batch.texts[0]].codes
        assert torch.equal(batch.codes[0][:, batch.mask[0]], codes)


def test_without_valid_rows_there_is_no_validation(tmp_path: Path) -> None:
    assert make_data(str(write_recordings(tmp_path, (800, 800), valid=0))).val_dataloader() == []


# --- in a trainer


class Listener(pl.LightningModule):
    """Hands its codec to the data as LMTask does, and keeps what it is given."""

    def __init__(self, batches_seen: int) -> None:
        super().__init__()
        self.batches_seen, self.heard, self.validated = batches_seen, [], []
        self.weight = nn.Parameter(torch.zeros(()))
        self._codec = (ClipCodec(),)

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule
        assert isinstance(data, TokenSource)
        data.attach(self._codec[0], "c0dec")
        assert data.format == FORMAT

    def training_step(self, batch: TokenBatch, index: int) -> Tensor:
        self.heard.append(batch)
        return self.weight * 1

    def validation_step(self, batch: TokenBatch, index: int) -> None:
        self.validated.append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], 0.1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
def test_a_task_sees_token_batches_alone_in_any_precision(manifest: str, precision: str) -> None:
    task = Listener(3)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_steps=2, enable_checkpointing=False, num_sanity_val_steps=1, precision=precision, **quiet)
    trainer.fit(task, MixedTokenData(manifest, 0.2, ALWAYS, batch_size=3))
    data = make_data(manifest)
    for number, batch in enumerate(task.heard):
        assert isinstance(batch, TokenBatch)
        assert_same(batch, batch_of(data, 3 + number))
    assert len(task.heard) == 2 and task.validated[0].texts == ["clip 0", "clip 1"]
    assert all(not name.startswith("_codec") for name, _ in task.named_parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_options_can_be_written_in_a_recipe(manifest: str) -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(TokenSource, "data")
    options = {"manifest": manifest, "seconds": 0.2, "mixing": {"probability": 0.25, "snr_db": [-3, 3], "peak": 0.9}}
    given = {"data": {"class_path": "audiolm_kit.data.mixed_tokens.MixedTokenData", "init_args": options}}
    data = parser.instantiate_classes(parser.parse_object(given)).data
    assert data.mixing == Mixing(probability=0.25, snr_db=(-3.0, 3.0), peak=0.9)


# --- what is wrong


def test_unreadable_recordings_are_named_and_passed_over(tmp_path: Path) -> None:
    manifest = write_recordings(tmp_path)
    (tmp_path / "3.wav").unlink()
    (tmp_path / "0.wav").write_bytes(b"no sound")
    data = make_data(str(manifest), NEVER, batch_size=5)
    with pytest.warns(UserWarning, match="3.wav is left out: no sound file") as told:
        texts = [text for step in range(2) for text in data.make_batch(step).texts]
    assert len(told) == 1
    assert sorted(texts) == sorted([f"clip {number}" for number in (2, 4, 4, 5, 6)] * 2)
    with pytest.warns(UserWarning, match="0.wav is left out"):
        assert [batch.texts for batch in data.val_dataloader()] == [["clip 1", "clip 1"]]
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    data = make_data(str(manifest), NEVER)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no recording of .* can be read"):
        data.make_batch(0)


def test_a_mixture_with_an_unreadable_partner_is_left_unmixed(tmp_path: Path) -> None:
    manifest = write_recordings(tmp_path, (1600, 1600, 1600), valid=0)
    (tmp_path / "1.wav").unlink()
    data = make_data(str(manifest), batch_size=3)
    with pytest.warns(UserWarning, match="1.wav"):
        texts = {text for step in range(20) for text in data.make_batch(step).texts}
    assert texts == {"clip 0", "clip 2", "clip 0 and clip 2", "clip 2 and clip 0"}


def test_it_says_what_it_lacks(manifest: str, tmp_path: Path) -> None:
    data = MixedTokenData(manifest, 0.2)
    with pytest.raises(ValueError, match=r"has no codec yet: .* attach\(codec, fingerprint\)"):
        _ = data.format
    with pytest.raises(ValueError, match="no rows to train on"):
        MixedTokenData(str(write_recordings(tmp_path, (800, 800), valid=2)), 0.2).setup("fit")
    with pytest.raises(ValueError, match="finds no partner"):
        MixedTokenData(str(write_recordings(tmp_path, (800,), valid=0)), 0.2).setup("fit")
    MixedTokenData(str(tmp_path / "clips.jsonl"), 0.2, NEVER).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"pad": 0.3}, "pad is 0.3, wanted 0 to seconds"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixedTokenData("m.jsonl", **{"seconds": 0.2, **options})
