"""LMTask learns, resumes exactly, refuses codes that are not its own, and exports all that a generation needs.

How it learns on several ranks stands in test_many_ranks.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from small_runs import CAPTIONS, QUIET, Losses, a_codec, make_trainer
from torch import Tensor

from audiolm_kit import checkpoint, conditioning
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.data.modules import TokenBatch, TokenData, TokenSource
from audiolm_kit.data.shards import TokenFormat, TokenRow, write_shards
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.text import Vocabulary
from audiolm_kit.training.averaging import MovingAverage
from audiolm_kit.training.lm import LMTask
from audiolm_kit.training.optim import WarmupCosine
from audiolm_kit.training.throughput import Throughput
from audiolm_kit.transformer import TransformerConfig

pytestmark = QUIET

LM = LMConfig(
    num_codebooks=2,
    codebook_size=16,
    transformer=TransformerConfig(dim=32, heads=2, layers=1, dropout=0.1, cross_attention=True),
    text=TextConfig(kind="small", dim=16, layers=1, heads=2, pieces=60),
)


class Weights(Callback):
    """All weights of the model after every training batch."""

    def __init__(self) -> None:
        self.values: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, task: LMTask, *_: object) -> None:
        self.values.append({name: value.clone() for name, value in task.lm.state_dict().items()})


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a T5 encoder of random weights, 12 wide, and a tokenizer that knows the captions."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = str(tmp_path_factory.mktemp("t5"))
    words = ["<pad>", "<unk>", *sorted({word for text in CAPTIONS for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = T5Config(vocab_size=len(words), d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=3)
    T5EncoderModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec and shards of its codes: ``codec``, ``tokens``, ``valid``."""
    path = tmp_path_factory.mktemp("lm")
    torch.manual_seed(0)
    codec = NeuralCodec(a_codec())
    checkpoint.save(codec, path / "codec")
    token_format = TokenFormat(checkpoint.fingerprint(codec), 2, 16, codec.frame_rate, codec.sample_rate)
    rows = [TokenRow(torch.randint(0, 16, (2, 6 + number)), CAPTIONS[number % 4]) for number in range(8)]
    write_shards(path / "tokens", rows, token_format, rows_per_shard=3)
    write_shards(path / "valid", rows[:3], token_format)
    write_shards(path / "foreign", rows, replace(token_format, fingerprint="0ther"))
    return path


def make_task(folder: Path, lm: LMConfig = LM, **options: object) -> LMTask:
    pl.seed_everything(1, verbose=False)
    options = {"optimizer": lambda groups: torch.optim.AdamW(groups, lr=3e-3), **options}
    return LMTask(lm, str(folder / "codec"), **options)


def make_data(folder: Path, tokens: str = "tokens", **options: object) -> TokenData:
    return TokenData(str(folder / tokens), **{"frames": 10, "batch_size": 4, **options})


@pytest.mark.parametrize("pattern", ["parallel", "delay", "flatten"])
def test_two_steps_change_all_weights_and_validate_each_codebook(folder: Path, tmp_path: Path, pattern: str) -> None:
    task = make_task(folder, replace(LM, pattern=pattern), context_dropout=0.0)
    before = {name: value.clone() for name, value in task.lm.state_dict().items()}
    trainer = make_trainer(tmp_path, 2, val_check_interval=2, num_sanity_val_steps=0, gradient_clip_val=1.0)
    trainer.fit(task, make_data(folder, valid_shards=str(folder / "valid")))
    assert trainer.global_step == task.batches_seen == 2
    assert [name for name, value in task.lm.state_dict().items() if torch.equal(value, before[name])] == []
    metrics = trainer.callback_metrics
    assert {
        "train/loss",
        "valid/loss",
        "valid/loss_0",
        "valid/loss_1",
        "valid/accuracy_0",
        "valid/accuracy_1",
    } <= metrics.keys()
    assert float(metrics["valid/loss"]) == pytest.approx(
        float(metrics["valid/loss_0"] + metrics["valid/loss_1"]) / 2, rel=1e-5
    )


def test_overfitting_a_batch_lowers_the_loss_a_lot(folder: Path, tmp_path: Path) -> None:
    losses = Losses()
    plain = replace(LM, transformer=replace(LM.transformer, dropout=0.0))
    task = make_task(folder, plain, context_dropout=0.0, optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2))
    make_trainer(tmp_path, 60, losses).fit(task, make_data(folder, "valid", batch_size=3))
    assert losses.values[0] > 2.5
    assert losses.values[-1] < 0.1


