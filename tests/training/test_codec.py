"""CodecTask learns with and without its judge, starts its codebooks when told, resumes exactly, exports a codec."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from small_runs import Learned, make_trainer
from torch import Tensor

import audiolm_kit
from audiolm_kit import audio, checkpoint
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.discriminator import DiscriminatorConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.data.modules import AudioData
from audiolm_kit.training.codec import DEFAULT_WEIGHTS, CodecTask
from audiolm_kit.training.optim import WarmupCosine

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*")

BODY = ConvNeXtConfig(dim=4, width=16, encoder_layers=1, decoder_layers=1, hop=16, fft_size=64, frames_per_code=1)
CODEC = CodecConfig(
    sample_rate=1600,
    convnext=ConvNeXtConfig(
        dim=4, width=16, encoder_layers=1, decoder_layers=1, hop=16, fft_size=64, frames_per_code=1
    ),
    quantizer=QuantizerConfig(num_codebooks=3, codebook_size=16, dim=4),
)
LINEAR = replace(CODEC, convnext=replace(CODEC.convnext, linear=True))
JUDGE = DiscriminatorConfig(filters=2, fft_sizes=(64,), dilations=(1,), kernel=(3, 3))
ADVERSARIAL = {"quantize_from": 1, "adversarial_from": 2}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six tones of half a second, one of them for validation."""
    folder, rows, clock = tmp_path_factory.mktemp("tones"), [], torch.arange(800) / 1600
    for number in range(6):
        wave = 0.4 * torch.sin(2 * torch.pi * 60 * (number + 1) * clock) * torch.exp(-2 * clock)
        audio.write(folder / f"{number}.wav", audio.Sound(wave[None], 1600))
        rows.append(Row(str(folder / f"{number}.wav"), 0.5, split="train" if number else "valid"))
    write_manifest(folder / "manifest.jsonl", rows)
    return str(folder / "manifest.jsonl")


def make_data(manifest: str, **options: Any) -> AudioData:
    return AudioData(manifest, **{"sample_rate": 1600, "seconds": 0.2, "batch_size": 4, **options})


def make_task(codec: CodecConfig = CODEC, **options: Any) -> CodecTask:
    pl.seed_everything(1, verbose=False)
    plain = {
        "quantize_from": 0,
        "fft_sizes": (64, 128),
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
    }
    return CodecTask(codec, replace(JUDGE, channels=codec.channels), **{**plain, **options})


def weights_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: torch.nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


# --- steps


@pytest.mark.parametrize("body", ["convnext", "stereo", "seanet"])
def test_two_steps_without_a_judge_train_the_codec_alone(manifest: str, tmp_path: Path, body: str) -> None:
    configs = {
        "convnext": CODEC,
        "stereo": replace(CODEC, channels=2),
        "seanet": replace(CODEC, body="seanet", seanet=SEANetConfig(ratios=(4, 2, 2), filters=2, dim=4, lstm=1)),
    }
    task = make_task(configs[body])
    codec, judge = weights_of(task.codec), weights_of(task.discriminator)
    trainer = make_trainer(tmp_path, 2, val_check_interval=2, num_sanity_val_steps=0, check_val_every_n_epoch=None)
    trainer.fit(task, make_data(manifest, channels=task.codec.channels))
    assert trainer.global_step == task.batches_seen == 2
    assert {name for name, _ in task.codec.named_parameters()} <= changed(task.codec, codec)
    assert changed(task.discriminator, judge) == set()
    metrics = trainer.callback_metrics
    assert {"train/mel", "train/wave", "train/commitment", "valid/mel", "valid/mel_half"} <= metrics.keys()
    assert not {"train/adversarial", "train/discriminator"} & metrics.keys()
    assert all(bool(value.isfinite()) for value in metrics.values())


