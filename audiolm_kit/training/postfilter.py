"""PostfilterTask: a codec's decoder learns to draw what codes leave open; the codes stay what they are.

B batch, C channels, L samples, S spectral frames, F frequencies.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from audiolm_kit import checkpoint, provenance
from audiolm_kit.codec.beginning import encoder_is_idle, gives_phases_alone
from audiolm_kit.codec.convnext import ConvNeXtDecoder, ConvNeXtEncoder
from audiolm_kit.codec.discriminator import Judgement
from audiolm_kit.codec.fourier_head import QUIETEST
from audiolm_kit.codec.losses import energy_distance, feature_matching, hinge_discriminator, hinge_generator
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.postfilter import SpectrogramDiscriminator, SpectrogramDiscriminatorConfig, patch_distance
from audiolm_kit.data.modules import SoundBatch
from audiolm_kit.training.optim import WarmupConstant, fused
from audiolm_kit.training.task import Task
from audiolm_kit.training.throughput import Work

DEFAULT_WEIGHTS = {"adversarial": 2.0, "feature": 10.0, "patches": 2.0, "detail": 0.0}


class PostfilterTask(Task):
    """The light body's postfilter learns against a discriminator of spectrograms (Kaneko et al. 2017).

    A codec that is only begun decodes the mean of what its codes leave open, which of rain is a hum. The discriminator
    hears that, and the decoder learns to draw one of the sounds that there could have been. Encoder, codebooks and
    linear way are not touched: codes, and models of them, stay as they are.

    Args:
        base: folder of the codec, with a convnext body that has a linear way and noise.
        postfilter: filters of the network that is added (``convnext.postfilter``); one that the codec has goes on
            learning, and must have as many.
        refine: rounds of Griffin and Lim in decoding; phases begin as noise and need some.
        width: of the decoder's blocks, which tell the postfilter what to draw, and ``layers`` how many of them: for a
            codec that is only begun, whose blocks have learned nothing (0: those that it has).
        discriminator: the discriminator's sizes.
        loss_weights: of ``adversarial feature patches detail``: of the discriminator's verdict, of its hidden layers,
            of the distance between means over patches, and of the energy distance of two draws, frequency by
            frequency (0: no second one is made).
        discriminator_rate: its learning rate, as a multiple of the decoder's (Heusel et al. 2017, arXiv:1706.08500).
        crop_seconds: a piece of each item is learned from in a step, drawn anew each time (0: all of it). Items are
            scaled as a whole, so that they are as loud as in decoding.
        optimizer: for the decoder and, made a second time, for the discriminator.
        scheduler: of both learning rates, moved on once a step.
    """

    def __init__(
        self,
        base: str,
        postfilter: int = 16,
        refine: int = 8,
        width: int = 0,
        layers: int = 0,
        discriminator: SpectrogramDiscriminatorConfig = SpectrogramDiscriminatorConfig(),  # noqa: B008  frozen
        loss_weights: dict[str, float] = DEFAULT_WEIGHTS,
        discriminator_rate: float = 2.0,
        crop_seconds: float = 1.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable = WarmupConstant,
        export: str = "",
        export_every: int = 0,
    ) -> None:
        super().__init__(export, export_every)
        if set(loss_weights) != set(DEFAULT_WEIGHTS):
            raise ValueError(f"loss_weights names {sorted(loss_weights)}, wanted {sorted(DEFAULT_WEIGHTS)}")
        self.automatic_optimization = False  # two optimizers
        begun = checkpoint.load(NeuralCodec, base)
        self.base, self.base_fingerprint = base, checkpoint.fingerprint(begun)
        self.codec = with_postfilter(begun, postfilter, refine, width, layers)
        self.discriminator = SpectrogramDiscriminator(discriminator)
        self.loss_weights, self.crop_seconds = dict(loss_weights), crop_seconds
        self.discriminator_rate = discriminator_rate
        self.make_optimizer, self.make_scheduler = optimizer, scheduler

    @property
    def decoder(self) -> ConvNeXtDecoder:
        """What learns, but for its linear way."""
        return cast(ConvNeXtDecoder, self.codec.decoder)

    def training_step(self, batch: SoundBatch, batch_idx: int) -> None:
        """One step of the discriminator and one of the decoder."""
        self.codec.eval()
        draws = 2 if self.loss_weights["detail"] else 1
        loud, every, real = self._magnitudes(self._crop(batch.audio), draws)
        made = every[: len(real)]
        optimizers, schedulers = self.optimizers(), self.lr_schedulers()
        # The plain optimizer: Lightning would count its steps as steps of the trainer.
        judge = self._pair(self.optimizers(use_pl_optimizer=False))[1]
        judged = self.discriminator(torch.cat([made.detach(), real]), torch.cat([loud, loud]))
        fakes, truths = (_items(judged, half) for half in (slice(None, len(real)), slice(len(real), None)))
        unfooled = hinge_discriminator(fakes, truths)
        judge.zero_grad()
        self.manual_backward(unfooled)
        judge.step()

        self.discriminator.requires_grad_(False)
        verdict = self.discriminator(made, loud)
        self.discriminator.requires_grad_(True)
        losses = {
            "adversarial": hinge_generator(verdict),
            "feature": feature_matching(verdict, truths),
            "patches": patch_distance(made, real),
        }
        if draws == 2:
            losses["detail"] = energy_distance(F.l1_loss, every, real)
        optimizer = self._pair(optimizers)[0]
        optimizer.zero_grad()
        self.manual_backward(torch.stack([self.loss_weights[name] * loss for name, loss in losses.items()]).sum())
        optimizer.step()
        for scheduler in self._pair(schedulers):
            scheduler.step()
        self.log_dict({f"train/{name}": loss for name, loss in losses.items()}, prog_bar=True)
        self.log("train/discriminator", unfooled)
        self.count_batch()

    def validation_step(self, batch: SoundBatch, batch_idx: int) -> None:
        """Distance of means over patches, and how much magnitudes vary from frame to frame: 1 is as in real sound."""
        loud, made, real = self._magnitudes(batch.audio)
        size, moves = len(real), [each.diff(dim=1).abs().mean() for each in (made, loud, real)]
        self.log("valid/patches", patch_distance(made, real), batch_size=size, prog_bar=True, sync_dist=True)
        self.log("valid/variation", moves[0] / moves[2], batch_size=size, prog_bar=True, sync_dist=True)
        self.log("valid/variation_before", moves[1] / moves[2], batch_size=size, sync_dist=True)

    def work(self, batch: SoundBatch) -> Work:
        """Seconds of sound."""
        seconds = batch.audio.shape[-1] / self.codec.sample_rate
        return Work({"sound_seconds": len(batch.audio) * min(seconds, self.crop_seconds or seconds)})

    def _crop(self, audio: Tensor) -> Tensor:
        """[B, C, L] -> a piece of each, [B, C, L'], from the beginning of a code frame on."""
        frame = self.codec.hop
        length = max(1, round(self.crop_seconds * self.codec.sample_rate / frame)) * frame
        if not self.crop_seconds or audio.shape[-1] <= length:
            return audio
        starts = torch.randint((audio.shape[-1] - length) // frame + 1, (len(audio),)).tolist()
        return torch.stack([item[:, start * frame :][:, :length] for item, start in zip(audio, starts, strict=True)])

    def _magnitudes(self, audio: Tensor, draws: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """[B, C, L] -> log magnitudes as the linear way says them, as they are made, and as they are; [B * C, S, F].

        Of several draws all, one after the other, [draws * B * C, S, F].
        """
        with torch.no_grad():
            given = self.codec.normalised(audio)
            latents = self.codec.latents(self.codec.codes(self.codec.encoder(given), self.codec.num_codebooks))
            real = self.decoder.head.measured(given).flatten(0, 1)
        frames = self.decoder.frames(latents)
        loud, made = self.decoder.head.drawn_magnitudes(frames.repeat(draws, 1, 1))
        loud = loud[: len(real)].detach().clamp_min(QUIETEST)
        return loud, made, real  # the discriminator's way back ends there

    def configure_optimizers(self) -> tuple[list[Any], list[Any]]:
        """One optimizer and one schedule for the decoder, one of each for the discriminator."""
        self.codec.requires_grad_(False)
        learning = [self.decoder.enter, self.decoder.mix, self.decoder.blocks, self.decoder.norm]
        for part in (*learning, self.decoder.head.postfilter):
            part.requires_grad_(True)
        weights = [weight for weight in self.codec.parameters() if weight.requires_grad]
        optimizers = [fused(self.make_optimizer(each)) for each in (weights, self.discriminator.parameters())]
        for group in optimizers[1].param_groups:
            group["lr"] *= self.discriminator_rate
        return optimizers, [self.make_scheduler(optimizer) for optimizer in optimizers]

    def save_checkpoint_folder(self, folder: str) -> None:
        """Write the codec alone."""
        checkpoint.save(self.codec, folder)

    def known(self) -> dict[str, Any]:
        """Also where the codec comes from."""
        return {**super().known(), "base": {"fingerprint": self.base_fingerprint, **provenance.read(self.base)}}


def _items(judged: Judgement, some: slice) -> Judgement:
    """What is said of some of the items."""
    return Judgement([each[some] for each in judged.logits], [[f[some] for f in each] for each in judged.features])


def with_postfilter(codec: NeuralCodec, filters: int, refine: int, width: int = 0, layers: int = 0) -> NeuralCodec:
    """The same codec, whose codes are the same, with a postfilter that changes nothing yet; or with its own.

    Args:
        width, layers: of new blocks in its decoder; 0 keeps those that it has.

    Raises:
        ValueError: its body is none that a postfilter fits, it has one of another size, or blocks that have learned
            something would be lost.
    """
    body = codec.config.convnext
    if codec.config.body != "convnext" or not (body.linear and body.noise and not body.linear_noise):
        raise ValueError(
            "a postfilter needs a convnext body with linear and noise, without linear_noise: begin such a codec"
        )
    if body.postfilter not in (0, filters):
        raise ValueError(f"the codec has a postfilter of {body.postfilter} filters, not of {filters}: set it to that")
    wanted = dataclasses.replace(body, postfilter=filters, refine=refine)
    if width or layers:
        wanted = dataclasses.replace(wanted, width=width or body.width, decoder_layers=layers or body.decoder_layers)
    renewed = (wanted.width, wanted.decoder_layers) != (body.width, body.decoder_layers)
    if renewed:
        encoder, decoder = cast(ConvNeXtEncoder, codec.encoder), cast(ConvNeXtDecoder, codec.decoder)
        if not (encoder_is_idle(encoder) and gives_phases_alone(decoder)):
            raise ValueError("the codec's blocks have learned, and would be lost: leave width and layers 0")
        wanted = dataclasses.replace(wanted, encoder_layers=0)  # nothing comes of them
    made = NeuralCodec(dataclasses.replace(codec.config, convnext=wanted))
    # New blocks begin at random; of the ways through the blocks all else is zeros, in the old codec and in the new.
    kept = {name: weight for name, weight in codec.state_dict().items() if not (renewed and _among_blocks(name))}
    made.load_state_dict({**made.state_dict(), **kept})
    return made


def _among_blocks(name: str) -> bool:
    """Whether a weight of a light body lies on the way through its blocks."""
    return name.startswith(("encoder.", "decoder.")) and ".linear." not in name
