"""recipes/audiolm_paper: stages fit tokenizers and each other, the README's sizes are computed, commands parse."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from audiolm_kit import cli
from audiolm_kit.arguments import parser_of
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.transformer import Transformer, TransformerConfig

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "audiolm_paper"
README = (RECIPE / "README.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:jsonargparse.*")


def load(name: str) -> ModuleType:
    """A script of the recipe as a module."""
    spec = importlib.util.spec_from_file_location(f"audiolm_paper_{name}", RECIPE / f"{name}.py")
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


def test_the_stages_are_as_large_as_published() -> None:
    seconds = {"semantic": 30, "coarse": 10, "fine": 3, "acoustic": 10, "coarse_piano": 10}
    for name, files in sizes.STAGES.items():
        content = sizes.read(files)
        inner = sizes.lm_of(content).config.transformer
        assert (inner.layers, inner.heads, inner.dim, inner.feed_forward * inner.dim) == (12, 16, 1024, 4096)
        assert (inner.dropout, inner.positions) == (0.1, "relative")
        assert content["data"]["init_args"]["seconds"] == seconds[name]
        trainer = content["trainer"]
        assert content["data"]["init_args"]["batch_size"] * trainer.get("accumulate_grad_batches", 1) * 8 == 256
        assert trainer["max_steps"] == 1_000_000
    codec = sizes.codec_of(sizes.read(sizes.CODECS["codec"]))
    assert (codec.sample_rate, codec.hop, codec.num_codebooks, codec.codebook_size) == (16000, 320, 12, 1024)


def test_the_steps_at_the_papers_rate_are_those_of_its_crops() -> None:
    # 30 s of 25; 250 semantic codes and 500 frames of 4; 150 frames of 4 and 8 (papers.md, section 1.3); one to begin.
    papers = [sizes.sizes(name).steps[0] - 1 for name in ("semantic", "coarse", "fine")]
    assert papers == [750, 250 + 2000, 600 + 1200]
    delayed, flattened = (sizes.sizes(name).steps[1] for name in ("acoustic", "coarse"))
    assert delayed < flattened


@pytest.mark.parametrize("name", sizes.STAGES)
def test_a_stage_is_for_its_tokenizers(name: str) -> None:
    content = sizes.read(sizes.STAGES[name])
    options, data = content["model"]["init_args"], content["data"]["init_args"]
    lm = sizes.lm_of(content)
    codes = (lm.config.num_codebooks, lm.config.codebook_size)
    front = (lm.config.prefix.num_codebooks, lm.config.prefix.codebook_size)
    if name == "semantic":
        assert codes == (1, 1024) and front[0] == 0 and not options["codec"]
        return
    codec = sizes.codec_of(sizes.read(sizes.CODECS[sizes.CODEC_OF[name]]))
    assert Path(options["codec"]).name == sizes.CODEC_OF[name]
    assert Path(data["shards"]).parent.name == f"tokens_{sizes.CODEC_OF[name]}"
    first, end = data.get("codebooks", (0, codec.num_codebooks))
    assert codes == (end - first, codec.codebook_size) and end <= codec.num_codebooks
    if data["stage"] == "fine":
        assert front == (4, codec.codebook_size) and not options["semantic"] and "prefix_shards" not in data
    else:
        assert front == (1, 1024) and Path(options["semantic"]).name == "semantic_tokenizer"
        assert Path(data["prefix_shards"]).parent.name == "tokens_semantic"


def test_the_flattened_stages_make_all_codebooks_once() -> None:
    coarse, fine = (sizes.read(sizes.STAGES[name])["data"]["init_args"] for name in ("coarse", "fine"))
    assert coarse["codebooks"] == fine["prefix_codebooks"] == [0, 4] and fine["codebooks"] == [4, 12]


@pytest.mark.parametrize("files", [*sizes.STAGES.values(), *sizes.CODECS.values()], ids="+".join)
def test_a_file_exports_and_keeps_its_run_under_its_own_name(files: tuple[str, ...]) -> None:
    content = sizes.read(files)
    assert Path(content["model"]["init_args"]["export"]).name == files[-1]
    assert Path(content["trainer"]["default_root_dir"]).name == f"{files[-1]}.run"


def test_a_layer_keeps_as_many_bytes_as_the_estimate_has() -> None:
    steps, width = 200, 64

    def kept(layers: int) -> int:
        transformer = Transformer(TransformerConfig(dim=width, heads=4, layers=layers, dropout=0.1)).train()
        weights = list(transformer.parameters())
        own = {weight.untyped_storage().data_ptr() for weight in weights}
        held: list[torch.Tensor] = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: held.append(tensor) or tensor, lambda tensor: tensor
        )
        with hooks, torch.autocast("cpu", torch.bfloat16):
            transformer(torch.randn(2, steps, width, requires_grad=True))
        storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in held}
        copies = sum(2 * weight.numel() for weight in weights)  # of the weights, in half precision
        return sum(size for place, size in storages.items() if place not in own) - copies

    each = (kept(4) - kept(2)) / 2 / (2 * steps * width)
    assert each == pytest.approx(sizes.KEPT, rel=0.05)


# --- what is claimed


def test_the_readme_has_the_five_headings_and_says_what_was_not_done() -> None:
    assert re.findall(r"^## (\w+)", README, re.MULTILINE) == ["What", "Data", "Run", "Results", "Listen"]
    assert "None of these presets has been trained here" in README and "Not reproduced here" in README


def test_adafactor_is_t5xs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    monkeypatch.chdir(RECIPE)  # the default optimizer is AdamW, and its own options would stay
    assert cli.main(["fit", "-c", "semantic.yaml", "--print_config"]) == 0
    optimizer = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.Adafactor"
    given = {name: optimizer["init_args"][name] for name in ("lr", "beta2_decay", "eps", "d", "weight_decay")}
    assert given == {"lr": 0.01, "beta2_decay": -0.8, "eps": [None, 0.001], "d": 1.0, "weight_decay": 0.0}


def commands(text: str) -> list[list[str]]:
    """What follows `audiolm-kit` in every command of a page's blocks."""
    blocks = "\n".join(re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)).replace("\\\n", " ")
    found = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    return [words[words.index("audiolm-kit") + 1 :] for words in found if "audiolm-kit" in words]


