"""LMTask: trains a StreamLM on codes, and exports it with what made them: AudioGen, or a stage of AudioLM.

B batch, K codebooks, T frames, V codebook size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import register_fsdp_forward_method

from audiolm_kit import checkpoint, compiled
from audiolm_kit.conditioning import (
    Context,
    TextConditioner,
    TextConfig,
    caption_texts,
    drop,
    text_files,
    text_folders,
)
from audiolm_kit.data.modules import TokenBatch, TokenSource
from audiolm_kit.layers import CrossAttention, FeedForward, SelfAttention
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.protocols import Codec
from audiolm_kit.stages import Source, Stage
from audiolm_kit.training.flops import lm_flops
from audiolm_kit.training.optim import WarmupConstant, fused, parameter_groups
from audiolm_kit.training.sharding import gathered, is_sharded, shard
from audiolm_kit.training.stages import Tokenizer, check_agreement, entries, open_tokenizers, stage_of
from audiolm_kit.training.task import Task
from audiolm_kit.training.throughput import Work
from audiolm_kit.training.vocabulary import keep, kept, vocabulary_of

KIND = "AudioGen"
STAGE_KIND = "AudioLMStage"
EXCHANGED = 4
"""Batches of a validation whose prefixes are exchanged."""
MATRICES = (SelfAttention, CrossAttention, FeedForward)
"""What is sharded piece by piece: nearly all weights of a model, and nothing but matrices."""


class LMTask(Task):
    """A language model learns the codes of a codec, given their captions, or a stage of AudioLM (``StageData``).

    Args:
        lm: the architecture; its ``num_codebooks`` and ``codebook_size`` must be those that are learned, its ``prefix``
            those of the codes in front. With ``text.kind`` small, a vocabulary of ``text.pieces`` pieces is trained on
            the captions of the training shards.
        codec: folder of the codec checkpoint that made the shards; it becomes part of the exported checkpoint. The
            semantic stage needs none.
        context_dropout: share of the items that are learned without their caption, for guidance.
        optimizer: for all weights; its weight decay leaves norms, embeddings and biases alone.
        scheduler: of the learning rate, moved on once a step.
        gradient_checkpointing: keep less for the way back and compute it again: see ``Transformer.checkpointing``.
        text_cache: folder that keeps what a T5 has read, so that each caption is read once; empty for none.
        semantic: folder of the semantic tokenizer, as ``codec``, for the stages that learn its codes or stand on them.
        compile: let torch.compile make the transformer's kernels: a slow start, then faster steps. Checkpoints and
            exports are the same.
        prefix_dropout: share of the items that a stage learns without the codes that it stands on, for
            ``Sampling.prefix_guidance_scale``.
        codebook_init: codes begin with what they stand for, entries of codebooks and centroids (``StreamLM.begin``),
            and not at random: for models of little data, which otherwise have to learn which codes are alike.
        code_noise: up to these shares of the codes that others are told from are chance, one for each codebook, the
            last for all further ones; how large a share is drawn anew for each item, codebook and step. A model that
            knows its data by heart else has never seen what follows a wrong code. With more for fine codebooks than
            for the first, the first learns to go on without them.
    """

    def __init__(
        self,
        lm: LMConfig,
        codec: str = "",
        context_dropout: float = 0.1,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable = WarmupConstant,
        gradient_checkpointing: bool = False,
        text_cache: str = "",
        export: str = "",
        export_every: int = 0,
        semantic: str = "",
        compile: bool = False,  # noqa: A002  the recipe's word
        prefix_dropout: float = 0.0,
        codebook_init: bool = False,
        code_noise: Sequence[float] = (),
    ) -> None:
        super().__init__(export, export_every)
        shares = [("context_dropout", context_dropout), ("prefix_dropout", prefix_dropout)]
        for name, share in (*shares, *(("code_noise", share) for share in code_noise)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}, wanted a share from 0 to 1")
        if len(code_noise) > lm.num_codebooks:
            raise ValueError(f"code_noise has {len(code_noise)} shares for {lm.num_codebooks} codebooks: give fewer")
        if prefix_dropout and not lm.prefix.num_codebooks:
            raise ValueError(f"prefix_dropout is {prefix_dropout}, but lm has no prefix to leave out: set it to 0")
        if text_cache and lm.text.kind != "t5":
            raise ValueError(f"text_cache keeps what a T5 has read, and text kind is {lm.text.kind!r}: leave it out")
        self.lm = self.make_lm(lm)
        self.lm.transformer.checkpointing = gradient_checkpointing
        self.context_dropout, self.prefix_dropout = context_dropout, prefix_dropout
        self.codebook_init, self.code_noise = codebook_init, tuple(code_noise)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.folders: dict[Source, str] = {"codec": codec, "semantic": semantic}
        self.text_cache, self.compiled = text_cache or None, compile
        # In a dict: neither trained nor moved nor saved with the run, yet safe from changes to their folders meanwhile.
        self._tokenizers: dict[Source, Tokenizer] = {}
        self._stage: Stage | None = None
        self.conditioner: TextConditioner | None = None

    def make_lm(self, config: LMConfig) -> StreamLM:
        """The model as it is before training; other tasks begin with another."""
        return StreamLM(config)

    # --- what must agree ----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Check tokenizers, shards and model against each other, and ready what reads the captions."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, TokenSource):
            raise ValueError(
                f"LMTask learns codes, got data of {type(data).__name__}: "
                "set data to audiolm_kit.data.modules.TokenData or audiolm_kit.data.stages.StageData"
            )
        super().setup(stage)
        self._stage = stage_of(data)
        self._tokenizers = open_tokenizers(self._stage, self.folders)
        if (codec := self._tokenizers.get("codec")) is not None:
            data.attach(cast(Codec, codec.model), codec.fingerprint)
        check_agreement(self.lm.config, data, self._tokenizers)
        if self.codebook_init and not self.batches_seen:  # a run that goes on brings its own weights
            self.lm.begin(*entries(data, self._tokenizers))
        text = self.lm.config.text
        if text.kind != "none" and self.conditioner is None:
            self.conditioner = self.make_conditioner(text, data.texts)
        if text.kind == "labels" or self.text_cache is not None:
            self._read_all(data.texts)
        if self.compiled:
            compiled.attempt(self.trainer.strategy.root_device)
            self.lm.transformer.compile()  # in place: no name of a weight changes

    def make_conditioner(self, config: TextConfig, texts: list[str]) -> TextConditioner:
        """What reads the captions, a vocabulary for these among it where the model takes one."""
        small = config.kind == "small"
        vocabulary = vocabulary_of(caption_texts(config, texts), config.pieces, self.trainer) if small else None
        return TextConditioner(config, vocabulary, self.text_cache)

    def _read_all(self, texts: list[str]) -> None:
        """Look up or compute what is said about all that is trained on, each rank its share, before training begins."""
        assert self.conditioner is not None
        share = list(dict.fromkeys(texts))[self.trainer.global_rank :: self.trainer.world_size]
        self.conditioner.fill(share, self.trainer.strategy.root_device)
        self.trainer.strategy.barrier("texts")

    # --- learning -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Cross-entropy in nats, mean over codebooks."""
        context = self._context(batch)
        if context is not None:
            context = drop(context, self.context_dropout)
        loss = self.lm.loss(batch.codes, batch.mask, context, self._prefix(batch), self._noisy(batch.codes))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.codes))
        self.count_batch()
        return loss

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Loss and accuracy of each codebook; batches weigh by their frames.

        Of a stage with codes in front also ``valid/prefix_gain``: by how much the first batches' loss rises where each
        row stands behind another row's codes. Near 0 they are not read.
        """
        context = self._context(batch)
        told = self.lm.told(batch.codes, batch.mask, context, batch.prefix)
        frames = batch.mask.sum()
        values = {"valid/loss": told.losses.mean()}
        if batch.prefix is not None and batch_idx < EXCHANGED:
            others = self.lm.told(batch.codes, batch.mask, context, batch.prefix.roll(1, 0))
            values["valid/prefix_gain"] = others.losses.mean() - told.losses.mean()
        for k, (loss, hits) in enumerate(zip(told.losses, told.right, strict=True)):
            values |= {f"valid/loss_{k}": loss, f"valid/accuracy_{k}": hits / frames}
        for name, value in values.items():
            self.log(name, value, prog_bar=name == "valid/loss", batch_size=int(frames), sync_dist=True)

    def work(self, batch: TokenBatch) -> Work:
        """The frames and codes that are learned of a batch, and the operations that reading all of it takes."""
        num_frames, padding = batch.mask.sum(), 1 - batch.mask.float().mean()
        units = {"frames": num_frames, "codes": num_frames * batch.codes.shape[1]}
        return Work(units, padding, lm_flops(self.lm, batch.codes.shape, batch.prefix))

    def _prefix(self, batch: TokenBatch) -> Tensor | None:
        """What a batch stands on, some of its rows on nothing."""
        if batch.prefix is None or not self.prefix_dropout:
            return batch.prefix
        left_out = torch.rand(len(batch.prefix), 1, 1, device=batch.prefix.device) < self.prefix_dropout
        return self.lm.without_prefix(batch.prefix).where(left_out, batch.prefix)

    def _noisy(self, codes: Tensor) -> Tensor | None:
        """Codes [B, K, T] as they are read: of each row's codebook a share by chance; None: as they are."""
        if not any(self.code_noise):
            return None
        most = [*self.code_noise, *self.code_noise[-1:] * codes.shape[1]][: codes.shape[1]]
        shares = torch.rand(codes.shape[:2], device=codes.device) * torch.tensor(most, device=codes.device)
        chance = torch.randint_like(codes, self.lm.config.codebook_size)
        return chance.where(torch.rand(codes.shape, device=codes.device) < shares[..., None], codes)

    def _context(self, batch: TokenBatch) -> Context | None:
        if self.lm.config.text.kind == "none":
            return None
        assert self.conditioner is not None
        # What is trained on has been read; a caption that is new all the same is a mixture's, and hardly comes again.
        return self.lm.condition(self.conditioner.prepare(batch.texts, self.device, keep=not self.training))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer, its schedule moved on once a step."""
        optimizer = fused(self.make_optimizer(parameter_groups(self.lm)))
        scheduler = self.make_scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def write_export(self, folder: str) -> None:
        """Write all that a generation needs: tokenizers, model and, for the small text encoder, its vocabulary."""
        lm = whole(self.lm)
        if self.trainer.is_global_zero:
            self.write_bundle(folder, lm)

    def write_bundle(self, folder: str, lm: StreamLM) -> None:
        """Write a whole model with its tokenizers and what reads its captions; on the first rank."""
        parts = {str(source): tokenizer.model for source, tokenizer in self._tokenizers.items()} | {"lm": lm}
        kind, about = (KIND, {}) if self._stage is None else (STAGE_KIND, {"stage": asdict(self._stage)})
        texts = self.conditioner
        checkpoint.save_bundle(folder, kind, parts, text_files(texts), about, folders=text_folders(texts))

    def shard(self, mesh: DeviceMesh, dtype: torch.dtype | None) -> None:
        """Each attention and feed-forward by itself, the rest together; the conditioner is whole on every rank."""
        units = [module for module in self.lm.modules() if isinstance(module, MATRICES)]
        shard(self.lm, units, mesh, dtype)
        for method in ("condition", "loss", "told"):  # they read weights too
            register_fsdp_forward_method(self.lm, method)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the text vocabulary too: the weights mean nothing without it."""
        super().on_save_checkpoint(checkpoint)
        keep(self.conditioner, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the vocabulary that the weights were trained with, even if the captions have changed."""
        super().on_load_checkpoint(checkpoint)
        if (vocabulary := kept(checkpoint)) is not None:
            self.conditioner = TextConditioner(self.lm.config.text, vocabulary, self.text_cache)


def whole(lm: StreamLM) -> StreamLM:
    """The model itself or, where it is sharded, a whole copy on the CPU of the first rank; every rank must call it."""
    if not is_sharded(lm):
        return lm
    weights = gathered(lm)
    with torch.device("meta"):
        copy = StreamLM(lm.config)
    if weights:
        copy.load_state_dict(weights, assign=True)
    return copy