def test_a_run_that_was_killed_goes_on_with_the_same_losses(folder: Path, tmp_path: Path) -> None:
    options = {"scheduler": lambda optimizer: WarmupCosine(optimizer, 2, 8), "context_dropout": 0.5}
    whole = Losses()
    make_trainer(tmp_path / "whole", 6, whole).fit(make_task(folder, **options), make_data(folder))

    first, saved = Losses(), ModelCheckpoint(tmp_path / "killed", every_n_train_steps=3, save_top_k=-1)
    make_trainer(tmp_path / "killed", 4, first, saved).fit(make_task(folder, **options), make_data(folder))
    (path,) = (tmp_path / "killed").glob("*.ckpt")
    assert first.values == whole.values[:4]

    second, task = Losses(), make_task(folder, **options)
    torch.nn.init.zeros_(task.lm.heads.weight)  # all of it must come from the checkpoint
    make_trainer(tmp_path / "killed", 6, second).fit(task, make_data(folder), ckpt_path=path)
    assert second.values == whole.values[3:]
    assert len(set(whole.values)) == 6


def test_a_resumed_run_keeps_its_vocabulary_when_the_captions_change(folder: Path, tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=1)
    task = make_task(folder)
    make_trainer(tmp_path, 1, saved).fit(task, make_data(folder))
    again = make_task(folder)
    make_trainer(tmp_path / "elsewhere", 2).fit(again, make_data(folder, "valid"), ckpt_path=saved.best_model_path)
    assert again.conditioner.vocabulary.model == task.conditioner.vocabulary.model


def test_the_vocabulary_is_trained_once_for_a_run_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_trainer(tmp_path, 1).fit(make_task(folder), make_data(folder))
    [kept] = tmp_path.glob("text-*.model")
    monkeypatch.setattr("audiolm_kit.training.vocabulary.train", lambda *_: pytest.fail("trained again"))
    again = make_task(folder)
    make_trainer(tmp_path, 1).fit(again, make_data(folder))
    assert again.conditioner is not None and again.conditioner.vocabulary is not None
    assert again.conditioner.vocabulary.model == kept.read_bytes()


def test_codes_of_another_codec_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="made by codec 0ther") as caught:
        make_trainer(tmp_path, 1).fit(make_task(folder), make_data(folder, "foreign"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"num_codebooks": 3}, {"codebook_size": 15}])
def test_a_model_of_another_shape_is_refused(folder: Path, tmp_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="the shards hold 2 of 16"):
        make_trainer(tmp_path, 1).fit(make_task(folder, replace(LM, **change)), make_data(folder))


