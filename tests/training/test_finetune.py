"""FineTuneTask learns upon a base that it leaves alone, resumes exactly, and exports a whole model and its adapters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from small_runs import CAPTIONS, QUIET, Losses, a_codec, make_trainer
from torch import Tensor

import audiolm_kit
from audiolm_kit import checkpoint, provenance, text
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.data.modules import TokenData
from audiolm_kit.data.shards import TokenFormat, TokenRow, write_shards
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.adapters import adapt, load_adapters, merge_folder
from audiolm_kit.lm.lora import LoRAConfig, trained_weights
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.training.averaging import MovingAverage
from audiolm_kit.training.finetune import FineTuneTask
from audiolm_kit.training.lm import LMTask
from audiolm_kit.transformer import TransformerConfig

pytestmark = QUIET

LORA = LoRAConfig(rank=4, alpha=8.0, dropout=0.1, targets=("attention", "cross_attention", "heads"), whole=("norms",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``base`` that has learned to count upwards, and shards of codes that count downwards: ``down``, ``valid``."""
    path = tmp_path_factory.mktemp("finetune")
    torch.manual_seed(0)
    codec = NeuralCodec(a_codec())
    token_format = TokenFormat(checkpoint.fingerprint(codec), 2, 16, codec.frame_rate, codec.sample_rate)
    up, down = ([TokenRow(counting(n, way), CAPTIONS[n % 4]) for n in range(8)] for way in (1, -1))
    write_shards(path / "up", up, token_format)
    write_shards(path / "down", down, token_format)
    write_shards(path / "valid", down[:3], token_format)
    write_shards(path / "foreign", down, replace(token_format, fingerprint="0ther"))
    vocabulary = text.train(list(CAPTIONS), path / "text.model", size=40)
    captions = TextConfig(kind="small", dim=16, layers=1, heads=2, pieces=60)
    transformer = TransformerConfig(dim=32, heads=2, layers=2, cross_attention=True)
    lm = LMConfig(num_codebooks=2, codebook_size=16, transformer=transformer, text=captions)
    checkpoint.save(codec, path / "codec")
    pl.seed_everything(1, verbose=False)
    task = LMTask(lm, str(path / "codec"), optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2))
    task.conditioner = TextConditioner(captions, vocabulary)
    make_trainer(path, 30).fit(task, make_data(path, "up"))
    AudioGen(codec, task.lm, task.conditioner).save(path / "base")
    return path


def counting(first: int, way: int) -> Tensor:
    return torch.stack([(first + k + way * torch.arange(10)) % 16 for k in range(2)])


def make_task(folder: Path, lora: LoRAConfig = LORA, **options: object) -> FineTuneTask:
    pl.seed_everything(1, verbose=False)
    options = {"optimizer": lambda groups: torch.optim.AdamW(groups, lr=1e-2), **options}
    return FineTuneTask(str(folder / "base"), lora, **options)


def make_data(folder: Path, tokens: str = "down", **options: object) -> TokenData:
    return TokenData(str(folder / tokens), **{"frames": 10, "batch_size": 4, **options})


def valid_loss(folder: Path, model: Path, root: Path) -> float:
    """Of an exported model on the codes that count downwards, by a task that trains nothing."""
    task = FineTuneTask(str(model))
    trainer = make_trainer(root, 0)
    return trainer.validate(task, make_data(folder, valid_shards=str(folder / "valid")), verbose=False)[0]["valid/loss"]


def weights_of(model: Path) -> dict[str, Tensor]:
    return checkpoint.load(StreamLM, model / "lm").state_dict()


# --- learning


@pytest.mark.parametrize("lora", [LORA, LoRAConfig()], ids=["adapters", "all weights"])
def test_the_loss_on_something_new_falls_below_the_bases(folder: Path, tmp_path: Path, lora: LoRAConfig) -> None:
    task = make_task(folder, lora, export=str(tmp_path / "model"))
    make_trainer(tmp_path, 40).fit(task, make_data(folder))
    before = valid_loss(folder, folder / "base", tmp_path)
    assert before > 2
    assert valid_loss(folder, tmp_path / "model", tmp_path) < before - 1


def test_training_begins_with_the_base_itself(folder: Path, tmp_path: Path) -> None:
    losses, plain = Losses(), Losses()
    make_trainer(tmp_path, 1, losses).fit(make_task(folder), make_data(folder))
    make_trainer(tmp_path, 1, plain).fit(make_task(folder, LoRAConfig()), make_data(folder))
    assert losses.values == plain.values


