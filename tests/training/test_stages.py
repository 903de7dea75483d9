"""LMTask learns each stage of AudioLM, resumes it, exports it with its tokenizers, and refuses what does not fit."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import CAPTIONS, QUIET, Losses, a_codec, make_trainer
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.data.modules import TokenData
from audiolm_kit.data.shards import TokenFormat, TokenRow, write_shards
from audiolm_kit.data.stages import StageData
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.protocols import AudioTokenizer
from audiolm_kit.semantic.features import FeatureConfig, FrameFeatures
from audiolm_kit.semantic.tokenizer import SemanticTokenizer, with_centroids
from audiolm_kit.stages import Stage
from audiolm_kit.training.averaging import MovingAverage
from audiolm_kit.training.lm import EXCHANGED, LMTask
from audiolm_kit.training.optim import WarmupCosine
from audiolm_kit.transformer import TransformerConfig

pytestmark = QUIET

CODEC = a_codec(4)
FEATURES = FeatureConfig("mel", sample_rate=1600, hop=32, num_mels=5)
SMALL = TransformerConfig(dim=16, heads=2, layers=1, dropout=0.1)
MODELS = {
    "semantic": LMConfig(num_codebooks=1, codebook_size=8, transformer=SMALL),
    "coarse": LMConfig(2, 16, "flatten", SMALL, prefix=Prefix(1, 8)),
    "fine": LMConfig(2, 16, "flatten", SMALL, prefix=Prefix(2, 16)),
    "acoustic": LMConfig(4, 16, "delay", SMALL, prefix=Prefix(1, 8)),
}
STAGES = {
    "semantic": Stage("semantic", (0, 1), 0.2),
    "coarse": Stage("coarse", (0, 2), 0.2, (0, 1)),
    "fine": Stage("fine", (2, 4), 0.2, (0, 2)),
    "acoustic": Stage("acoustic", (0, 4), 0.2, (0, 1)),
}
PARTS = {
    "semantic": {"semantic"},
    "coarse": {"semantic", "codec"},
    "fine": {"codec"},
    "acoustic": {"semantic", "codec"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizers ``semantic`` and ``codec``, and shards of both: ``semantic_tokens``, ``codec_tokens``."""
    path = tmp_path_factory.mktemp("stages")
    torch.manual_seed(0)
    features = FrameFeatures(FEATURES)
    tokenizers = {"semantic": with_centroids(features, torch.randn(8, features.dim)), "codec": NeuralCodec(CODEC)}
    for name, tokenizer in tokenizers.items():
        checkpoint.save(tokenizer, path / name)
        save_shards(path / f"{name}_tokens", tokenizer, checkpoint.fingerprint(tokenizer))
    return path


def save_shards(folder: Path, tokenizer: AudioTokenizer, fingerprint: str) -> None:
    """Rows of 0.1 to 0.32 s of random codes."""
    shape = tokenizer.num_codebooks, tokenizer.codebook_size
    about = TokenFormat(fingerprint, *shape, tokenizer.frame_rate, tokenizer.sample_rate)
    draw = torch.Generator().manual_seed(0)
    seconds = [0.1 + 0.02 * n for n in range(12)]
    codes = [torch.randint(shape[1], (shape[0], round(each * about.frame_rate)), generator=draw) for each in seconds]
    write_shards(folder, [TokenRow(each, CAPTIONS[n % 4], f"{n}.wav") for n, each in enumerate(codes)], about)


def make_task(folder: Path, stage: str, **options: object) -> LMTask:
    pl.seed_everything(1, verbose=False)
    given = {"lm": MODELS[stage], "codec": str(folder / "codec"), "semantic": str(folder / "semantic")}
    given |= {"optimizer": lambda groups: torch.optim.AdamW(groups, lr=1e-2)}
    return LMTask(**{**given, **options})


def make_data(folder: Path, stage: str, **options: object) -> StageData:
    semantic, codec = str(folder / "semantic_tokens"), str(folder / "codec_tokens")
    given = {"shards": semantic if stage == "semantic" else codec, "seconds": 0.2, "batch_size": 4}
    given |= {"codebooks": STAGES[stage].codebooks, "prefix_codebooks": STAGES[stage].prefix_codebooks}
    if stage in ("coarse", "acoustic"):
        given["prefix_shards"] = semantic
    return StageData(stage, **{**given, **options})


