"""CodecTask: trains a NeuralCodec by spectral distance, a discriminator, and a balancer between them.

B batch, C channels, L samples, K codebooks, T frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.codec.discriminator import DiscriminatorConfig, MultiScaleSTFTDiscriminator
from audiolm_kit.codec.losses import (
    Balancer,
    MelLoss,
    energy_distance,
    feature_matching,
    hinge_discriminator,
    hinge_generator,
)
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.data.modules import AudioData, SoundBatch
from audiolm_kit.training.optim import WarmupConstant, fused
from audiolm_kit.training.task import Task
from audiolm_kit.training.throughput import Work

DEFAULT_WEIGHTS = {"mel": 2.0, "wave": 0.1, "adversarial": 4.0, "feature": 4.0}

BEGIN_FRAMES = 40_000
"""Code frames that a linear way and its codebooks begin on, 13 minutes at 50 a second: 40 for each of 1,024 entries."""


class CodecTask(Task):
    """A codec learns to rebuild sound from codes.

    One batch is one step: the discriminator's own steps are not counted by the trainer.

    Args:
        codec: the architecture.
        discriminator: the judge's architecture; its ``channels`` must be the codec's.
        loss_weights: shares of the gradient by loss name, ``mel wave adversarial feature`` (see ``losses.Balancer``).
            All of them 0: magnitudes alone are learned, and no phases.
        magnitude_weight: of the distance between the decoder's log magnitudes and those of the sound, outside the
            balancer; for a convnext body (0: none). Pitch is learned from it before the phases let it be heard.
        commitment_weight: of the distance between latents and codebook entries, outside the balancer.
        optimizer: for the codec and, made a second time, for the discriminator.
        scheduler: of both learning rates, moved on once a step.
        quantize_from: the step at which the codebooks start; before it the body learns unquantised. A body quantised
            from its first step tends to collapse to a mean spectrum.
        adversarial_from: the step at which the discriminator starts (-1: never).
        quantizer_dropout: share of the items that use a random number of codebooks, so that one codec serves several
            bitrates.
        fft_sizes: windows of the mel distance, in samples.
        clip: largest norm of the codec's gradient (0: no limit).
        frozen_codes: the decoder alone learns: codes stay what they were when a linear way began.
    """

    def __init__(
        self,
        codec: CodecConfig,
        discriminator: DiscriminatorConfig = DiscriminatorConfig(),  # noqa: B008  frozen
        loss_weights: dict[str, float] = DEFAULT_WEIGHTS,
        commitment_weight: float = 0.25,
        magnitude_weight: float = 0.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable = WarmupConstant,
        quantize_from: int = 500,
        adversarial_from: int = -1,
        quantizer_dropout: float = 0.5,
        fft_sizes: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048),
        clip: float = 1.0,
        export: str = "",
        export_every: int = 0,
        frozen_codes: bool = False,
    ) -> None:
        super().__init__(export, export_every)
        if discriminator.channels != codec.channels:
            raise ValueError(
                f"discriminator.channels is {discriminator.channels}, the codec has {codec.channels}: set both alike"
            )
        if set(loss_weights) != set(DEFAULT_WEIGHTS):
            raise ValueError(f"loss_weights names {sorted(loss_weights)}, wanted {sorted(DEFAULT_WEIGHTS)}")
        if magnitude_weight and codec.body != "convnext":
            raise ValueError(
                f"magnitude_weight is {magnitude_weight}, but body {codec.body} has no magnitudes: set it 0"
            )
        if not magnitude_weight and not any(loss_weights.values()):
            raise ValueError("magnitude_weight and all loss_weights are 0: nothing would be learned; weigh one of them")
        if frozen_codes and not (codec.body == "convnext" and codec.convnext.linear):
            raise ValueError("frozen_codes keeps codes that a linear way begins with: set convnext.linear")
        if codec.body == "convnext" and codec.convnext.postfilter:
            raise ValueError(
                "a postfilter is learned behind a finished codec: leave it 0 here, and train it with PostfilterTask"
            )
        self.frozen_codes = frozen_codes
        self.automatic_optimization = False  # two optimizers, and the gradient starts at the decoder's output
        self.codec = NeuralCodec(codec)
        self.discriminator = MultiScaleSTFTDiscriminator(discriminator)
        self.mel_loss = MelLoss(codec.sample_rate, fft_sizes, by_frame=self.codec.draws_noise)
        self.balancer = Balancer(dict(loss_weights))
        self.commitment_weight, self.magnitude_weight, self.clip = commitment_weight, magnitude_weight, clip
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.quantize_from, self.adversarial_from = quantize_from, adversarial_from
        self.quantizer_dropout = quantizer_dropout

    def setup(self, stage: str) -> None:
        """Start the codec's linear way, if it has one, on what is trained on; a run that goes on brings its own."""
        super().setup(stage)
        if self.codec.config.body != "convnext" or not self.codec.config.convnext.linear or self.batches_seen:
            return
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, AudioData):
            raise ValueError(
                f"the codec's linear way begins on training sounds, got data of {type(data).__name__}: "
                "set data to audiolm_kit.data.modules.AudioData"
            )
        batches: list[Tensor] = []
        frames = 0
        while frames < BEGIN_FRAMES:
            batches.append(data.make_batch(len(batches)).audio)
            frames += len(batches[-1]) * -(-batches[-1].shape[-1] // self.codec.hop)
        self.codec.begin(torch.cat(batches))

    def training_step(self, batch: SoundBatch, batch_idx: int) -> None:
        """One step of the discriminator, once it has started, and one of the codec."""
        real = batch.audio
        quantize = self.batches_seen >= self.quantize_from
        heard = any(self.balancer.weights.values())
        draws = 2 if self.codec.draws_noise and heard else 0
        self.codec.quantizer.train(not self.frozen_codes)
        made = self.codec(real, self._num_codebooks(len(real)) if quantize else None, quantize, draws)
        adversarial = heard and 0 <= self.adversarial_from <= self.batches_seen
        if adversarial:
            self._discriminator_step(made.audio[: len(real)].detach(), real)
        losses = self._losses(made.audio, real, adversarial) if heard else {}
        self._codec_step(
            made.audio, losses, self.commitment_weight * made.commitment + self.magnitude_weight * made.magnitude
        )
        self.log_dict({f"train/{name}": loss for name, loss in losses.items()}, prog_bar=True)
        self.log_dict({"train/commitment": made.commitment, "train/magnitude": made.magnitude})
        self.count_batch()

    def validation_step(self, batch: SoundBatch, batch_idx: int) -> None:
        """Mel distance of the reconstruction with all codebooks, and with half of them."""
        half = torch.full((len(batch.audio),), max(1, self.codec.num_codebooks // 2), device=self.device)
        quantize = self.batches_seen >= self.quantize_from
        for name, number in (("mel", None), ("mel_half", half)):
            made = self.codec(batch.audio, number, quantize)
            distance = self.mel_loss(made.audio, batch.audio)
            self.log(f"valid/{name}", distance, batch_size=len(batch.audio), prog_bar=True, sync_dist=True)

    def work(self, batch: SoundBatch) -> Work:
        """Seconds of sound."""
        return Work({"sound_seconds": batch.audio.shape[0] * batch.audio.shape[-1] / self.codec.sample_rate})

    def _losses(self, made: Tensor, real: Tensor, adversarial: bool) -> dict[str, Tensor]:
        """The losses by name, each a function of the decoder's output, of one rendition or two."""
        distances: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "mel": self.mel_loss,
            "wave": torch.nn.functional.l1_loss,
        }
        losses = {name: energy_distance(distance, made, real) for name, distance in distances.items()}
        if adversarial:
            judged, truth = self.discriminator(made[: len(real)]), self.discriminator(real)
            losses |= {"adversarial": hinge_generator(judged), "feature": feature_matching(judged, truth)}
        return losses

    def _discriminator_step(self, made: Tensor, real: Tensor) -> None:
        # The plain optimizer: Lightning would count its steps as steps of the trainer.
        optimizer = self._pair(self.optimizers(use_pl_optimizer=False))[1]
        loss = hinge_discriminator(self.discriminator(made), self.discriminator(real))
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self._pair(self.lr_schedulers())[1].step()
        self.log("train/discriminator", loss)

    def _codec_step(self, made: Tensor, losses: dict[str, Tensor], inner: Tensor) -> None:
        """Learn from the losses at the decoder's output, balanced, and from what lies before it."""
        optimizer = self._pair(self.optimizers())[0]
        optimizer.zero_grad()
        if losses:
            # Its derivative at the output is the balanced gradient.
            inner = inner + (made * self.balancer.gradient(losses, made)).sum()
        self.manual_backward(inner)
        if self.clip:
            self.clip_gradients(optimizer, gradient_clip_val=self.clip, gradient_clip_algorithm="norm")
        optimizer.step()
        self._pair(self.lr_schedulers())[0].step()

    def _num_codebooks(self, batch: int) -> Tensor:
        """How many codebooks each item uses: all, or for a share of the items a random number."""
        most = self.codec.num_codebooks
        drawn = torch.randint(1, most + 1, (batch,), device=self.device)
        return torch.where(torch.rand(batch, device=self.device) < self.quantizer_dropout, drawn, most)

    def configure_optimizers(self) -> tuple[list[Any], list[Any]]:
        """One optimizer and one schedule for the codec, one of each for the discriminator."""
        if self.frozen_codes:
            self.codec.encoder.requires_grad_(False)
        learning = (self.codec.decoder if self.frozen_codes else self.codec, self.discriminator)
        optimizers = [fused(self.make_optimizer(part.parameters())) for part in learning]
        return optimizers, [self.make_scheduler(optimizer) for optimizer in optimizers]

    def save_checkpoint_folder(self, folder: str) -> None:
        """Write the codec alone: nobody needs the discriminator to encode."""
        checkpoint.save(self.codec, folder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the balancer's averages too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["balancer"] = self.balancer.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from them."""
        super().on_load_checkpoint(checkpoint)
        self.balancer.restore(checkpoint["balancer"])
