"""MaskedTask: trains a MaskedModel on recordings, to tell the codes of a semantic tokenizer where it hears nothing.

B batch, L samples, T frames.
"""

from __future__ import annotations

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.data.modules import AudioData, SoundBatch
from audiolm_kit.semantic.masked import MaskedConfig, MaskedLoss, MaskedModel, masked_loss, span_mask
from audiolm_kit.semantic.tokenizer import SemanticTokenizer
from audiolm_kit.training.optim import WarmupConstant, fused, parameter_groups
from audiolm_kit.training.task import Task
from audiolm_kit.training.throughput import Work


class MaskedTask(Task):
    """A masked model learns codes of the sound that it does not hear, from the sound around it, as HuBERT does.

    At first the codes are those of k-means on cepstra; then those of a tokenizer that was fitted to the hidden states
    of the model itself, which learns anew from them. ``SemanticTokenizer`` is both.

    Args:
        masked: the architecture; sample rate, hop and ``codebook_size`` must be the targets'.
        targets: folder of the semantic tokenizer whose codes are to be told.
        mask_probability: share of the frames that begin a masked span.
        span: frames of a masked span; 10 are 0.2 s at 50 frames a second.
        alpha: weight of the masked frames in the loss, the rest is that of the unmasked ones. Below 1 the model also
            learns to tell the codes of what it hears.
        optimizer: for all weights; its weight decay leaves norms and biases alone.
        scheduler: of the learning rate, moved on once a step.
        gradient_checkpointing: keep less for the way back and compute it again: see ``Transformer.checkpointing``.
    """

    def __init__(
        self,
        masked: MaskedConfig,
        targets: str,
        mask_probability: float = 0.08,
        span: int = 10,
        alpha: float = 1.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable = WarmupConstant,
        gradient_checkpointing: bool = False,
        export: str = "",
        export_every: int = 0,
    ) -> None:
        super().__init__(export, export_every)
        if not 0 < mask_probability <= 1:
            raise ValueError(f"mask_probability is {mask_probability}, wanted a share above 0, at most 1")
        if span < 1:
            raise ValueError(f"span is {span}, wanted at least 1 frame")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}, wanted a share from 0 to 1")
        self.masked = MaskedModel(masked)
        self.masked.transformer.checkpointing = gradient_checkpointing
        self.mask_probability, self.span, self.alpha = mask_probability, span, alpha
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.targets_folder = targets
        # In a tuple: neither trained nor saved with the run.
        self._targets: tuple[SemanticTokenizer] | None = None

    # --- what must agree ----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Check recordings, targets and model against each other."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, AudioData):
            raise ValueError(
                f"MaskedTask learns from recordings, got data of {type(data).__name__}: "
                "set data to audiolm_kit.data.modules.AudioData"
            )
        super().setup(stage)
        own = self.masked.config
        if (data.sample_rate, data.channels) != (own.sample_rate, 1):
            raise ValueError(
                f"data are of {data.sample_rate} Hz and {data.channels} channels, the model wants {own.sample_rate} Hz "
                "and 1: set data.sample_rate and data.channels to those"
            )
        targets = checkpoint.load(SemanticTokenizer, self.targets_folder)
        self._check(targets)
        self._targets = (targets,)

    def _check(self, targets: SemanticTokenizer) -> None:
        own = self.masked.config
        for name in ("sample_rate", "hop", "codebook_size"):
            wanted, given = getattr(targets, name), getattr(own, name)
            if given != wanted:
                raise ValueError(
                    f"masked.{name} is {given}, but the targets of {self.targets_folder} have {wanted}: "
                    f"set masked.{name} to that"
                )

    # --- learning -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: SoundBatch, batch_idx: int) -> Tensor:
        """Cross-entropy in nats at spans that are drawn anew for each batch."""
        made = self._loss(batch)
        self.log("train/loss", made.loss, prog_bar=True, batch_size=len(batch.audio))
        self.log("train/accuracy", made.accuracy, batch_size=len(batch.audio))
        self.count_batch()
        return made.loss

    def validation_step(self, batch: SoundBatch, batch_idx: int) -> None:
        """The same at spans that are always the same; the accuracy is that of masked frames."""
        made = self._loss(batch, torch.Generator().manual_seed(batch_idx))
        for name, value in (("valid/loss", made.loss), ("valid/accuracy", made.accuracy)):
            self.log(name, value, prog_bar=True, batch_size=len(batch.audio), sync_dist=True)

    def work(self, batch: SoundBatch) -> Work:
        """Seconds of sound."""
        return Work({"sound_seconds": batch.audio.shape[0] * batch.audio.shape[-1] / self.masked.config.sample_rate})

    def _loss(self, batch: SoundBatch, generator: torch.Generator | None = None) -> MaskedLoss:
        targets = self._codes(batch.audio)
        batch_size, frames = targets.shape
        mask = span_mask(batch_size, frames, self.mask_probability, self.span, generator).to(self.device)
        return masked_loss(self.masked(batch.audio[:, 0], mask), targets, mask, self.alpha)

    def _codes(self, audio: Tensor) -> Tensor:
        """What is to be told of [B, 1, L]: [B, T]."""
        assert self._targets is not None
        (targets,) = self._targets
        return targets.to(self.device).encode(audio)[:, 0]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer, its schedule moved on once a step."""
        optimizer = fused(self.make_optimizer(parameter_groups(self.masked)))
        scheduler = self.make_scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def save_checkpoint_folder(self, folder: str) -> None:
        """Write the model alone."""
        checkpoint.save(self.masked, folder)