def test_adapters_learn_and_the_base_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    task = make_task(folder, gradient_checkpointing=True)
    before = {name: weight.clone() for name, weight in task.lm.state_dict().items()}
    make_trainer(tmp_path, 3, gradient_clip_val=1.0).fit(task, make_data(folder))
    moved = {name for name, weight in task.lm.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved == trained_weights(task.lm).keys()
    assert any("adapters" in name for name in moved) and any("norm" in name for name in moved)
    assert task.lm.transformer.checkpointing


def test_full_fine_tuning_moves_all_weights(folder: Path, tmp_path: Path) -> None:
    task = make_task(folder, LoRAConfig())
    make_trainer(tmp_path, 2).fit(task, make_data(folder))
    base = weights_of(folder / "base")
    assert [name for name, weight in task.lm.state_dict().items() if torch.equal(weight, base[name])] == []


# --- exporting


def test_the_export_is_a_whole_model_and_its_adapters_lie_beside_it(folder: Path, tmp_path: Path) -> None:
    task = make_task(folder, export=str(tmp_path / "model"), adapters=str(tmp_path / "learned"))
    make_trainer(tmp_path / "run", 4).fit(task, make_data(folder))
    names = [{path.name for path in each.iterdir()} for each in (tmp_path / "model", folder / "base")]
    assert names[0] - {"training.json"} == names[1]
    assert weights_of(tmp_path / "model").keys() == weights_of(folder / "base").keys()
    (sound,) = AudioGen.load(tmp_path / "model").generate(["a bell rings"], seconds=0.1)
    assert sound.samples.shape == (1, 160)

    learned = load_adapters(tmp_path / "learned")
    assert learned.config == LORA
    lm = adapt(checkpoint.load(StreamLM, folder / "base" / "lm"), learned)
    assert all(torch.equal(weight, task.lm.state_dict()[name]) for name, weight in lm.state_dict().items())
    merge_folder(folder / "base", tmp_path / "learned", tmp_path / "merged")
    assert AudioGen.load(tmp_path / "merged").fingerprints == AudioGen.load(tmp_path / "model").fingerprints
    assert provenance.read(tmp_path / "merged") == provenance.read(tmp_path / "model")
    assert provenance.read(tmp_path / "merged")["base"]["fingerprint"] == learned.base


def test_a_models_own_text_encoder_goes_along(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = ["<pad>", "<unk>", *sorted({word for caption in CAPTIONS for word in caption.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>"}
    home = tmp_path / "home" / "text_encoder"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(home)
    T5EncoderModel(
        T5Config(vocab_size=len(words), d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=3)
    ).save_pretrained(home)
    captions = TextConfig(kind="t5", dim=12, name="./text_encoder")
    transformer = TransformerConfig(dim=16, heads=2, layers=1, cross_attention=True)
    lm = StreamLM(LMConfig(num_codebooks=2, codebook_size=16, transformer=transformer, text=captions))
    codec = checkpoint.load(NeuralCodec, folder / "codec")
    AudioGen(codec, lm, TextConditioner.load(captions, tmp_path / "home")).save(tmp_path / "base")

    places = {"export": str(tmp_path / "model"), "adapters": str(tmp_path / "learned")}
    make_trainer(tmp_path / "run", 1).fit(make_task(tmp_path, **places), make_data(folder))
    found = AudioGen.load(tmp_path / "model")
    assert found.generate(["two clicks"], seconds=0.1)
    merge_folder(tmp_path / "base", tmp_path / "learned", tmp_path / "merged")
    assert AudioGen.load(tmp_path / "merged").fingerprints == found.fingerprints


# --- going on


def test_a_run_that_was_killed_goes_on_with_the_same_losses_from_a_small_file(folder: Path, tmp_path: Path) -> None:
    options = {"context_dropout": 0.5}
    whole, average = Losses(), MovingAverage(0.7)
    make_trainer(tmp_path / "whole", 6, whole, average).fit(
        make_task(folder, export=str(tmp_path / "whole.model"), **options), make_data(folder)
    )

    first, saved = Losses(), ModelCheckpoint(tmp_path / "killed", every_n_train_steps=3, save_top_k=-1)
    make_trainer(tmp_path / "killed", 4, MovingAverage(0.7), first, saved).fit(
        make_task(folder, **options), make_data(folder)
    )
    (path,) = (tmp_path / "killed").glob("*.ckpt")
    kept = torch.load(path, weights_only=True)
    task = make_task(folder, export=str(tmp_path / "model"), **options)
    learned = {f"lm.{name}" for name in trained_weights(task.lm)}
    assert kept["state_dict"].keys() == kept["averages"].keys() == learned

    second = Losses()
    make_trainer(tmp_path / "killed", 6, MovingAverage(0.7), second).fit(task, make_data(folder), ckpt_path=path)
    assert first.values + second.values[1:] == whole.values
    assert len(set(whole.values)) == 6
    found, expected = weights_of(tmp_path / "model"), weights_of(tmp_path / "whole.model")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


LIGHTNINGS = pytest.param(EMAWeightAveraging(decay=0.7), id="Lightning's", marks=pytest.mark.slow)


@pytest.mark.parametrize("average", [pytest.param(MovingAverage(0.7), id="ours"), LIGHTNINGS])
def test_the_export_is_the_moving_average(folder: Path, tmp_path: Path, average: Callback) -> None:
    task = make_task(folder, export=str(tmp_path / "model"))
    plain = make_task(folder, export=str(tmp_path / "plain"))
    make_trainer(tmp_path, 4, average).fit(task, make_data(folder))
    make_trainer(tmp_path, 4).fit(plain, make_data(folder))
    base, found, last = (weights_of(each) for each in (folder / "base", tmp_path / "model", tmp_path / "plain"))
    name = "transformer.layers.0.attention.output.weight"
    assert 0 < (found[name] - base[name]).norm() < (last[name] - base[name]).norm()


def test_a_run_goes_on_upon_its_own_base_and_adapters_alone(folder: Path, tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=1)
    make_trainer(tmp_path, 1, saved).fit(make_task(folder), make_data(folder))
    other = make_task(folder, replace(LORA, alpha=4.0))
    with pytest.raises(ValueError, match="the run began with lora") as refusal:
        make_trainer(tmp_path, 2).fit(other, make_data(folder), ckpt_path=saved.best_model_path)
    assert "--fresh" in str(refusal.value) and "\n" not in str(refusal.value)
    moved = make_task(folder)
    moved.base_fingerprint = "0ther"
    with pytest.raises(ValueError, match="the run began with base [0-9a-f]{16}, not 0ther"):
        make_trainer(tmp_path, 2).fit(moved, make_data(folder), ckpt_path=saved.best_model_path)


# --- refusals


def test_codes_of_another_codec_than_the_bases_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="made by codec 0ther"):
        make_trainer(tmp_path, 1).fit(make_task(folder), make_data(folder, "foreign"))


def test_a_base_that_is_none_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a NeuralCodec, wanted an AudioGen"):
        FineTuneTask(str(folder / "codec"))
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        FineTuneTask(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"export": "base"}, "in the place of the base"),
        ({"export": "base/lm"}, "in the place of the base"),
        ({"export": "model", "adapters": "model/learned"}, "in the place of the export"),
        ({"adapters": "learned"}, "written with an export"),
        ({"export": "model", "adapters": "learned", "lora": LoRAConfig()}, "need lora.rank above 0"),
    ],
)
def test_outputs_that_would_destroy_or_come_to_nothing_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=message) as refusal:
        make_task(folder, **options)
    assert "\n" not in str(refusal.value)