def test_the_judge_learns_from_its_start_on_and_its_steps_are_not_counted(manifest: str, tmp_path: Path) -> None:
    task, learned = make_task(adversarial_from=1), Learned()
    judge = weights_of(task.discriminator)
    trainer = make_trainer(tmp_path, 3, learned)
    trainer.fit(task, make_data(manifest))
    assert trainer.global_step == task.batches_seen == 3
    assert {name for name, _ in task.discriminator.named_parameters()} <= changed(task.discriminator, judge)
    assert "train/adversarial" not in learned.steps[0]
    assert {"train/adversarial", "train/feature", "train/discriminator"} <= learned.steps[1].keys()


def test_overfitting_a_batch_lowers_the_mel_distance_a_lot(manifest: str, tmp_path: Path) -> None:
    quick = {"optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=2e-2), "quantizer_dropout": 0.0}
    learned, task = Learned(), make_task(**quick)
    whole = make_data(manifest, seconds=0.5, batch_size=5, gain_db=(0.0, 0.0))  # every crop is the whole recording
    make_trainer(tmp_path, 60, learned).fit(task, whole)
    mel = learned.values("train/mel")
    assert sum(mel[-5:]) < 0.6 * sum(mel[:5])


def test_magnitudes_are_learned_where_they_weigh(manifest: str, tmp_path: Path) -> None:
    reached = []
    for weight in (0.0, 100.0):
        learned, task = Learned(), make_task(magnitude_weight=weight, quantizer_dropout=0.0)
        make_trainer(tmp_path, 40, learned).fit(task, make_data(manifest, batch_size=5))
        reached.append(sum(learned.values("train/magnitude")[-5:]))
    assert reached[1] < 0.8 * reached[0]


def test_a_linear_way_begins_on_what_is_trained_on(manifest: str, tmp_path: Path) -> None:
    reached = []
    for codec in (CODEC, LINEAR):
        learned = Learned()
        make_trainer(tmp_path, 1, learned).fit(make_task(codec, quantize_from=1), make_data(manifest, batch_size=5))
        reached += learned.values("train/magnitude")
    assert reached[1] < 0.3 * reached[0]


def test_magnitudes_alone_are_learned_where_nothing_else_weighs(manifest: str, tmp_path: Path) -> None:
    silent = dict.fromkeys(DEFAULT_WEIGHTS, 0.0)
    learned = Learned()
    task = make_task(LINEAR, loss_weights=silent, magnitude_weight=1.0, adversarial_from=0)
    make_trainer(tmp_path, 30, learned).fit(task, make_data(manifest, batch_size=5))
    assert learned.steps[0].keys() == {"train/commitment", "train/magnitude"}
    values = learned.values("train/magnitude")
    assert sum(values[-5:]) < 0.9 * sum(values[:5])
    with pytest.raises(ValueError, match="magnitude_weight and all loss_weights are 0: nothing would be learned"):
        make_task(LINEAR, loss_weights=silent)


def test_frozen_codes_stay_and_the_decoder_learns(manifest: str, tmp_path: Path) -> None:
    class Begun(Callback):
        def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            self.weights = weights_of(task.codec)

    task, begun = make_task(LINEAR, frozen_codes=True, quantizer_dropout=0.0), Begun()
    make_trainer(tmp_path, 3, begun).fit(task, make_data(manifest, batch_size=5))
    moved = changed(task.codec, begun.weights)
    assert moved == {f"decoder.{name}" for name, _ in task.codec.decoder.named_parameters()}
    with pytest.raises(ValueError, match="frozen_codes keeps codes that a linear way begins with"):
        make_task(CODEC, frozen_codes=True)


def test_a_linear_way_has_to_see_what_is_trained_on(manifest: str, tmp_path: Path) -> None:
    data = make_data(manifest)
    data.setup("fit")
    with pytest.raises(ValueError, match="linear way begins on training sounds, got data of NoneType"):
        make_trainer(tmp_path, 1).fit(make_task(LINEAR), data.train_dataloader())


def test_half_precision_learns(manifest: str, tmp_path: Path) -> None:
    learned, task = Learned(), make_task(**ADVERSARIAL)
    make_trainer(tmp_path, 30, learned, precision="bf16-mixed").fit(task, make_data(manifest, batch_size=5))
    mel = learned.values("train/mel")
    assert sum(mel[-3:]) < sum(mel[:3])


# --- codebooks


def test_codebooks_start_by_kmeans_when_the_warm_up_ends(manifest: str, tmp_path: Path) -> None:
    class Watch(Callback):
        seen: list[tuple[bool, bool]] = []

        def on_train_batch_end(self, trainer: pl.Trainer, task: CodecTask, *_: Any) -> None:
            learned = changed(task.codec.quantizer, before)
            self.seen.append((bool(learned), all(bool(book.inited) for book in task.codec.quantizer.books)))

    task, learned = make_task(quantize_from=2, quantizer_dropout=0.0), Learned()
    before = weights_of(task.codec.quantizer)
    make_trainer(tmp_path, 4, watch := Watch(), learned).fit(task, make_data(manifest))
    assert watch.seen == [(False, False), (False, False), (True, True), (True, True)]
    commitments = learned.values("train/commitment")
    assert commitments[:2] == [0, 0] and all(value > 0 for value in commitments[2:])


def test_quantizer_dropout_uses_every_number_of_codebooks() -> None:
    task = make_task(quantizer_dropout=1.0)
    torch.manual_seed(0)
    assert set(task._num_codebooks(200).tolist()) == {1, 2, 3}
    half = make_task(quantizer_dropout=0.5)._num_codebooks(2000)
    assert 0.6 < float((half == 3).float().mean()) < 0.74  # a half, and a third of the other
    assert set(make_task(quantizer_dropout=0.0)._num_codebooks(50).tolist()) == {3}


# --- going on


@pytest.mark.parametrize(("num_workers", "linear"), [(0, False), (1, False), (0, True)])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not(
    manifest: str, tmp_path: Path, num_workers: int, linear: bool
) -> None:
    options = {**ADVERSARIAL, "scheduler": lambda optimizer: WarmupCosine(optimizer, 2, 8)}
    options["codec"] = LINEAR if linear else CODEC
    whole, first, second = Learned(), Learned(), Learned()
    wanted = make_task(**options)
    make_trainer(tmp_path / "whole", 6, whole).fit(wanted, make_data(manifest))

    saved = ModelCheckpoint(tmp_path / "killed", every_n_train_steps=3, save_last=True, save_top_k=0)
    make_trainer(tmp_path / "killed", 4, first, saved).fit(make_task(**options), make_data(manifest))
    assert first.steps == whole.steps[:4]

    task = make_task(**options)
    for parameter in task.parameters():
        torch.nn.init.zeros_(parameter)  # all of it must come from the checkpoint
    data = make_data(manifest, num_workers=num_workers)
    make_trainer(tmp_path / "killed", 6, second).fit(task, data, ckpt_path=str(tmp_path / "killed" / "last.ckpt"))
    assert second.steps == whole.steps[3:]
    assert changed(task, weights_of(wanted)) == set()
    assert task.balancer.state() == wanted.balancer.state()
    assert len(set(whole.values("train/mel"))) == 6


RECIPE = """
seed_everything: 3
model:
  class_path: audiolm_kit.training.codec.CodecTask
  init_args:
    codec:
      sample_rate: 1600
      convnext: {{dim: 4, width: 16, encoder_layers: 1, decoder_layers: 1, hop: 16, fft_size: 64, frames_per_code: 1}}
      quantizer: {{num_codebooks: 3, codebook_size: 16, dim: 4}}
    discriminator: {{filters: 2, fft_sizes: [64], dilations: [1], kernel: [3, 3]}}
    fft_sizes: [64, 128]
    quantize_from: 2
    adversarial_from: 4
    optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 1.0e-3}}}}
    scheduler: {{class_path: audiolm_kit.training.optim.WarmupCosine, init_args: {{warmup_steps: 5, total_steps: 80}}}}
    export: {run}/codec
data:
  class_path: audiolm_kit.data.modules.AudioData
  init_args: {{manifest: {manifest}, sample_rate: 1600, seconds: 0.2, batch_size: 4}}
trainer:
  accelerator: cpu
  max_steps: 80
  default_root_dir: {run}
  logger: {{class_path: pytorch_lightning.loggers.CSVLogger, init_args: {{save_dir: {run}, name: log}}}}
  log_every_n_steps: 1
  enable_model_summary: false
  enable_progress_bar: false
  callbacks:
    - class_path: pytorch_lightning.callbacks.ModelCheckpoint
      init_args: {{dirpath: {run}/checkpoints, save_last: true, save_top_k: 0, every_n_train_steps: 3}}
"""


@pytest.mark.slow
def test_fit_killed_with_9_and_started_again_ends_with_the_same_codec(manifest: str, tmp_path: Path) -> None:
    def start(name: str) -> subprocess.Popen[str]:
        (tmp_path / f"{name}.yaml").write_text(RECIPE.format(manifest=manifest, run=tmp_path / name))
        command = [sys.executable, "-m", "audiolm_kit", "fit", "-c", str(tmp_path / f"{name}.yaml")]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def last_losses(name: str) -> dict[str, str]:
        newest = max((tmp_path / name / "log").glob("version_*/metrics.csv"), key=lambda path: path.stat().st_mtime)
        *_, last = csv.DictReader(newest.open())
        return {key: value for key, value in last.items() if not key.startswith("speed/")}

    environment = {**os.environ, "PYTHONPATH": str(Path(audiolm_kit.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    whole = start("whole")
    assert whole.wait() == 0, whole.stderr.read()

    killed = start("killed")
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    while not last.exists() and killed.poll() is None:
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert 0 < torch.load(last, weights_only=False)["batches_seen"] < 80
    assert not (tmp_path / "killed" / "codec").exists()

    again = start("killed")
    told = again.communicate()[1]
    assert again.returncode == 0 and "goes on from" in told
    assert last_losses("killed") == last_losses("whole")
    one, other = (checkpoint.load(NeuralCodec, tmp_path / name / "codec") for name in ("killed", "whole"))
    assert checkpoint.fingerprint(one) == checkpoint.fingerprint(other)


# --- what comes out


def test_the_export_is_a_codec_that_decodes(manifest: str, tmp_path: Path) -> None:
    task = make_task(export=str(tmp_path / "codec"))
    make_trainer(tmp_path / "run", 2).fit(task, make_data(manifest))
    codec = checkpoint.load(NeuralCodec, tmp_path / "codec")
    assert codec.config == CODEC and changed(codec, weights_of(task.codec)) == set()
    data = make_data(manifest)
    data.setup("fit")
    codes = codec.encode(data.make_batch(0).audio)
    assert codec.decode(codes).shape == (4, 1, 320)
    assert [path.name for path in tmp_path.iterdir()] == ["codec"]


# --- refusals


@pytest.mark.parametrize(
    "weights",
    [{**DEFAULT_WEIGHTS, "mell": 1.0}, {name: 1.0 for name in DEFAULT_WEIGHTS if name != "wave"}, {}],
)
def test_weights_under_other_names_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"loss_weights names .*wanted \['adversarial', 'feature', 'mel', 'wave'\]"):
        make_task(loss_weights=weights)


def test_a_body_without_magnitudes_cannot_weigh_them() -> None:
    with pytest.raises(ValueError, match="magnitude_weight is 1.0, but body seanet has no magnitudes"):
        make_task(replace(CODEC, body="seanet", seanet=SEANetConfig(dim=4)), magnitude_weight=1.0)


def test_a_judge_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="discriminator.channels is 2, the codec has 1"):
        CodecTask(CODEC, replace(JUDGE, channels=2))