def validated(data: StageData) -> StageData:
    """The same, validated on what it learns."""
    data.valid_shards, data.valid_prefix_shards = data.shards, data.prefix_shards
    return data


@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine", "acoustic"])
def test_two_steps_change_all_weights_and_export_the_stage_with_its_tokenizers(
    folder: Path, tmp_path: Path, stage: str
) -> None:
    task = make_task(folder, stage, export=str(tmp_path / "model"))
    before = {name: value.clone() for name, value in task.lm.state_dict().items()}
    trainer = make_trainer(tmp_path / "run", 2, MovingAverage(0.5), val_check_interval=2, num_sanity_val_steps=0)
    data = validated(make_data(folder, stage))
    trainer.fit(task, data)
    assert trainer.global_step == 2
    assert [name for name, value in task.lm.state_dict().items() if torch.equal(value, before[name])] == []
    made = range(MODELS[stage].num_codebooks)
    assert {f"valid/loss_{k}" for k in made} | {"train/loss", "valid/loss"} <= trainer.callback_metrics.keys()
    assert ("valid/prefix_gain" in trainer.callback_metrics) == (stage != "semantic")

    about = checkpoint.read_kind(tmp_path / "model", "AudioLMStage")
    found = checkpoint.from_plain(Stage, about["stage"], "stage")
    assert found == data.stage == replace(STAGES[stage], codes_per_second=data.stage.codes_per_second)
    assert (30 < found.codes_per_second < 50) == (stage != "fine")
    named = {path.name for path in (tmp_path / "model").iterdir()}
    assert named == {"config.json", "training.json", "lm"} | PARTS[stage]
    kinds = {"semantic": SemanticTokenizer, "codec": NeuralCodec, "lm": StreamLM}
    loaded = {name: checkpoint.load(kinds[name], tmp_path / "model" / name) for name in PARTS[stage] | {"lm"}}
    checkpoint.check_bundle(tmp_path / "model", "AudioLMStage", checkpoint.bundle_fingerprints(loaded, {}))
    assert loaded["lm"].config == MODELS[stage]


def test_a_stage_that_was_killed_goes_on_with_the_same_losses(folder: Path, tmp_path: Path) -> None:
    options = {"scheduler": lambda optimizer: WarmupCosine(optimizer, 2, 8)}
    whole = Losses()
    make_trainer(tmp_path / "whole", 5, whole).fit(make_task(folder, "coarse", **options), make_data(folder, "coarse"))
    first, saved = Losses(), ModelCheckpoint(tmp_path / "killed", every_n_train_steps=3, save_top_k=-1)
    task = make_task(folder, "coarse", **options)
    make_trainer(tmp_path / "killed", 4, first, saved).fit(task, make_data(folder, "coarse"))
    (path,) = (tmp_path / "killed").glob("*.ckpt")
    second = Losses()
    task = make_task(folder, "coarse", **options)
    make_trainer(tmp_path / "killed", 5, second).fit(task, make_data(folder, "coarse"), ckpt_path=path)
    assert first.values == whole.values[:4] and second.values == whole.values[3:]
    assert len(set(whole.values)) == 5


@pytest.mark.parametrize("stage", ["coarse", "fine", "acoustic"])
def test_the_loss_is_of_the_stages_own_codes_alone(folder: Path, stage: str) -> None:
    task, batch = make_task(folder, stage).eval(), make_data(folder, stage).make_batch(0)
    assert batch.prefix is not None and not bool(batch.mask.all())
    task.log = lambda *_, **__: None
    given = batch.codes.masked_fill(~batch.mask[:, None], 16)
    guesses = task.lm(given, None, batch.prefix).log_softmax(-1)
    own = guesses.gather(-1, batch.codes[..., None])[..., 0]  # [B, K, T]: no guess is of a prefix
    wanted = -own.transpose(0, 1)[:, batch.mask].mean()
    assert task.training_step(batch, 0).item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.nn.init.zeros_(task.lm.heads.weight)
    assert task.training_step(batch, 0).item() == pytest.approx(math.log(16), rel=1e-6)


def test_a_batch_moves_to_a_device_with_its_prefix(folder: Path) -> None:
    task = make_task(folder, "coarse")
    for stage in ("semantic", "coarse"):
        batch = make_data(folder, stage).make_batch(0)
        moved = task.transfer_batch_to_device(batch, torch.device("meta"), 0)
        assert type(moved) is type(batch) and moved.texts == batch.texts
        tensors = [each for each in moved if isinstance(each, Tensor)]
        assert [each.device.type for each in tensors] == ["meta"] * (2 if stage == "semantic" else 3)


