"""recipes/audiolm_paper: stages are of the published sizes, fit tokenizers and each other, and make lays them so."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml
from preset_sizes import codec_of, lm_of, read
from reading import RECIPES, load, make, parse, planned, readme

from audiolm_kit import cli

RECIPE = RECIPES / "audiolm_paper"
sizes = load("audiolm_paper", "sizes")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:jsonargparse.*")

# --- sizes


def test_the_stages_are_as_large_as_published() -> None:
    seconds = {"semantic": 30, "coarse": 10, "fine": 3, "acoustic": 10, "coarse_piano": 10}
    for name, files in sizes.STAGES.items():
        content = read(RECIPE, files)
        inner = lm_of(content).config.transformer
        assert (inner.layers, inner.heads, inner.dim, inner.feed_forward * inner.dim) == (12, 16, 1024, 4096)
        assert (inner.dropout, inner.positions) == (0.1, "relative")
        assert content["data"]["init_args"]["seconds"] == seconds[name]
        trainer = content["trainer"]
        assert content["data"]["init_args"]["batch_size"] * trainer.get("accumulate_grad_batches", 1) * 8 == 256
        assert trainer["max_steps"] == 1_000_000
    codec = codec_of(read(RECIPE, sizes.CODECS["codec"]))
    assert (codec.sample_rate, codec.hop, codec.num_codebooks, codec.codebook_size) == (16000, 320, 12, 1024)


def test_the_steps_at_the_papers_rate_are_those_of_its_crops() -> None:
    # 30 s of 25; 250 semantic codes and 500 frames of 4; 150 frames of 4 and 8 (papers.md, section 1.3); one to begin.
    papers = [sizes.sizes(name).steps[0] - 1 for name in ("semantic", "coarse", "fine")]
    assert papers == [750, 250 + 2000, 600 + 1200]
    delayed, flattened = (sizes.sizes(name).steps[1] for name in ("acoustic", "coarse"))
    assert delayed < flattened


@pytest.mark.parametrize("name", sizes.STAGES)
def test_a_stage_is_for_its_tokenizers(name: str) -> None:
    content = read(RECIPE, sizes.STAGES[name])
    options, data = content["model"]["init_args"], content["data"]["init_args"]
    lm = lm_of(content)
    codes = (lm.config.num_codebooks, lm.config.codebook_size)
    front = (lm.config.prefix.num_codebooks, lm.config.prefix.codebook_size)
    if name == "semantic":
        assert codes == (1, 1024) and front[0] == 0 and not options["codec"]
        return
    codec = codec_of(read(RECIPE, sizes.CODECS[sizes.CODEC_OF[name]]))
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
    coarse, fine = (read(RECIPE, sizes.STAGES[name])["data"]["init_args"] for name in ("coarse", "fine"))
    assert coarse["codebooks"] == fine["prefix_codebooks"] == [0, 4] and fine["codebooks"] == [4, 12]


# --- what is claimed


def test_the_readme_says_what_was_not_reproduced() -> None:
    assert "Not reproduced here" in readme("audiolm_paper")


def test_adafactor_is_t5xs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPE)  # the default optimizer is AdamW, and its own options would stay
    assert cli.main(["fit", "-c", "semantic.yaml", "--print_config"]) == 0
    optimizer = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.Adafactor"
    given = {name: optimizer["init_args"][name] for name in ("lr", "beta2_decay", "eps", "d", "weight_decay")}
    assert given == {"lr": 0.01, "beta2_decay": -0.8, "eps": [None, 0.001], "d": 1.0, "weight_decay": 0.0}


# --- make


def name_of(given: list[str]) -> str:
    """Of what a fit exports."""
    return Path(given[given.index("--model.export") + 1]).name


@pytest.mark.parametrize("preset", ["flattened", "streams", "piano"])
def test_make_lays_each_stage_of_a_preset_as_its_first_line_says(
    preset: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(RECIPE)
    plan = planned("audiolm_paper", f"PRESET={preset}", "FEATURES=/nowhere/model", "LAYER=3")
    lines = [line for line in plan.splitlines() if line.startswith('"/nowhere/bin')]
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
        given = [word for word in words if word != "$fresh"]
        if name_of(given) == wanted[-1]:  # reading takes a while: one of each preset
            parse(given, capsys)
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] in ("kmeans", "assemble", "manifest"):
            parse(words, capsys)


def test_piano_asks_for_a_model_of_its_own() -> None:
    done = make("audiolm_paper", "-n", "PRESET=piano", "DATA=/nowhere/data", "OUT=/nowhere/out")
    assert done.returncode != 0 and "FEATURES is missing: make PRESET=piano" in done.stderr
