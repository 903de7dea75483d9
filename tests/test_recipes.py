"""Every YAML of recipes/ is read by the real command line and takes two steps, at a tiny size.

Of those that only say what differs from others, the two steps are slow tests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

from audiolm_kit import audio, checkpoint, text
from audiolm_kit.cli import main
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.data.tokenize import TokenizeOptions, tokenize
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.semantic.features import FeatureConfig, FrameFeatures
from audiolm_kit.semantic.tokenizer import SemanticTokenizer, with_centroids
from audiolm_kit.transformer import TransformerConfig

RECIPES = Path(__file__).parents[1] / "recipes"
WITH_BOTH = sorted(path.parent for path in RECIPES.glob("*/lm.yaml") if path.with_name("codec.yaml").exists())
CAPTIONS = ("a bell rings twice", "rain on a tin roof", "a siren far away", "two quick clicks")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*captions make.*"),  # four captions are few
    pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*"),
    pytest.mark.filterwarnings("ignore::UserWarning:jsonargparse.*"),
]


class Recipe(NamedTuple):
    """A YAML file, on top of those that it differs from."""

    files: tuple[Path, ...]
    content: dict[str, Any]  # of all of them, as LightningCLI lays one upon the other

    @property
    def task(self) -> str:
        return self.content["model"]["class_path"].rpartition(".")[2]


def recipes(slow: bool = False) -> list[Any]:
    """All of them, each under its name; if ``slow``, differences bear that mark."""
    found = []
    for path in sorted(RECIPES.glob("*/*.yaml")):
        files = chain(path)
        content: dict[str, Any] = {}
        for file in files:
            content = laid_upon(content, yaml.safe_load(file.read_text()))
        marks = [pytest.mark.slow] if slow and len(files) > 1 else []
        found.append(pytest.param(Recipe(files, content), id=f"{path.parent.name}/{path.stem}", marks=marks))
    return found


def chain(path: Path) -> tuple[Path, ...]:
    """The files of the command that a recipe's first line says, and which ends with the recipe itself."""
    named = re.findall(r" -c (\S+)", path.read_text().partition("\n")[0])
    assert named and named[-1] == path.name, f"{path}: the first line is not `# audiolm-kit fit ... -c {path.name}`"
    return tuple(path.with_name(name) for name in named)


def laid_upon(below: Any, above: Any) -> Any:
    """Mappings key by key; anything else is replaced."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: laid_upon(below.get(key), value) for key, value in above.items()}


# --- what there is to learn from


def write_sounds(folder: Path, sample_rate: int) -> Path:
    """Four tones of 0.4 seconds, one of them for validation; the manifest."""
    rows, clock = [], torch.arange(int(0.4 * sample_rate)) / sample_rate
    for number, caption in enumerate(CAPTIONS):
        wave = 0.5 * torch.sin(2 * torch.pi * 200 * (number + 1) * clock)
        audio.write(folder / f"{number}.wav", audio.Sound(wave[None], sample_rate))
        rows.append(Row(str(folder / f"{number}.wav"), 0.4, caption=caption, split="train" if number else "valid"))
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def write_tokens(folder: Path, num_codebooks: int, codebook_size: int) -> None:
    """A tiny codec with codebooks as a recipe wants them, and shards of its codes: ``codec``, ``train``, ``valid``."""
    body = ConvNeXtConfig(dim=4, width=8, encoder_layers=1, decoder_layers=1, hop=16, fft_size=32, frames_per_code=1)
    quantizer = QuantizerConfig(num_codebooks=num_codebooks, codebook_size=codebook_size, dim=4)
    torch.manual_seed(0)
    codec = NeuralCodec(CodecConfig(sample_rate=1600, convnext=body, quantizer=quantizer))
    checkpoint.save(codec, folder / "codec")
    manifest, fingerprint = write_sounds(folder, 1600), checkpoint.fingerprint(codec)
    for split in ("train", "valid"):
        tokenize(codec, fingerprint, manifest, folder / split, TokenizeOptions(split=split))


T5_DIM = 12


def write_t5(folder: Path) -> Path:
    """A T5 encoder of random weights, and a tokenizer that knows the captions."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = ["<pad>", "<unk>", *sorted({word for text in CAPTIONS for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    T5EncoderModel(
        T5Config(vocab_size=len(words), d_model=T5_DIM, d_kv=4, d_ff=16, num_layers=1, num_heads=3)
    ).save_pretrained(folder)
    return folder