def test_the_gain_of_a_prefix_is_what_other_rows_codes_cost(folder: Path, tmp_path: Path) -> None:
    task, logged = make_task(folder, "coarse"), {}
    make_trainer(tmp_path, 1).fit(task, data := make_data(folder, "coarse"))
    torch.nn.init.normal_(task.lm.prefix_embedding.weight, std=3.0)
    task.eval().log = lambda name, value, **_: logged.update({name: float(value)})  # type: ignore[method-assign]
    batch = data.make_batch(0)
    task.validation_step(batch, 0)
    own, others = (
        task.lm.told(batch.codes, batch.mask, None, prefix) for prefix in (batch.prefix, batch.prefix.roll(1, 0))
    )
    assert logged["valid/prefix_gain"] == pytest.approx(float(others.losses.mean() - own.losses.mean()), abs=1e-6)
    assert abs(logged["valid/prefix_gain"]) > 1e-4
    logged.clear()
    task.validation_step(batch, EXCHANGED)  # some batches say enough
    assert logged.keys() & {"valid/loss", "valid/prefix_gain"} == {"valid/loss"}


def test_a_stage_may_read_captions_too(folder: Path, tmp_path: Path) -> None:
    text = TextConfig(kind="small", dim=8, layers=1, heads=1, pieces=60)
    lm = replace(MODELS["coarse"], text=text, transformer=replace(SMALL, cross_attention=True))
    task = make_task(folder, "coarse", lm=lm, export=str(tmp_path / "model"))
    make_trainer(tmp_path / "run", 1).fit(task, make_data(folder, "coarse"))
    assert (tmp_path / "model" / "text.model").is_file()


@pytest.mark.parametrize(("stage", "other"), [("semantic", "codec"), ("fine", "semantic")])
def test_only_folders_that_a_stage_needs_are_looked_at(folder: Path, tmp_path: Path, stage: str, other: str) -> None:
    task = make_task(folder, stage, **{other: "nowhere"})
    make_trainer(tmp_path, 1).fit(task, make_data(folder, stage))
    assert task.batches_seen == 1


