"""FineTuneTask: a trained model learns something else, all of it or adapters alone, and is exported whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from audiolm_kit import checkpoint, hub, provenance
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.lm.adapters import Adapters, save_adapters
from audiolm_kit.lm.lora import LoRAConfig, add, merged, model_of, trained_weights
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.stages import Stage
from audiolm_kit.training.lm import KIND, STAGE_KIND, LMTask
from audiolm_kit.training.optim import WarmupConstant
from audiolm_kit.training.record import write_record
from audiolm_kit.training.sharding import gathered, is_sharded

KEPT_AS = "fine_tuning"


class FineTuneTask(LMTask):
    """A trained model learns from the codes of its own codec, with the text encoder that it was trained with.

    With ``lora.rank`` above 0 only adapters learn (and what ``lora.whole`` names), and the run's checkpoints hold
    nothing else: to go on, a run needs its base where it was. The export is a model like any other, adapters merged.

    Args:
        base: an AudioGen checkpoint (a folder, or a name on the hub), or the folder of a stage of AudioLM. The model,
            its tokenizers and what reads its captions come from there.
        lora: which adapters learn; rank 0, its default, lets all weights learn.
        context_dropout: share of the items that are learned without their caption, for guidance.
        optimizer: for what learns; its weight decay draws adapters towards the base.
        scheduler: of the learning rate, moved on once a step.
        gradient_checkpointing: keep less for the way back and compute it again: see ``Transformer.checkpointing``.
        text_cache: folder that keeps what a T5 has read, so that each caption is read once; empty for none.
        adapters: folder that the adapters alone are written to whenever the model is exported; empty for none.
        compile: let torch.compile make the transformer's kernels, as in LMTask.
    """

    def __init__(
        self,
        base: str,
        lora: LoRAConfig = LoRAConfig(),  # noqa: B008  frozen
        context_dropout: float = 0.1,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable = WarmupConstant,
        gradient_checkpointing: bool = False,
        text_cache: str = "",
        export: str = "",
        export_every: int = 0,
        adapters: str = "",
        compile: bool = False,  # noqa: A002  the recipe's word
    ) -> None:
        folder = hub.checkpoint(base)
        found = _stage_of(folder)
        _check_outputs(folder, lora, export, adapters)
        trained = checkpoint.load(StreamLM, folder / "lm")
        tokenizers = [str(folder / name) for name in ("codec", "semantic")]
        training = (context_dropout, optimizer, scheduler, gradient_checkpointing, text_cache, export, export_every)
        super().__init__(trained.config, tokenizers[0], *training, semantic=tokenizers[1], compile=compile)
        self.base, self.lora, self.adapters = folder, lora, adapters
        self.base_stage, self.base_fingerprint = found, checkpoint.fingerprint(trained)
        self.lm.load_state_dict(trained.state_dict(), assign=True)
        if lora.rank:
            add(self.lm, lora)
            self.register_state_dict_post_hook(leave_out_frozen)
            self.register_load_state_dict_post_hook(expect_no_frozen)

    def make_lm(self, config: LMConfig) -> StreamLM:
        """A model without weights: it gets those of the base."""
        with torch.device("meta"):
            return StreamLM(config)

    def setup(self, stage: str) -> None:
        """As LMTask; and what is learned must be what the base has learned, a stage of AudioLM or none."""
        super().setup(stage)
        if _learns(self._stage) != _learns(self.base_stage):
            given, wanted = _described(self._stage), _described(self.base_stage)
            raise ValueError(f"the data is {given}, and {self.base} has learned {wanted}: give it data of that")
        if self.adapters:
            checkpoint.refuse_foreign(Path(self.adapters))

    def make_conditioner(self, config: TextConfig, texts: list[str]) -> TextConditioner:
        """What the base reads its captions with."""
        return TextConditioner.load(config, self.base, self.text_cache)

    def known(self) -> dict[str, Any]:
        """Also where the base comes from."""
        return {**super().known(), "base": {"fingerprint": self.base_fingerprint, **provenance.read(self.base)}}

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def write_export(self, folder: str) -> None:
        """Write the model with its adapters merged, and the adapters alone."""
        if not self.lora.rank:
            super().write_export(folder)
            return
        weights = gathered(self.lm) if is_sharded(self.lm) else self.lm.state_dict()
        if self.trainer.is_global_zero:
            if self.adapters:
                learned = {name: weights[name] for name in trained_weights(self.lm)}
                save_adapters(Adapters(self.lora, self.base_fingerprint, learned), self.adapters)
                write_record(self.adapters, self.trainer, self.known())
            self.write_bundle(folder, model_of(self.lm.config, merged(weights, self.lora)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the weights stand upon."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[KEPT_AS] = {"base": self.base_fingerprint, "lora": asdict(self.lora)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on only with the very base and adapters that the run began with."""
        super().on_load_checkpoint(checkpoint)
        begun = checkpoint.get(KEPT_AS, {})
        now = {"base": self.base_fingerprint, "lora": asdict(self.lora)}
        for name, value in now.items():
            if begun.get(name) != value:
                raise ValueError(
                    f"the run began with {name} {begun.get(name)}, not {value}: give that, or start over with --fresh"
                )


def leave_out_frozen(task: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """Of a run's state, leave out what its base holds anyhow."""
    for name, weight in task.named_parameters(prefix.removesuffix(".")):
        if not weight.requires_grad:
            state.pop(name, None)


def expect_no_frozen(task: nn.Module, found: Any) -> None:
    """Miss nothing that was left out: it stays as the base has it."""
    frozen = tuple(name for name, weight in task.named_parameters() if not weight.requires_grad)
    found.missing_keys[:] = [name for name in found.missing_keys if not name.endswith(frozen)]


def _stage_of(base: Path) -> Stage | None:
    """The stage of AudioLM that a checkpoint holds; None for an AudioGen.

    Raises:
        ValueError: it holds something else.
    """
    kind = checkpoint.kind_of(base)
    if kind == "AudioLM":
        raise ValueError(f"{base} holds an AudioLM, which is several models: give the folder of one of its stages")
    about = checkpoint.read_kind(base, kind if kind == STAGE_KIND else KIND)
    if kind == KIND:
        return None
    return checkpoint.from_plain(Stage, about.get("stage"), f"{base / checkpoint.CONFIG}: stage")


def _check_outputs(base: Path, lora: LoRAConfig, export: str, adapters: str) -> None:
    """Refuse what would write over the base, or come to nothing at the end."""
    if adapters and not (lora.rank and export):
        raise ValueError(f"adapters is {adapters}: they are written with an export, and need lora.rank above 0")
    places: Iterable[tuple[str, str]] = (("export", export), ("adapters", adapters))
    taken = {base.resolve(): "the base"}
    for name, place in places:
        path = Path(place).resolve()
        for each, whose in taken.items():
            if place and (path == each or each in path.parents):
                raise ValueError(f"{name} is {place}, in the place of {whose}: give another folder")
        taken[path] = f"the {name}"


def _learns(stage: Stage | None) -> tuple[Any, ...]:
    """What of a stage must not change between trainings."""
    if stage is None:
        return ()
    return stage.name, stage.codebooks, stage.prefix_codebooks, stage.deduplicated


def _described(stage: Stage | None) -> str:
    return "no stage of AudioLM" if stage is None else f"stage {stage.name} of AudioLM, {_learns(stage)[1:]}"