# --- tiny sizes


def tiny_codec(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Narrow bodies; rates, hops and codebooks stay the recipe's own."""
    wanted = recipe.content["model"]["init_args"]["codec"]
    sizes: dict[str, Any] = {"codec.quantizer.dim": 4, "discriminator.filters": 2}
    if wanted.get("body", "convnext") == "convnext":
        sizes |= {"codec.convnext.dim": 4, "codec.convnext.width": 8}
        sizes |= {"codec.convnext.encoder_layers": 1, "codec.convnext.decoder_layers": 1}
    else:
        sizes |= {"codec.seanet.dim": 4, "codec.seanet.filters": 2, "codec.seanet.lstm": 1}
    sizes |= {"quantize_from": 1, "adversarial_from": 1}
    data = {"manifest": write_sounds(folder, wanted["sample_rate"]), "seconds": 0.3, "batch_size": 2, "num_workers": 0}
    return prefixed("model", sizes) | prefixed("data", data)


def tiny_lm(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """A narrow model; codebooks, pattern and kind of text encoder stay the recipe's own."""
    wanted = recipe.content["model"]["init_args"]["lm"]
    if recipe.content["data"]["class_path"].endswith("StageData"):
        return tiny_stage(recipe, folder)
    write_tokens(folder, wanted["num_codebooks"], wanted["codebook_size"])
    sizes: dict[str, Any] = {"codec": folder / "codec"}
    sizes |= {"lm.transformer.dim": 16, "lm.transformer.heads": 2, "lm.transformer.layers": 1}
    kind = wanted.get("text", {}).get("kind")
    if kind == "small":
        sizes |= {"lm.text.dim": 8, "lm.text.heads": 2, "lm.text.layers": 1, "lm.text.pieces": 40}
    elif kind == "t5":
        sizes |= {"lm.text.dim": T5_DIM, "lm.text.name": write_t5(folder / "t5")}
    data: dict[str, Any] = {"batch_size": 2, "num_workers": 0}
    if recipe.content["data"]["class_path"].endswith("MixedTokenData"):
        data |= {"manifest": folder / "manifest.jsonl", "seconds": 0.1}
    else:
        data |= {"shards": folder / "train", "valid_shards": folder / "valid", "frames": 10}
    return prefixed("model", sizes) | prefixed("data", data)


def tiny_stage(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """A narrow stage of AudioLM; stage, codebooks, pattern and positions stay the recipe's own."""
    wanted, data = recipe.content["model"]["init_args"]["lm"], recipe.content["data"]["init_args"]
    semantic_size = (
        wanted["codebook_size"] if data["stage"] == "semantic" else wanted.get("prefix", {})["codebook_size"]
    )
    tokenizer = write_semantic(folder / "semantic", semantic_size, 1600, 64)
    sizes: dict[str, Any] = {"semantic": folder / "semantic"}
    sizes |= {"lm.transformer.dim": 16, "lm.transformer.heads": 2, "lm.transformer.layers": 1}
    small: dict[str, Any] = {"batch_size": 2, "num_workers": 0, "seconds": 0.2}
    shards = ("shards", "valid_shards")
    if data["stage"] != "semantic":
        count = max(*data.get("codebooks") or [wanted["num_codebooks"]], *data.get("prefix_codebooks", [0]))
        write_tokens(folder, count, wanted["codebook_size"])
        sizes["codec"] = folder / "codec"
        small |= {"shards": folder / "train", "valid_shards": folder / "valid"}
        shards = ("prefix_shards", "valid_prefix_shards")
    if data["stage"] != "fine":
        manifest, fingerprint = write_sounds(folder, 1600), checkpoint.fingerprint(tokenizer)
        for name, split in zip(shards, ("train", "valid"), strict=True):
            tokenize(tokenizer, fingerprint, manifest, folder / f"said_{split}", TokenizeOptions(split=split))
            small[name] = folder / f"said_{split}"
        if wanted.get("prefix", {}).get("frames_per_code") and not data.get("deduplicate", True):
            sizes["lm.prefix.frames_per_code"] = 4  # of these codes
    return prefixed("model", sizes) | prefixed("data", small)


def write_semantic(folder: Path, codebook_size: int, sample_rate: int, hop: int) -> SemanticTokenizer:
    """A semantic tokenizer of mel frames, as a recipe's targets or codes."""
    features = FrameFeatures(FeatureConfig("mel", sample_rate, hop, num_mels=8))
    centroids = torch.randn(codebook_size, 8, generator=torch.Generator().manual_seed(0))
    tokenizer = with_centroids(features, centroids)
    checkpoint.save(tokenizer, folder)
    return tokenizer


def tiny_masked(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """A narrow masked model; rates and codes stay the recipe's own."""
    wanted = recipe.content["model"]["init_args"]["masked"]
    write_semantic(folder / "targets", wanted["codebook_size"], wanted["sample_rate"], wanted["hop"])
    sizes = {
        "masked.dim": 8,
        "masked.heads": 2,
        "masked.layers": 1,
        "masked.class_dim": 8,
        "targets": folder / "targets",
    }
    data = {"manifest": write_sounds(folder, wanted["sample_rate"]), "seconds": 0.3, "batch_size": 2, "num_workers": 0}
    return prefixed("model", sizes) | prefixed("data", data)


def tiny_finetune(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """A base as small as models get, and its codes; what learns of it stays the recipe's own."""
    write_tokens(folder, 2, 16)
    vocabulary = text.train(list(CAPTIONS), folder / "text.model", size=40)
    captions = TextConfig(kind="small", dim=8, layers=1, heads=2, pieces=40)
    transformer = TransformerConfig(dim=16, heads=2, layers=1, cross_attention=True)
    lm = StreamLM(LMConfig(num_codebooks=2, codebook_size=16, transformer=transformer, text=captions))
    codec = checkpoint.load(NeuralCodec, folder / "codec")
    AudioGen(codec, lm, TextConditioner(captions, vocabulary)).save(folder / "base")
    places = {"base": folder / "base"}
    if recipe.content["model"]["init_args"]["adapters"]:
        places["adapters"] = folder / "adapters"
    data = {"shards": folder / "train", "valid_shards": folder / "valid", "frames": 10, "batch_size": 2}
    return prefixed("model", places) | prefixed("data", data)


def tiny_postfilter(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """A base as small as codecs get; pieces and the rates of what learns stay the recipe's own."""
    rate = recipe.content["data"]["init_args"]["sample_rate"]
    body = {"dim": 4, "width": 8, "encoder_layers": 0, "decoder_layers": 1, "hop": rate // 100, "fft_size": rate // 25}
    convnext = ConvNeXtConfig(**body, linear=True, noise=True)  # type: ignore[arg-type]
    torch.manual_seed(0)
    codec = NeuralCodec(CodecConfig(sample_rate=rate, convnext=convnext, quantizer=QuantizerConfig(2, 16, dim=4)))
    checkpoint.save(codec, folder / "base")
    sizes = {"base": folder / "base", "postfilter": 2, "discriminator.filters": "[2]"}
    data = {"manifest": write_sounds(folder, rate), "seconds": 0.4, "batch_size": 2, "num_workers": 0}
    return prefixed("model", sizes) | prefixed("data", data)


def tiny_scorer(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """A narrow listener; rates and lengths stay the recipe's own."""
    rate = recipe.content["data"]["init_args"]["sample_rate"]
    sizes = {"model.filters": "[4, 4]", "model.mels": 8, "model.dim": 4}
    sizes |= {"model.text.dim": 8, "model.text.heads": 2, "model.text.pieces": 40}
    data = {"manifest": write_sounds(folder, rate), "batch_size": 2, "num_workers": 0}
    return prefixed("model", sizes) | prefixed("data", data)


TINY: dict[str, Callable[[Recipe, Path], dict[str, Any]]] = {
    "CodecTask": tiny_codec,
    "ContrastiveTask": tiny_scorer,
    "FineTuneTask": tiny_finetune,
    "LMTask": tiny_lm,
    "MaskedTask": tiny_masked,
    "PostfilterTask": tiny_postfilter,
}


def prefixed(name: str, options: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": value for key, value in options.items()}


# --- the laws


def test_there_are_recipes_of_every_task() -> None:
    assert {each.values[0].task for each in recipes()} == TINY.keys()


@pytest.mark.parametrize("recipe", [each for each in recipes() if len(each.values[0].files) > 1])
def test_a_difference_is_read_upon_its_base_with_every_value_it_names(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for file in recipe.files for word in ("-c", str(file))]
    code = main(["fit", *given, "--print_config", "--trainer.accelerator", "cpu"])
    out, err = capsys.readouterr()
    assert code == 0, err
    read, named = yaml.safe_load(out), yaml.safe_load(recipe.files[-1].read_text())
    assert laid_upon(read, named) == read


@pytest.mark.parametrize("recipe", recipes(slow=True))
def test_a_recipe_takes_two_steps_validates_and_exports(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # whatever it writes beside itself
    options = TINY[recipe.task](recipe, tmp_path)
    options |= {"model.export": tmp_path / "model"}
    options |= prefixed("trainer", {"accelerator": "cpu", "devices": 1, "strategy": "auto"})
    options |= prefixed("trainer", {"max_steps": 2, "val_check_interval": 1, "default_root_dir": tmp_path / "run"})
    given = [word for file in recipe.files for word in ("-c", str(file))]
    given += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    code = main(["fit", *given, "--trainer.enable_progress_bar", "false"])
    assert code == 0, capsys.readouterr().err
    kind = json.loads((tmp_path / "model" / "config.json").read_text())["kind"]
    stage = "stage" in recipe.content["data"]["init_args"]
    lm = "AudioLMStage" if stage else "AudioGen"
    kinds = {"FineTuneTask": lm, "LMTask": lm, "MaskedTask": "MaskedModel", "ContrastiveTask": "ContrastiveScorer"}
    kinds |= dict.fromkeys(("CodecTask", "PostfilterTask"), "NeuralCodec")
    assert kind == kinds[recipe.task]


@pytest.mark.parametrize("recipe", recipes())
def test_a_recipe_keeps_checkpoints_to_go_on_from(recipe: Recipe) -> None:
    callbacks = recipe.content["trainer"]["callbacks"]
    (kept,) = [each for each in callbacks if each["class_path"].endswith("ModelCheckpoint")]
    assert kept["init_args"]["save_last"]
    steps = recipe.content["trainer"]["max_steps"]  # none for a codec that is only begun
    assert kept["init_args"]["every_n_train_steps"] < steps or (steps == 0 and recipe.task == "CodecTask")


@pytest.mark.parametrize("recipe", recipes())
def test_a_recipes_schedule_ends_with_its_training(recipe: Recipe) -> None:
    arguments = recipe.content["model"]["init_args"]["scheduler"].get("init_args", {})
    assert arguments.get("total_steps") in (None, recipe.content["trainer"]["max_steps"])


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in RECIPES.glob("*/*.yaml")}), ids=lambda path: path.name
)
def test_the_model_of_a_recipe_is_for_the_codec_of_that_recipe(folder: Path) -> None:
    if not ((folder / "codec.yaml").exists() and (folder / "lm.yaml").exists()):
        pytest.skip("it trains no model on a codec of its own")
    codec = yaml.safe_load((folder / "codec.yaml").read_text())["model"]["init_args"]["codec"]
    lm = yaml.safe_load((folder / "lm.yaml").read_text())["model"]["init_args"]["lm"]
    sizes = ("num_codebooks", "codebook_size")
    assert [lm[name] for name in sizes] == [codec["quantizer"][name] for name in sizes]