def test_context_dropout_is_drawn_for_each_item(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[list[bool]] = []
    loss = StreamLM.loss

    def watch(
        lm: StreamLM, codes: Tensor, mask: Tensor, context: tuple[Tensor, Tensor], *rest: Tensor | None
    ) -> Tensor:
        kept.append(context[1].any(1).tolist())
        return loss(lm, codes, mask, context, *rest)

    monkeypatch.setattr(StreamLM, "loss", watch)
    make_trainer(tmp_path, 6).fit(make_task(folder, context_dropout=0.5), make_data(folder, batch_size=8))
    assert any(0 < sum(row) < 8 for row in kept)
    assert len({tuple(row) for row in kept}) > 1
    assert 12 <= sum(map(sum, kept)) <= 36
    kept.clear()
    make_trainer(tmp_path, 2).fit(make_task(folder, context_dropout=0.0), make_data(folder))
    assert all(all(row) for row in kept)


def test_masked_frames_do_not_count(folder: Path, tmp_path: Path) -> None:
    task = make_task(folder, replace(LM, transformer=replace(LM.transformer, dropout=0.0)), context_dropout=0.0)
    data = make_data(folder)
    make_trainer(tmp_path, 1).fit(task, data)
    batch = data.make_batch(0)
    assert not bool(batch.mask.all())
    changed = batch._replace(codes=torch.where(batch.mask[:, None], batch.codes, 7))
    task.log = lambda *_, **__: None
    losses = [task.training_step(each, 0).item() for each in (batch, changed)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_the_export_holds_all_that_a_generation_needs(folder: Path, tmp_path: Path) -> None:
    task = make_task(folder, export=str(tmp_path / "model"), export_every=1)
    make_trainer(tmp_path / "run", 2).fit(task, make_data(folder))
    about = checkpoint.read_kind(tmp_path / "model", "AudioGen")
    codec, lm = (
        checkpoint.load(NeuralCodec, tmp_path / "model" / "codec"),
        checkpoint.load(StreamLM, tmp_path / "model" / "lm"),
    )
    named = {name: about["fingerprints"][name] for name in ("codec", "lm")}
    assert named == {"codec": checkpoint.fingerprint(codec), "lm": checkpoint.fingerprint(lm)}
    assert set(about["fingerprints"]) == {"codec", "lm", "text.model"}
    assert about["fingerprints"]["codec"] == make_data(folder).format.fingerprint
    assert all(torch.equal(value, task.lm.state_dict()[name]) for name, value in lm.state_dict().items())
    assert Vocabulary.load(tmp_path / "model" / "text.model").size <= lm.config.text.pieces
    assert {path.name for path in tmp_path.iterdir()} == {"model", "run"}
    (sound,) = AudioGen.load(tmp_path / "model").generate(["a bell rings"], seconds=0.1)
    assert sound.sample_rate == 1600 and sound.samples.shape == (1, 160)


def test_an_export_never_replaces_a_folder_that_is_no_checkpoint(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    task = make_task(folder, export=str(tmp_path / "precious"))
    with pytest.raises(ValueError, match="is no checkpoint"):
        make_trainer(tmp_path / "run", 1).fit(task, make_data(folder))
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "mine"


def test_a_model_without_captions_trains_and_exports(folder: Path, tmp_path: Path) -> None:
    lm = replace(LM, text=TextConfig(), transformer=replace(LM.transformer, cross_attention=False))
    make_trainer(tmp_path / "run", 1).fit(make_task(folder, lm, export=str(tmp_path / "model")), make_data(folder))
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"config.json", "training.json", "codec", "lm"}


def test_gradient_checkpointing_changes_nothing_but_memory(folder: Path, tmp_path: Path) -> None:
    plain, saving = Losses(), Losses()
    make_trainer(tmp_path, 4, plain).fit(make_task(folder), make_data(folder))
    task = make_task(folder, gradient_checkpointing=True)
    make_trainer(tmp_path, 4, saving).fit(task, make_data(folder))
    assert task.lm.transformer.checkpointing and not task.lm.text_encoder.transformer.checkpointing
    assert saving.values == plain.values  # dropout and all


@pytest.mark.parametrize("average", [MovingAverage(0.7), EMAWeightAveraging(decay=0.7)], ids=["ours", "Lightning's"])
def test_the_export_is_the_moving_average(folder: Path, tmp_path: Path, average: Callback) -> None:
    weights, task = Weights(), make_task(folder, export=str(tmp_path / "model"))
    make_trainer(tmp_path, 4, average, weights).fit(task, make_data(folder))
    exported = checkpoint.load(StreamLM, tmp_path / "model" / "lm").state_dict()
    for name, value in exported.items():
        by_hand = weights.values[0][name]
        for later in weights.values[1:]:
            by_hand = 0.7 * by_hand + 0.3 * later[name]
        torch.testing.assert_close(value, by_hand)
        assert not torch.equal(value, weights.values[-1][name])


def test_each_caption_is_read_once_where_the_text_states_are_kept(
    folder: Path, tmp_path: Path, t5: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = replace(LM, text=TextConfig(kind="t5", dim=12, name=t5))
    plain, first, second = Losses(), Losses(), Losses()
    make_trainer(tmp_path, 3, plain).fit(make_task(folder, lm), make_data(folder))
    cache = str(tmp_path / "states")
    make_trainer(tmp_path, 3, first).fit(make_task(folder, lm, text_cache=cache), make_data(folder))
    monkeypatch.setattr(conditioning.FrozenT5, "_states", lambda *_: pytest.fail("read again"))
    task = make_task(folder, lm, text_cache=cache)
    make_trainer(tmp_path, 3, second).fit(task, make_data(folder))
    assert first.values == pytest.approx(plain.values, rel=1e-4) and second.values == first.values
    with pytest.raises(ValueError, match="text kind is 'small'"):
        make_task(folder, text_cache=cache)


def test_a_model_of_labels_learns_and_meets_no_unknown_one_on_its_way(folder: Path, tmp_path: Path) -> None:
    lm = replace(LM, text=TextConfig(kind="labels", dim=16, labels=CAPTIONS))
    task = make_task(folder, lm, export=str(tmp_path / "model"))
    make_trainer(tmp_path, 2).fit(task, make_data(folder))
    assert AudioGen.load(tmp_path / "model").generate(["two clicks"], seconds=0.1)
    fewer = replace(LM, text=TextConfig(kind="labels", dim=16, labels=CAPTIONS[:3]))
    untrained = make_task(folder, fewer)
    with pytest.raises(ValueError, match="two clicks"):
        make_trainer(tmp_path, 2).fit(untrained, make_data(folder))
    assert untrained.batches_seen == 0


def test_any_source_of_codes_will_do_and_is_handed_the_codec_first(folder: Path, tmp_path: Path) -> None:
    class Source(TokenSource):
        def __init__(self, inner: TokenData) -> None:
            super().__init__(4, 0, 0)
            self.inner, self.asked = inner, []

        def attach(self, codec: NeuralCodec, fingerprint: str) -> None:
            self.asked.append((type(codec), fingerprint))

        @property
        def format(self) -> TokenFormat:
            self.asked.append("format")
            return self.inner.format

        @property
        def texts(self) -> list[str]:
            return self.inner.texts

        def make_batch(self, step: int) -> TokenBatch:
            return self.inner.make_batch(step)

    source, ours, theirs = Source(make_data(folder)), Losses(), Losses()
    make_trainer(tmp_path, 2, ours).fit(make_task(folder), source)
    make_trainer(tmp_path, 2, theirs).fit(make_task(folder), make_data(folder))
    assert source.asked[:2] == [(NeuralCodec, source.format.fingerprint), "format"]
    assert ours.values == theirs.values


@pytest.mark.slow  # a minute of compiling
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_run_learns_the_same_under_the_same_names(folder: Path, tmp_path: Path) -> None:
    lm = replace(LM, transformer=replace(LM.transformer, dropout=0.0), text=replace(LM.text, dropout=0.0))
    plain, whole, saved = Losses(), Losses(), ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1)
    make_trainer(tmp_path, 4, plain).fit(make_task(folder, lm), make_data(folder))
    task = make_task(folder, lm, compile=True, export=str(tmp_path / "model"))
    make_trainer(tmp_path, 4, whole, saved).fit(task, make_data(folder, valid_shards=str(folder / "valid")))
    assert whole.values == pytest.approx(plain.values, rel=1e-4)
    exported = checkpoint.load(StreamLM, tmp_path / "model" / "lm").state_dict()
    assert exported.keys() == StreamLM(task.lm.config).state_dict().keys()
    path = next(path for path in tmp_path.glob("*.ckpt") if "step=2" in path.name)
    assert not [name for name in torch.load(path, weights_only=False)["state_dict"] if "_orig_mod" in name]
    resumed, uncompiled = Losses(), Losses()
    make_trainer(tmp_path, 4, resumed).fit(make_task(folder, lm, compile=True), make_data(folder), ckpt_path=path)
    assert resumed.values == whole.values[2:]
    make_trainer(tmp_path, 4, uncompiled).fit(make_task(folder, lm), make_data(folder), ckpt_path=path)
    assert uncompiled.values == pytest.approx(whole.values[2:], rel=1e-4)


def test_batches_of_like_lengths_are_learned_and_resumed(folder: Path, tmp_path: Path) -> None:
    whole, saved = Losses(), ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
    data = {"frames": 12, "batch_size": 2, "like_lengths": 4}
    make_trainer(tmp_path, 6, whole, saved).fit(make_task(folder), make_data(folder, **data))
    path, second = next(tmp_path.glob("*step=3*.ckpt")), Losses()
    make_trainer(tmp_path, 6, second).fit(make_task(folder), make_data(folder, **data), ckpt_path=path)
    assert second.values == whole.values[3:]


def test_the_log_tells_speed_and_padding(folder: Path, tmp_path: Path) -> None:
    speed = Throughput(peak_tflops=1.0)
    trainer = make_trainer(tmp_path, 3, speed, log_every_n_steps=3)
    data = make_data(folder)
    trainer.fit(make_task(folder), data)
    found = {name.removeprefix("speed/"): float(each) for name, each in trainer.callback_metrics.items()}
    masks = [data.make_batch(step).mask for step in (1, 2)]
    assert found["padding"] == pytest.approx(1 - float(torch.stack(masks).float().mean()))
    assert found["codes_per_second"] == pytest.approx(2 * found["frames_per_second"])
    assert found["frames_per_second"] * found["seconds_per_step"] == pytest.approx(sum(int(m.sum()) for m in masks) / 2)
    assert 0 < found["mfu"] < 1 and 0 <= found["data_wait"] < 1


def test_half_precision_learns(folder: Path, tmp_path: Path) -> None:
    losses = Losses()
    task = make_task(folder, optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2))
    make_trainer(tmp_path, 20, losses, precision="bf16-mixed").fit(task, make_data(folder, "valid", batch_size=3))
    assert losses.values[-1] < losses.values[0] - 0.5


def test_impossible_options_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="context_dropout is 1.5"):
        make_task(folder, context_dropout=1.5)
    with pytest.raises(ValueError, match="wanted|set data"):
        batches = torch.utils.data.DataLoader(
            [TokenBatch(torch.zeros(1, 2, 4).long(), torch.ones(1, 4).bool(), ["x"])], batch_size=None
        )
        make_trainer(tmp_path, 1).fit(make_task(folder), batches)
