"""PostfilterTask teaches a decoder to vary as real sound does, leaves codes alone, resumes exactly, exports a codec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import Learned, make_trainer
from torch import Tensor

from audiolm_kit import audio, checkpoint
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.postfilter import SpectrogramDiscriminatorConfig
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.data.modules import AudioData
from audiolm_kit.training.codec import CodecTask
from audiolm_kit.training.optim import WarmupCosine
from audiolm_kit.training.postfilter import DEFAULT_WEIGHTS, PostfilterTask

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*")

BODY = ConvNeXtConfig(
    dim=4, width=16, encoder_layers=0, decoder_layers=1, hop=16, fft_size=64, frames_per_code=4, noise=True, linear=True
)
CODEC = CodecConfig(sample_rate=1600, convnext=BODY, quantizer=QuantizerConfig(2, codebook_size=8, dim=4))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six hisses of a second, one of them for validation."""
    folder, rows = tmp_path_factory.mktemp("hisses"), []
    for number in range(6):
        wave = 0.1 * torch.randn(1, 1600, generator=torch.Generator().manual_seed(number))
        audio.write(folder / f"{number}.wav", audio.Sound(wave, 1600))
        rows.append(Row(str(folder / f"{number}.wav"), 1.0, split="train" if number else "valid"))
    write_manifest(folder / "manifest.jsonl", rows)
    return str(folder / "manifest.jsonl")