@pytest.mark.parametrize(
    ("stage", "options", "wanted"),
    [
        ("semantic", {"semantic": ""}, "stage semantic has codes of a semantic tokenizer: set semantic"),
        ("coarse", {"semantic": ""}, "stage coarse has codes of a semantic tokenizer: set semantic"),
        ("coarse", {"codec": ""}, "stage coarse has codes of a codec: set codec"),
        ("coarse", {"codec": "semantic"}, "holds a SemanticTokenizer, wanted a NeuralCodec"),
        ("coarse", {"lm": MODELS["acoustic"]}, "for 4 codebooks of 16, stage coarse learns 2 of 16: set lm.num_codeb"),
        ("coarse", {"lm": replace(MODELS["coarse"], codebook_size=15)}, "stage coarse learns 2 of 16"),
        ("coarse", {"lm": MODELS["fine"]}, "on 2 codebooks of 16, stage coarse has 1 of 8 in front: set lm.prefix"),
        ("fine", {"lm": MODELS["coarse"]}, "on 1 codebooks of 8, stage fine has 2 of 16 in front"),
        ("fine", {"lm": replace(MODELS["fine"], prefix=Prefix())}, "on 0 codebooks of 1024, stage fine has 2 of 16"),
        ("semantic", {"lm": replace(MODELS["semantic"], prefix=Prefix(1, 8))}, "stage semantic has none in front"),
        (
            "fine",
            {"lm": replace(MODELS["fine"], prefix=Prefix(2, 16, 2.0))},
            "frames_per_code is 2, and stage fine makes 100 frames a second behind 100 in front: set it to 1",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(
    folder: Path, tmp_path: Path, stage: str, options: dict[str, object], wanted: str
) -> None:
    given = {key: str(folder / value) if value == "semantic" else value for key, value in options.items()}
    task = make_task(folder, stage, **given)
    with pytest.raises(ValueError, match=wanted) as caught:
        make_trainer(tmp_path, 1).fit(task, make_data(folder, stage))
    assert "\n" not in str(caught.value) and task.batches_seen == 0


@pytest.mark.parametrize(
    ("frames_per_code", "deduplicate", "fits"), [(2.0, False, True), (2.5, False, False), (5.0, True, True)]
)
def test_times_are_those_of_the_frames_unless_repeats_are_left_out(
    folder: Path, tmp_path: Path, frames_per_code: float, deduplicate: bool, fits: bool
) -> None:
    task = make_task(folder, "acoustic", lm=replace(MODELS["acoustic"], prefix=Prefix(1, 8, frames_per_code)))
    data = make_data(folder, "acoustic", deduplicate=deduplicate)
    with nullcontext() if fits else pytest.raises(ValueError, match="frames_per_code is 2.5, and stage acoustic"):
        make_trainer(tmp_path, 1).fit(task, data)
    assert task.batches_seen == fits


def test_codes_beside_are_refused_where_their_times_are_left_out(folder: Path, tmp_path: Path) -> None:
    task = make_task(folder, "acoustic", lm=replace(MODELS["acoustic"], prefix=Prefix(1, 8, 2.0, beside=True)))
    with pytest.raises(ValueError, match="beside is true, but stage acoustic leaves out repeats"):
        make_trainer(tmp_path, 1).fit(task, make_data(folder, "acoustic", deduplicate=True))
    make_trainer(tmp_path, 1).fit(task, make_data(folder, "acoustic", deduplicate=False))
    assert task.batches_seen == 1


@pytest.mark.parametrize(("side", "noun"), [("semantic", "semantic tokenizer"), ("codec", "codec")])
def test_shards_of_another_tokenizer_are_refused_on_either_side(
    folder: Path, tmp_path: Path, side: str, noun: str
) -> None:
    tokenizer = checkpoint.load(SemanticTokenizer if side == "semantic" else NeuralCodec, folder / side)
    save_shards(tmp_path / "tokens", tokenizer, "0ther")
    data = make_data(folder, "coarse", **{"shards" if side == "codec" else "prefix_shards": str(tmp_path / "tokens")})
    with pytest.raises(ValueError, match=f"made by {noun} 0ther, but .*{side} is {noun} [0-9a-f]{{16}}: tokenize with"):
        make_trainer(tmp_path, 1).fit(make_task(folder, "coarse"), data)


def test_plain_codes_need_a_codec_and_stand_on_nothing(folder: Path, tmp_path: Path) -> None:
    lm = LMConfig(num_codebooks=4, codebook_size=16, transformer=SMALL)
    data = TokenData(str(folder / "codec_tokens"), frames=10, batch_size=4)
    with pytest.raises(ValueError, match="that are learned are of a codec: set codec to the folder"):
        make_trainer(tmp_path, 1).fit(make_task(folder, "fine", lm=lm, codec=""), data)
    with pytest.raises(ValueError, match="stands on 2 codebooks, and TokenData has none in front: set lm.prefix.num"):
        make_trainer(tmp_path, 1).fit(make_task(folder, "fine", lm=replace(lm, prefix=Prefix(2, 16))), data)
    make_trainer(tmp_path, 1).fit(make_task(folder, "fine", lm=lm, export=str(tmp_path / "model")), data)
    assert "stage" not in checkpoint.read_kind(tmp_path / "model", "AudioGen")


def test_prefix_dropout_is_drawn_for_each_item(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[bool]] = []
    loss = StreamLM.loss

    def watch(lm: StreamLM, *given: Tensor) -> Tensor:
        codes = given[3] != lm.config.prefix.codebook_size
        seen.append(codes.any(dim=(1, 2)).tolist())
        return loss(lm, *given)

    monkeypatch.setattr(StreamLM, "loss", watch)
    for share, fewest, most in ((0.5, 6, 18), (0.0, 24, 24), (1.0, 0, 0)):
        seen.clear()
        make_trainer(tmp_path / str(share), 6).fit(
            make_task(folder, "acoustic", prefix_dropout=share), make_data(folder, "acoustic")
        )
        assert fewest <= sum(map(sum, seen)) <= most and len(seen) == 6
        assert share != 0.5 or any(0 < sum(row) < 4 for row in seen)


def test_what_stands_on_nothing_cannot_do_without_it(folder: Path) -> None:
    with pytest.raises(ValueError, match="prefix_dropout is 0.1, but lm has no prefix to leave out: set it to 0"):
        make_task(folder, "semantic", prefix_dropout=0.1)
    with pytest.raises(ValueError, match="prefix_dropout is 1.5, wanted a share from 0 to 1"):
        make_task(folder, "acoustic", prefix_dropout=1.5)
