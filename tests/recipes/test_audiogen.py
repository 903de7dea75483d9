"""recipes/audiogen: presets fit their codecs, the README's sizes are computed, its figures certain; commands parse."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from audiolm_kit import audio, cli
from audiolm_kit.arguments import parser_of
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.transformer import Transformer, TransformerConfig

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "audiogen"
README = (RECIPE / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "many_gpus.md").read_text(encoding="utf-8")
CAPTIONS = ("a bell rings twice", "rain on a tin roof", "a siren far away", "two quick clicks")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:jsonargparse.*")


def load(name: str) -> ModuleType:
    """A script of the recipe as a module."""
    spec = importlib.util.spec_from_file_location(f"audiogen_{name}", RECIPE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sizes = load("sizes")


# --- sizes


def test_the_readmes_sizes_are_those_of_the_files() -> None:
    [shown] = re.findall(r"<!-- sizes -->\n(.*?)\n<!-- /sizes -->", README, re.DOTALL)
    assert shown == sizes.table()


@pytest.mark.parametrize("name", sizes.PRESETS)
def test_a_preset_is_for_its_codec(name: str) -> None:
    content = sizes.read(sizes.PRESETS[name])
    options, data = content["model"]["init_args"], content["data"]["init_args"]
    codec_name = Path(options["codec"]).name
    codec = sizes.codec_of(sizes.read(sizes.CODECS[codec_name]))
    assert (options["lm"]["num_codebooks"], options["lm"]["codebook_size"]) == (
        codec.num_codebooks,
        codec.codebook_size,
    )
    assert data["frames"] / codec.frame_rate == (10 if name == "medium" else 5)
    assert Path(data["shards"]).parent.name == codec_name.replace("codec", "tokens")
    assert data["batch_size"] * 8 == 256


@pytest.mark.parametrize("files", [*sizes.PRESETS.values(), *sizes.CODECS.values()], ids="+".join)
def test_a_preset_exports_and_keeps_its_run_under_its_own_name(files: tuple[str, ...]) -> None:
    content = sizes.read(files)
    assert Path(content["model"]["init_args"]["export"]).name == files[-1]
    assert Path(content["trainer"]["default_root_dir"]).name == f"{files[-1]}.run"


def test_one_two_and_four_streams_carry_as_many_codes_a_second() -> None:
    codecs = [sizes.codec_of(sizes.read(files)) for name, files in sizes.CODECS.items() if name != "codec_medium"]
    assert [codec.frame_rate * codec.num_codebooks for codec in codecs] == [500, 500, 500]
    assert [codec.hop for codec in codecs] == [32, 64, 128]


def test_the_t5s_are_as_wide_as_the_presets_say() -> None:
    for files in sizes.PRESETS.values():
        text = sizes.read(files)["model"]["init_args"]["lm"]["text"]
        assert sizes.T5[text["name"]][0] == text["dim"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sizes.T5)
def test_a_t5_has_as_many_parameters_as_transformers_makes(name: str) -> None:
    from transformers import T5Config, T5EncoderModel

    width, inner, layers, heads = sizes.T5[name]
    config = T5Config(vocab_size=32128, d_model=width, d_kv=64, d_ff=inner, num_layers=layers, num_heads=heads)
    with torch.device("meta"):
        assert sizes.parameters(T5EncoderModel(config)) == sizes.t5_parameters(name)


def test_a_layer_keeps_as_many_bytes_as_the_estimate_has() -> None:
    steps, width = 200, 64

    def kept(layers: int) -> int:
        transformer = Transformer(TransformerConfig(dim=width, heads=4, layers=layers, cross_attention=True)).train()
        weights = list(transformer.parameters())
        own = {weight.untyped_storage().data_ptr() for weight in weights}
        held: list[torch.Tensor] = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: held.append(tensor) or tensor, lambda tensor: tensor
        )
        context = torch.randn(2, 2, width), torch.ones(2, 2, dtype=torch.bool)
        with hooks, torch.autocast("cpu", torch.bfloat16):
            transformer(torch.randn(2, steps, width, requires_grad=True), context)
        storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in held}
        copies = sum(2 * weight.numel() for weight in weights)  # of the weights, in half precision
        return sum(size for place, size in storages.items() if place not in own) - copies

    each = (kept(4) - kept(2)) / 2 / (2 * steps * width)
    assert each == pytest.approx(sizes.KEPT, rel=0.05)


# --- what is claimed


def test_no_figure_is_shown_that_is_only_remembered() -> None:
    # Scores of the paper's table of which no source is at hand (../shared/spec/papers.md, section 2.7).
    remembered = "2.09 2.84 2.14 1.69 7.39 2.57 70.9 67.8 71.9 68.7 65.7 55.9 92.1 93.0".split()
    numbers = set(re.findall(r"\d+\.\d+", re.sub(r"<!-- sizes -->.*?<!-- /sizes -->", "", README, flags=re.DOTALL)))
    assert not numbers & set(remembered)
    assert {"3.13", "1.82", "1.77", "1.58"} <= numbers


def test_the_readme_has_the_five_headings_and_says_what_was_not_done() -> None:
    assert re.findall(r"^## (\w+)", README, re.MULTILINE) == ["What", "Data", "Run", "Results", "Listen"]
    assert "None of these presets has been trained here" in README
    assert "Nothing of this page was run on a GPU" in GUIDE


def test_adam_does_not_inherit_a_weight_decay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(RECIPE)  # the default optimizer is AdamW, and its own weight decay would stay
    for name in ("base", "codec_stride32"):
        assert cli.main(["fit", "-c", f"{name}.yaml", "--print_config"]) == 0
        optimizer = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["optimizer"]
        assert optimizer["class_path"] == "torch.optim.Adam" and optimizer["init_args"]["weight_decay"] == 0.0


def commands(text: str) -> list[list[str]]:
    """What follows `audiolm-kit` in every command of a page's blocks."""
    blocks = "\n".join(re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)).replace("\\\n", " ")
    found = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    names = ("audiolm-kit", "audiolm_kit")
    return [words[words.index(name) + 1 :] for words in found for name in names if name in words]