def test_a_stage_of_audiolm_is_fine_tuned_as_that_stage(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "base", tmp_path / "base")
    config = checkpoint.read_json(tmp_path / "base" / "config.json")
    stage = {"name": "semantic", "codebooks": [0, 1], "seconds": 1.0}
    checkpoint.write_json(tmp_path / "base" / "config.json", {**config, "kind": "AudioLMStage", "stage": stage})
    with pytest.raises(ValueError, match="the data is no stage of AudioLM, and .* has learned stage semantic"):
        make_trainer(tmp_path, 1).fit(make_task(tmp_path), make_data(folder))


# --- many ranks


RECIPE = {
    "seed_everything": 1,
    "model": {
        "class_path": "audiolm_kit.training.finetune.FineTuneTask",
        "init_args": {
            "base": "base",
            "lora": {"rank": 2, "targets": ["attention", "cross_attention", "heads"], "whole": ["norms"]},
            "context_dropout": 0.0,  # coins belong to their rank
            "gradient_checkpointing": True,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}},
        },
    },
    "data": {"class_path": "audiolm_kit.data.modules.TokenData", "init_args": {"shards": "down", "frames": 6}},
    "trainer": {
        "accelerator": "cpu",
        "gradient_clip_val": 0.3,
        "logger": False,
        "callbacks": [
            {"class_path": "audiolm_kit.training.averaging.MovingAverage", "init_args": {"decay": 0.8}},
            {
                "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
                "init_args": {"save_last": True, "save_top_k": 0, "every_n_train_steps": 3},
            },
        ],
    },
}


def fit(folder: Path, strategy: str, root: Path, steps: int = 6) -> dict[str, Tensor]:
    """Train up to a step, four items in each, in one process or in two; what is exported, merged and not."""
    ranks = 1 if strategy == "auto" else 2
    options = {
        "trainer.strategy": strategy,
        "trainer.devices": ranks,
        "trainer.max_steps": steps,
        "trainer.default_root_dir": root / "run",
        "model.export": root / "model",
        "model.adapters": root / "learned",
        "data.batch_size": 4 // ranks,
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "audiolm_kit", "fit", "-c", str(root / "recipe.yaml"), *given]
    source = str(Path(audiolm_kit.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {**weights_of(root / "model"), **load_adapters(root / "learned").weights}


@pytest.mark.slow
def test_sharded_ranks_learn_what_one_learns_and_go_on(folder: Path, tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("alone", "two")]
    for root in roots:
        root.mkdir()
    fit(folder, "ddp", roots[1], steps=3)
    torch.testing.assert_close(fit(folder, "fsdp2", roots[1]), fit(folder, "auto", roots[0]), rtol=1e-4, atol=1e-6)