@pytest.fixture(scope="module")
def base(manifest: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A codec that has begun on them."""
    folder = tmp_path_factory.mktemp("codec")
    torch.manual_seed(0)
    codec, data = NeuralCodec(CODEC), make_data(manifest)
    data.setup("fit")
    codec.begin(torch.cat([data.make_batch(step).audio for step in range(10)]))
    checkpoint.save(codec, folder / "begun")
    return str(folder / "begun")


def make_data(manifest: str, **options: Any) -> AudioData:
    given = {"sample_rate": 1600, "seconds": 1.0, "batch_size": 4, "gain_db": (0.0, 0.0), **options}
    return AudioData(manifest, **given)


def make_task(base: str, **options: Any) -> PostfilterTask:
    pl.seed_everything(1, verbose=False)
    plain = {
        "postfilter": 4,
        "refine": 2,
        "crop_seconds": 0.64,
        "discriminator": SpectrogramDiscriminatorConfig((4,)),
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, betas=(0.5, 0.99)),
    }
    return PostfilterTask(base, **{**plain, **options})


def weights_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: torch.nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_is_decoded_comes_to_vary_as_real_sound_does(
    manifest: str, base: str, tmp_path: Path, precision: str
) -> None:
    """A hiss whose codes say how loud it is in the mean decodes to a hum at first."""
    quick = {"optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, betas=(0.5, 0.99))}
    task = make_task(base, **quick)
    validated = {"val_check_interval": 300, "num_sanity_val_steps": 0, "check_val_every_n_epoch": None}
    trainer = make_trainer(tmp_path, 300, precision=precision, **validated)
    trainer.fit(task, make_data(manifest))
    before, behind = (float(trainer.callback_metrics[f"valid/variation{name}"]) for name in ("_before", ""))
    assert before < 0.5 and abs(1 - behind) < 0.75 * (1 - before)


def test_detail_alone_makes_it_vary(manifest: str, base: str, tmp_path: Path) -> None:
    """The energy distance of two draws needs no discriminator."""
    alone = {**dict.fromkeys(DEFAULT_WEIGHTS, 0.0), "detail": 1.0}
    quick = {"optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, betas=(0.5, 0.99))}
    task = make_task(base, loss_weights=alone, **quick)
    validated = {"val_check_interval": 150, "num_sanity_val_steps": 0, "check_val_every_n_epoch": None}
    trainer = make_trainer(tmp_path, 150, **validated)
    trainer.fit(task, make_data(manifest))
    before, behind = (float(trainer.callback_metrics[f"valid/variation{name}"]) for name in ("_before", ""))
    assert abs(1 - behind) < 0.75 * (1 - before)
    assert "train/detail" in trainer.callback_metrics


def test_codes_and_the_linear_way_stay_and_all_else_of_the_decoder_learns(
    manifest: str, base: str, tmp_path: Path
) -> None:
    task, learned = make_task(base), Learned()
    codec, judge = weights_of(task.codec), weights_of(task.discriminator)
    trainer = make_trainer(tmp_path, 3, learned)
    trainer.fit(task, make_data(manifest))
    assert trainer.global_step == task.batches_seen == 3
    idle = ("decoder.linear.", "decoder.head.project.")
    wanted = {f"decoder.{name}" for name, _ in task.codec.decoder.named_parameters()}
    assert changed(task.codec, codec) == {name for name in wanted if not name.startswith(idle)}
    assert {name for name, _ in task.discriminator.named_parameters()} <= changed(task.discriminator, judge)
    names = {"train/adversarial", "train/feature", "train/patches", "train/discriminator"}
    assert learned.steps[0].keys() >= names and all(learned.steps[2].values())


def test_pieces_are_drawn_anew_and_begin_with_a_code_frame(base: str) -> None:
    task, clock = make_task(base), torch.arange(1600.0).expand(50, 1, 1600)
    torch.manual_seed(0)
    starts = task._crop(clock)[:, 0, 0]
    assert task._crop(clock).shape == (50, 1, 1024) and len(set(starts.tolist())) > 5
    assert set((starts % 64).tolist()) == {0.0}
    assert torch.equal(make_task(base, crop_seconds=0.0)._crop(clock), clock)


def test_a_run_that_was_killed_goes_on_as_if_it_had_not(manifest: str, base: str, tmp_path: Path) -> None:
    options = {"scheduler": lambda optimizer: WarmupCosine(optimizer, 2, 8)}
    whole, second = Learned(), Learned()
    wanted = make_task(base, **options)
    make_trainer(tmp_path / "whole", 6, whole).fit(wanted, make_data(manifest))
    saved = ModelCheckpoint(tmp_path / "killed", every_n_train_steps=3, save_last=True, save_top_k=0)
    make_trainer(tmp_path / "killed", 4, saved).fit(make_task(base, **options), make_data(manifest))
    task = make_task(base, **options)
    for parameter in task.parameters():
        torch.nn.init.zeros_(parameter)  # all of it must come from the checkpoint
    again = make_trainer(tmp_path / "killed", 6, second)
    again.fit(task, make_data(manifest), ckpt_path=str(tmp_path / "killed" / "last.ckpt"))
    assert second.steps == whole.steps[3:] and changed(task, weights_of(wanted)) == set()


def test_the_export_decodes_the_codes_of_its_base_to_another_sound(manifest: str, base: str, tmp_path: Path) -> None:
    task = make_task(base, export=str(tmp_path / "codec"))
    make_trainer(tmp_path / "run", 5).fit(task, make_data(manifest))
    begun, made = (checkpoint.load(NeuralCodec, folder).eval() for folder in (base, tmp_path / "codec"))
    sound = 0.5 * torch.randn(1, 1, 1600, generator=torch.Generator().manual_seed(9))
    codes = begun.encode(sound)
    assert torch.equal(made.encode(sound), codes) and made.config.convnext.postfilter == 4
    assert not torch.equal(made.decode(codes), begun.decode(codes))
    assert checkpoint.fingerprint(begun) != checkpoint.fingerprint(made)


def test_a_codec_that_normalises_learns_from_what_its_encoder_hears(tmp_path: Path) -> None:
    codec = NeuralCodec(replace(CODEC, normalize=True))
    sound = 0.1 * torch.randn(2, 1, 1600, generator=torch.Generator().manual_seed(4))
    codec.begin(sound.repeat(4, 1, 1))
    checkpoint.save(codec, tmp_path / "codec")
    task = make_task(str(tmp_path / "codec"))
    task.codec.eval()
    torch.manual_seed(0)
    loud, _, real = task._magnitudes(sound)
    torch.manual_seed(0)
    louder, _, real_louder = task._magnitudes(4 * sound)
    torch.testing.assert_close(real, real_louder, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(loud, louder, rtol=1e-3, atol=1e-3)


def test_the_discriminator_learns_at_its_own_rate(base: str) -> None:
    task = make_task(base, discriminator_rate=3.0)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in task.configure_optimizers()[0]]
    assert rates == [pytest.approx(3e-3), pytest.approx(9e-3)]


def test_weights_under_other_names_are_refused(base: str) -> None:
    wanted = r"loss_weights names .*wanted \['adversarial', 'detail', 'feature', 'patches'\]"
    with pytest.raises(ValueError, match=wanted):
        make_task(base, loss_weights={**DEFAULT_WEIGHTS, "mel": 1.0})


def test_a_codec_of_another_body_is_refused(tmp_path: Path) -> None:
    checkpoint.save(NeuralCodec(replace(CODEC, convnext=replace(BODY, linear=False))), tmp_path / "codec")
    with pytest.raises(ValueError, match="needs a convnext body with linear and noise"):
        make_task(str(tmp_path / "codec"))


def test_codec_task_leaves_postfilters_to_this_one() -> None:
    with pytest.raises(ValueError, match="PostfilterTask"):
        CodecTask(replace(CODEC, convnext=replace(BODY, postfilter=4)))
