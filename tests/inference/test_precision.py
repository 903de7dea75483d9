"""Precisions of models that make sound: loaded in any, told of in the note, rounded once, and the default as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from audiolm_kit import checkpoint
from audiolm_kit.cli import main
from audiolm_kit.commands import given
from audiolm_kit.inference import precision
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.inference.audiolm import AudioLM
from audiolm_kit.inference.chain import StageSampling
from audiolm_kit.inference.precision import Dtype, Precision, told
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.packed import How, Int4Linear, Int8Linear
from audiolm_kit.lm.quantize import quantize, quantized
from audiolm_kit.lm.sampling import Sampling


def test_the_default_is_what_is_stored(audiogen_folder: Path) -> None:
    model, stored = AudioGen.load(audiogen_folder), checkpoint.load(StreamLM, audiogen_folder / "lm")
    assert told(model.lm) == {"dtype": "float32", "quantize": ""}
    for name, weight in stored.state_dict().items():
        assert torch.equal(model.lm.state_dict()[name], weight)


@pytest.mark.parametrize("how", [None, "int8", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", None])
def test_an_audiogen_makes_sound_in_every_precision(
    audiogen_folder: Path, dtype: Dtype | None, how: How | None
) -> None:
    model = AudioGen.load(audiogen_folder, dtype=dtype, quantize=how)
    wanted = Precision(dtype).dtype_on(torch.device("cpu"))
    assert model.lm.dtype == wanted and quantized(model.lm) == how and model.device.type == "cpu"
    assert all(weight.dtype == torch.float32 for weight in model.codec.parameters())
    assert model.fingerprints == AudioGen.load(audiogen_folder).fingerprints  # of what is stored
    [sound] = model.generate(["a bell"], 0.1, Sampling(top_k=4))
    assert sound.samples.shape == (1, 800) and sound.samples.dtype == torch.float32
    [longer] = model.continue_([sound], 0.2, ["rain"])
    assert longer.samples.shape == (1, 1600) and bool(torch.isfinite(longer.samples).all())
    assert sum(len(chunk.samples[0]) for chunk in model.stream("rain", 0.1)) == 800


def test_a_frozen_model_makes_the_same_codes_and_saves_the_same_weights(audiogen_folder: Path, tmp_path: Path) -> None:
    plain, frozen = AudioGen.load(audiogen_folder), AudioGen.load(audiogen_folder, frozen=True)
    assert not any(weight.requires_grad for weight in frozen.lm.transformer.parameters())
    greedy = Sampling(temperature=0.0)
    [ours], [theirs] = (model.generate(["a bell"], 0.2, greedy) for model in (frozen, plain))
    assert torch.equal(ours.samples, theirs.samples)
    frozen.save(tmp_path / "copy")
    assert AudioGen.load(tmp_path / "copy").fingerprints == plain.fingerprints


def test_compiled_steps_are_asked_for_before_the_first_sound(
    audiogen_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert AudioGen.load(audiogen_folder, compile=True).lm.transformer.compiling
    assert not AudioGen.load(audiogen_folder).lm.transformer.compiling
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match="install one of them"):
        AudioGen.load(audiogen_folder, compile=True)


def test_weights_are_rounded_once_from_those_stored(audiogen_folder: Path) -> None:
    whole = quantize(checkpoint.load(StreamLM, audiogen_folder / "lm"), "int8")
    half = AudioGen.load(audiogen_folder, dtype="bfloat16", quantize="int8").lm
    assert isinstance(whole.heads, Int8Linear) and isinstance(half.heads, Int8Linear)
    assert torch.equal(whole.heads.levels, half.heads.levels) and torch.equal(whole.heads.scales, half.heads.scales)
    assert half.embedding.weight.dtype == torch.bfloat16


def test_all_stages_of_an_audiolm_are_loaded_alike(make_audiolm: Any, tmp_path: Path) -> None:
    make_audiolm().save(tmp_path / "model")
    model = AudioLM.load(tmp_path / "model", dtype="bfloat16", quantize="int4")
    for _, lm in model.stages.values():
        assert told(lm) == {"dtype": "bfloat16", "quantize": "int4"} and isinstance(lm.heads, Int4Linear)
    assert model.chain.stages["fine"][1] is model.stages["fine"][1]
    [sound] = model.generate(1, 0.2)
    assert sound.samples.shape == (1, 1600)
    assert bool(torch.isfinite(torch.tensor(model.log_likelihood([sound]))).all())
    about = model.sidecar(0.2, StageSampling(), 0)
    assert (about["dtype"], about["quantize"]) == ("bfloat16", "int4")
    assert about["fingerprints"] == AudioLM.load(tmp_path / "model").fingerprints
    with pytest.raises(ValueError, match="is quantised .int4. and cannot be saved"):
        model.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_quantised_audiogen_is_not_saved(audiogen_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is quantised .int8. and cannot be saved: load it without quantize"):
        AudioGen.load(audiogen_folder, quantize="int8").save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_best_dtype_is_what_the_device_has_arithmetic_for(monkeypatch: pytest.MonkeyPatch) -> None:
    best, places = Precision(None), [torch.device(name) for name in ("cpu", "cuda")]
    monkeypatch.setattr(precision, "native_bfloat16", lambda device: True)
    assert [best.dtype_on(place) for place in places] == [torch.bfloat16, torch.bfloat16]
    monkeypatch.setattr(precision, "native_bfloat16", lambda device: False)
    assert [best.dtype_on(place) for place in places] == [torch.float32, torch.float16]
    assert Precision("float16").dtype_on(places[0]) == torch.float16


def test_another_precision_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    for load in (AudioGen.load, AudioLM.load):
        with pytest.raises(ValueError, match="dtype is 'fp8': give one of float32, bfloat16, float16, or None"):
            load(tmp_path / "none", dtype="fp8")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="quantize is 'int3': give one of int8, int4, or None"):
            load(tmp_path / "none", quantize="int3")  # type: ignore[arg-type]


# --- the command line


def test_the_command_line_has_the_same_words() -> None:
    assert get_args(given.Dtype) == (*get_args(Dtype), "auto") and get_args(given.Quantize) == get_args(How)


def test_the_note_of_a_sound_names_its_precision(audiogen_folder: Path, tmp_path: Path) -> None:
    call = ["generate", str(audiogen_folder), "rain", "-o", str(tmp_path / "out.wav"), "--seconds", "0.1"]
    assert main(call) == 0
    plain = json.loads((tmp_path / "out.json").read_text())
    assert (plain["dtype"], plain["quantize"]) == ("float32", "")
    assert main([*call, "--dtype", "bfloat16", "--quantize", "int4"]) == 0
    about = json.loads((tmp_path / "out.json").read_text())
    assert (about["dtype"], about["quantize"]) == ("bfloat16", "int4")
    assert {**about, "dtype": "float32", "quantize": ""} == plain
    whole = ["continue", str(audiogen_folder), str(tmp_path / "out.wav"), "-o", str(tmp_path / "whole.wav")]
    assert main([*whole, "--seconds", "0.2", "--quantize", "int8", "--dtype", "auto"]) == 0
    about = json.loads((tmp_path / "whole.json").read_text())
    assert about["dtype"] in ("float32", "bfloat16") and about["quantize"] == "int8"


def test_an_audiolm_takes_them_on_the_command_line(make_audiolm: Any, tmp_path: Path) -> None:
    make_audiolm().save(tmp_path / "model")
    call = ["generate", str(tmp_path / "model"), "-o", str(tmp_path / "out.wav"), "--seconds", "0.2"]
    assert main([*call, "--quantize", "int8"]) == 0
    about = json.loads((tmp_path / "out.json").read_text())
    assert (about["dtype"], about["quantize"]) == ("float32", "int8")


@pytest.mark.parametrize(("option", "value"), [("dtype", "fp8"), ("quantize", "int3")])
@pytest.mark.parametrize("verb", ["generate", "continue"])
def test_another_word_is_one_line(
    verb: str, option: str, value: str, audiogen_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(audiogen_folder), "x.wav", "-o", "y.wav", f"--{option}", value]) == 2
    told_of = capsys.readouterr().err
    assert told_of.startswith(f"audiolm-kit {verb}: {option}: expected Literal[") and value in told_of
    assert told_of.count("\n") == 1
