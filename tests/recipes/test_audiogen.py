"""recipes/audiogen: presets fit their codecs, no figure is shown that is not certain, and make leads to a model."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from preset_sizes import codec_of, parameters, read
from reading import RECIPES, ROOT, load, make, readme

from audiolm_kit import audio, cli
from audiolm_kit.data.manifest import Row, write_manifest

RECIPE = RECIPES / "audiogen"
README = readme("audiogen")
GUIDE = (ROOT / "docs" / "many_gpus.md").read_text(encoding="utf-8")
CAPTIONS = ("a bell rings twice", "rain on a tin roof", "a siren far away", "two quick clicks")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:jsonargparse.*")
sizes = load("audiogen", "sizes")


# --- sizes


@pytest.mark.parametrize("name", sizes.PRESETS)
def test_a_preset_is_for_its_codec(name: str) -> None:
    content = read(RECIPE, sizes.PRESETS[name])
    options, data = content["model"]["init_args"], content["data"]["init_args"]
    codec_name = Path(options["codec"]).name
    codec = codec_of(read(RECIPE, sizes.CODECS[codec_name]))
    assert (options["lm"]["num_codebooks"], options["lm"]["codebook_size"]) == (
        codec.num_codebooks,
        codec.codebook_size,
    )
    assert data["frames"] / codec.frame_rate == (10 if name == "medium" else 5)
    assert Path(data["shards"]).parent.name == codec_name.replace("codec", "tokens")
    assert data["batch_size"] * 8 == 256


def test_one_two_and_four_streams_carry_as_many_codes_a_second() -> None:
    codecs = [codec_of(read(RECIPE, files)) for name, files in sizes.CODECS.items() if name != "codec_medium"]
    assert [codec.frame_rate * codec.num_codebooks for codec in codecs] == [500, 500, 500]
    assert [codec.hop for codec in codecs] == [32, 64, 128]


def test_the_t5s_are_as_wide_as_the_presets_say() -> None:
    for files in sizes.PRESETS.values():
        text = read(RECIPE, files)["model"]["init_args"]["lm"]["text"]
        assert sizes.T5[text["name"]][0] == text["dim"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sizes.T5)
def test_a_t5_has_as_many_parameters_as_transformers_makes(name: str) -> None:
    from transformers import T5Config, T5EncoderModel

    width, inner, layers, heads = sizes.T5[name]
    config = T5Config(vocab_size=32128, d_model=width, d_kv=64, d_ff=inner, num_layers=layers, num_heads=heads)
    with torch.device("meta"):
        assert parameters(T5EncoderModel(config)) == sizes.t5_parameters(name)


# --- what is claimed


def test_no_figure_is_shown_that_is_only_remembered() -> None:
    # Scores of the paper's table of which no source is at hand (../shared/spec/papers.md, section 2.7).
    remembered = "2.09 2.84 2.14 1.69 7.39 2.57 70.9 67.8 71.9 68.7 65.7 55.9 92.1 93.0".split()
    numbers = set(re.findall(r"\d+\.\d+", re.sub(r"<!-- sizes -->.*?<!-- /sizes -->", "", README, flags=re.DOTALL)))
    assert not numbers & set(remembered)
    assert {"3.13", "1.82", "1.77", "1.58"} <= numbers


def test_the_guide_says_what_was_not_done() -> None:
    assert "Nothing of this page was run on a GPU" in GUIDE


def test_adam_does_not_inherit_a_weight_decay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(RECIPE)  # the default optimizer is AdamW, and its own weight decay would stay
    for name in ("base", "codec_stride32"):
        assert cli.main(["fit", "-c", f"{name}.yaml", "--print_config"]) == 0
        optimizer = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["optimizer"]
        assert optimizer["class_path"] == "torch.optim.Adam" and optimizer["init_args"]["weight_decay"] == 0.0


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
    options = [f"{name}={value}" for name, value in given.items()]
    done = make("audiogen", *options)
    assert done.returncode == 0, done.stderr
    assert f"{rows} rows" in done.stdout  # with a mixture of each clip, or without
    assert (tmp_path / "out" / preset / "lm" / "model.safetensors").is_file()
    assert make("audiogen", *options, "-q").returncode == 0  # nothing is left to do
