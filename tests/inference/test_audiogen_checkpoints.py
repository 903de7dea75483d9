"""AudioGen: a saved model makes the same sounds, refuses foreign parts, and tells how a sound was made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_audiogen import RATE, SAMPLING, TEXTS, a_codec, a_model, a_tone

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.text import Vocabulary, train
from audiolm_kit.transformer import TransformerConfig


@pytest.fixture
def saved(vocabulary: Vocabulary, tmp_path: Path) -> Path:
    model = a_model(vocabulary)
    model.lm.float()
    model.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_makes_the_same_sounds_after_loading(vocabulary: Vocabulary, tmp_path: Path) -> None:
    model = a_model(vocabulary)
    model.lm.float()
    model.save(tmp_path / "model")
    loaded = AudioGen.load(tmp_path / "model")
    for one, other in zip(model.generate(TEXTS, 0.2), loaded.generate(TEXTS, 0.2), strict=True):
        assert torch.equal(one.samples, other.samples)
    [one], [other] = (each.continue_([a_tone(0.1)], 0.2, ["a bell"]) for each in (model, loaded))
    assert torch.equal(one.samples, other.samples)
    loaded.save(tmp_path / "model")  # over itself
    assert AudioGen.load(tmp_path / "model").fingerprints == loaded.fingerprints
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    parts = {f"model/{part}/{name}" for part in ("codec", "lm") for name in ("config.json", "model.safetensors")}
    assert names == {"model/config.json", "model/text.model", *parts}


def test_a_model_in_half_precision_can_be_saved_and_loaded(vocabulary: Vocabulary, tmp_path: Path) -> None:
    model = a_model(vocabulary)
    model.lm.half()
    model.save(tmp_path / "model")
    loaded = AudioGen.load(tmp_path / "model")
    assert torch.equal(loaded.lm.heads.weight, model.lm.heads.weight.float())


def test_saving_replaces_no_folder_but_a_checkpoint(model: AudioGen, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is no checkpoint"):
        model.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("part", ["codec", "lm", "text.model"])
def test_parts_of_another_model_are_refused(saved: Path, part: str) -> None:
    if part == "text.model":
        train(["other words", "make other pieces"], saved / "text.model", size=24)
    else:
        kind = NeuralCodec if part == "codec" else StreamLM
        other = checkpoint.load(kind, saved / part)
        next(iter(other.parameters())).data.mul_(2)
        checkpoint.save(other, saved / part)
    with pytest.raises(ValueError, match=f"{part} is not what the checkpoint was made of"):
        AudioGen.load(saved)


def test_parts_that_do_not_fit_each_other_are_refused(vocabulary: Vocabulary) -> None:
    lm = StreamLM(LMConfig(num_codebooks=3, codebook_size=16, transformer=TransformerConfig(dim=8, heads=1, layers=1)))
    with pytest.raises(ValueError, match="the model is for 3 codebooks of 16, the codec has 2 of 16"):
        AudioGen(a_codec(), lm)
    with pytest.raises(ValueError, match="the model reads text of kind 'small'"):
        AudioGen(a_codec(), a_model(vocabulary).lm)


def test_the_sidecar_says_all_that_it_takes_to_make_the_sound_again(saved: Path) -> None:
    model = AudioGen.load(saved)
    sounds = model.generate(TEXTS, 0.2, SAMPLING, seed=4)
    told = json.loads(json.dumps(model.sidecar(TEXTS[2], 0.2, SAMPLING, seed=6)))
    sampling = Sampling(**told["sampling"])
    [again] = AudioGen.load(saved).generate([told["text"]], told["seconds"], sampling, told["seed"])
    torch.testing.assert_close(again.samples, sounds[2].samples)
    assert (told["prompt"], told["negative"], told["window"], told["overlap"]) == ("", "", None, None)
    assert set(told["fingerprints"]) == {"codec", "lm", "text.model"}
    assert told["sample_rate"] == RATE and told["version"]


def test_the_sidecar_of_a_long_sound_away_from_a_text_makes_it_again(model: AudioGen) -> None:
    lines = ["0-0.1: rain", "0.1-0.3: a bell"]
    making = {"negative": "a low bell", "window": 0.1, "overlap": 0.04}
    [sound] = model.generate([lines], 0.3, SAMPLING, 6, **making)  # type: ignore[arg-type]
    about = model.sidecar(lines, 0.3, SAMPLING, 6, scores=[0.1, 0.3], scorer="a/clap", **making)  # type: ignore[arg-type]
    told = json.loads(json.dumps(about))
    making = {name: told[name] for name in making}
    [again] = model.generate([told["text"]], told["seconds"], Sampling(**told["sampling"]), told["seed"], **making)
    assert torch.equal(again.samples, sound.samples)
    assert (told["scorer"], told["score"], told["scores"]) == ("a/clap", 0.3, [0.1, 0.3])