@pytest.mark.parametrize("command", commands(GUIDE) + commands(README), ids=" ".join)
def test_every_command_parses(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(RECIPE)
    verb, *given = command
    if verb == "fit":
        assert cli.main(["fit", *given, "--print_config"]) == 0, capsys.readouterr().err
        return
    options = Sampling if verb == "generate" else None
    parser_of(cli.VERBS[verb].run, f"audiolm-kit {verb}", options).parse_args(given)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (RECIPE / link).is_file()


# --- the whole way


def write_t5(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = ["<pad>", "<unk>", *sorted({word for text in CAPTIONS for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = T5Config(vocab_size=len(words), d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=3)
    T5EncoderModel(config).save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "rows"), [("delay", 6), ("medium", 3)])
def test_make_goes_from_recordings_to_a_model(tmp_path: Path, preset: str, rows: int) -> None:
    clock = torch.arange(8000) / 16000
    for number in range(len(CAPTIONS)):
        wave = 0.5 * torch.sin(2 * torch.pi * 200 * (number + 1) * clock)
        audio.write(tmp_path / f"{number}.wav", audio.Sound(wave[None], 16000))
    splits = ["train", "train", "train", "valid"]
    write_manifest(
        tmp_path / "sounds.jsonl",
        [Row(str(tmp_path / f"{n}.wav"), 0.5, caption=CAPTIONS[n], split=splits[n]) for n in range(4)],
    )
    write_t5(tmp_path / "t5")
    trainer = "--trainer.accelerator cpu --trainer.devices 1 --trainer.strategy auto --trainer.max_steps 2"
    trainer += " --trainer.val_check_interval 2 --data.batch_size 2 --data.num_workers 0"
    codec = "--model.codec.seanet.filters 2 --model.codec.seanet.dim 4 --model.codec.seanet.lstm 1"
    codec += " --model.codec.quantizer.dim 4 --model.discriminator.filters 2 --data.seconds 0.3"
    lm = "--model.lm.transformer.dim 16 --model.lm.transformer.heads 2 --model.lm.transformer.layers 1"
    lm += f" --model.lm.text.dim 12 --model.lm.text.name {tmp_path / 't5'} --data.frames 20"
    given = {
        "PRESET": preset,
        "DATA": tmp_path / "sounds.jsonl",
        "OUT": tmp_path / "out",
        "BIN": Path(sys.executable).parent,
        "CODEC_OPTIONS": f"{trainer} {codec}",
        "LM_OPTIONS": f"{trainer} {lm}",
        "TOKENS_OPTIONS": "",
    }
    command = ["make", "-C", str(RECIPE), *(f"{name}={value}" for name, value in given.items())]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{rows} rows" in done.stdout  # with a mixture of each clip, or without
    assert (tmp_path / "out" / preset / "lm" / "model.safetensors").is_file()
    again = subprocess.run([*command, "-q"], env=dict(os.environ))
    assert again.returncode == 0  # nothing is left to do


def test_make_names_the_presets_it_knows() -> None:
    done = subprocess.run(["make", "-C", str(RECIPE), "PRESET=huge"], capture_output=True, text=True)
    assert done.returncode != 0 and "wanted one of: base large streams2 streams4 delay flatten medium" in done.stderr