@pytest.mark.parametrize("command", commands(README), ids=" ".join)
def test_every_command_parses(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(RECIPE)
    verb, *given = command
    if verb == "fit":
        assert cli.main(["fit", *given, "--print_config"]) == 0, capsys.readouterr().err
        return
    parser_of(cli.VERBS[verb].run, f"audiolm-kit {verb}", Sampling).parse_args(given)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (RECIPE / link).is_file()


# --- make


def lines_of(*given: str) -> list[str]:
    """The commands that make would run, without its own."""
    command = ["make", "-n", "-C", str(RECIPE), "OUT=/nowhere/out", "BIN=/nowhere/bin", *given]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith('"/nowhere/bin')]


def name_of(given: list[str]) -> str:
    """Of what a fit exports."""
    return Path(given[given.index("--model.export") + 1]).name


@pytest.mark.parametrize("preset", ["flattened", "streams", "piano"])
def test_make_lays_each_stage_of_a_preset_as_its_first_line_says(
    preset: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(RECIPE)
    lines = lines_of(f"PRESET={preset}", "DATA=/nowhere/data", "FEATURES=/nowhere/model", "LAYER=3")
    fits = [shlex.split(line)[1:] for line in lines if " fit " in line]
    laid = [tuple(words[i + 1].removesuffix(".yaml") for i, word in enumerate(words) if word == "-c") for words in fits]
    stages = {"flattened": ["semantic", "coarse", "fine"], "streams": ["semantic", "acoustic"]}
    wanted = stages.get(preset, ["semantic", "coarse_piano"])
    codec = "codec_piano" if preset == "piano" else "codec"
    assert sorted(laid) == sorted([*(sizes.STAGES[name] for name in wanted), sizes.CODECS[codec]])
    assert shlex.split(lines[-1])[1:] == [
        "assemble",
        *(f"/nowhere/out/{name}" for name in wanted),
        "-o",
        f"/nowhere/out/{preset}",
    ]
    for words in fits:
        verb, *given = [word for word in words if word != "$fresh"]
        if name_of(given) == wanted[-1]:  # reading takes a while: one of each preset
            assert cli.main([verb, *given, "--print_config"]) == 0, capsys.readouterr().err
    for line in lines:
        verb, *given = shlex.split(line)[1:]
        if verb in ("kmeans", "assemble", "manifest"):
            parser_of(cli.VERBS[verb].run, f"audiolm-kit {verb}").parse_args(given)


def test_make_names_the_presets_it_knows() -> None:
    done = subprocess.run(["make", "-C", str(RECIPE), "PRESET=huge"], capture_output=True, text=True)
    assert done.returncode != 0 and "wanted one of: flattened streams piano" in done.stderr


def test_piano_asks_for_a_model_of_its_own() -> None:
    given = ["PRESET=piano", "DATA=/nowhere/data", "OUT=/nowhere/out"]
    done = subprocess.run(["make", "-n", "-C", str(RECIPE), *given], capture_output=True, text=True)
    assert done.returncode != 0 and "FEATURES is missing: make PRESET=piano" in done.stderr
