"""ContrastiveTask: a small CLAP learns which captions fit which sounds, to choose among takes and to judge.

B batch, L samples, D width of the space.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.conditioning import TextConditioner, caption_texts, text_files, text_folders
from audiolm_kit.data.captioned import CaptionedAudio, CaptionedBatch
from audiolm_kit.evaluation.contrastive import KIND, PART, ContrastiveConfig, ContrastiveModel
from audiolm_kit.training.optim import WarmupConstant, fused, parameter_groups
from audiolm_kit.training.task import Task
from audiolm_kit.training.throughput import Work
from audiolm_kit.training.vocabulary import keep, kept, vocabulary_of


class ContrastiveTask(Task):
    """Of each batch, which caption belongs to which sound (Wu et al. 2023, arXiv:2211.06687, section 3.1).

    Sounds of one kind, by default of one caption, are no rivals: they share it (``CaptionedAudio.kinds``). What is
    exported is a ``ContrastiveScorer``.

    Args:
        model: the architecture; its sample rate and seconds must be those of the data. With ``text.kind`` small, a
            vocabulary of at most ``text.pieces`` pieces is trained on the captions of the training rows.
        optimizer: for all weights; its weight decay leaves norms, embeddings and biases alone.
        scheduler: of the learning rate, moved on once a step.
    """

    def __init__(
        self,
        model: ContrastiveConfig,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable = WarmupConstant,
        export: str = "",
        export_every: int = 0,
    ) -> None:
        super().__init__(export, export_every)
        self.model = ContrastiveModel(model)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.conditioner: TextConditioner | None = None

    def setup(self, stage: str) -> None:
        """Check the data against the model, and ready what reads the captions."""
        data, own = getattr(self.trainer, "datamodule", None), self.model.config
        if not isinstance(data, CaptionedAudio):
            raise ValueError(
                f"ContrastiveTask learns from sounds with captions, got data of {type(data).__name__}: "
                "set data to audiolm_kit.data.captioned.CaptionedAudio"
            )
        if (data.sample_rate, data.seconds) != (own.sample_rate, own.seconds):
            raise ValueError(
                f"the data gives {data.seconds:g} s at {data.sample_rate} Hz, the model hears {own.seconds:g} s at "
                f"{own.sample_rate} Hz: make them the same"
            )
        super().setup(stage)
        if self.conditioner is None:
            small, texts = own.text.kind == "small", caption_texts(own.text, data.texts)
            vocabulary = vocabulary_of(texts, own.text.pieces, self.trainer) if small else None
            self.conditioner = TextConditioner(own.text, vocabulary)

    # --- learning -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: CaptionedBatch, batch_idx: int) -> Tensor:
        """The contrastive loss, in nats."""
        loss, found = self._told(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.texts))
        self.log("train/found", found, batch_size=len(batch.texts))
        self.count_batch()
        return loss

    def validation_step(self, batch: CaptionedBatch, batch_idx: int) -> None:
        """The same of sounds that are not learned, and how many find a caption of theirs among those of the batch."""
        loss, found = self._told(batch)
        for name, value in (("valid/loss", loss), ("valid/found", found)):
            self.log(name, value, prog_bar=True, batch_size=len(batch.texts), sync_dist=True)

    def _told(self, batch: CaptionedBatch) -> tuple[Tensor, Tensor]:
        """The loss, and the share of sounds to which of all captions in the batch one of their own kind is nearest."""
        assert self.conditioner is not None
        sounds = self.model.hear(batch.audio)
        texts = self.model.read(self.conditioner.prepare(batch.texts, self.device))
        own = [batch.kinds.index(kind) for kind in batch.kinds]  # where a kind stands first
        places = torch.tensor(own, device=self.device)
        same = places[:, None] == places
        found = same.gather(1, (sounds @ texts.T).argmax(1, keepdim=True)).float().mean()
        return self.model.loss(sounds, texts, same), found

    def work(self, batch: CaptionedBatch) -> Work:
        """Seconds of sound."""
        return Work({"sound_seconds": batch.audio.numel() / self.model.config.sample_rate})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer, its schedule moved on once a step."""
        optimizer = fused(self.make_optimizer(parameter_groups(self.model)))
        scheduler = self.make_scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def save_checkpoint_folder(self, folder: str) -> None:
        """Write the network and what reads its captions."""
        texts = self.conditioner
        checkpoint.save_bundle(folder, KIND, {PART: self.model}, text_files(texts), folders=text_folders(texts))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the text vocabulary too: the weights mean nothing without it."""
        super().on_save_checkpoint(checkpoint)
        keep(self.conditioner, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the vocabulary that the weights were trained with, even if the captions have changed."""
        super().on_load_checkpoint(checkpoint)
        if (vocabulary := kept(checkpoint)) is not None:
            self.conditioner = TextConditioner(self.model.config.text, vocabulary)
