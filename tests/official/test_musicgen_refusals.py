"""Folders of MusicGen that are refused, models that MusicGen cannot be, and why."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from musicgen_folders import (
    PICKLE,
    SMALL_T5,
    WEIGHTS,
    D,
    V,
    a_codec,
    a_model,
    assert_equal,
    reweigh,
    rewrite,
    save_tokenizer,
)
from safetensors.torch import load_file
from torch import Tensor

from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.lm.model import Prefix
from audiolm_kit.official.musicgen import read_musicgen, write_musicgen
from audiolm_kit.official.parts import Parts
from audiolm_kit.transformer import TransformerConfig

# --- in reading


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("musicgen_melody", "holds a musicgen_melody, which also follows a sound, as melody and style models do"),
        ("bert", "holds a bert, which is no MusicGen: give a small, medium, large or stereo musicgen"),
        (None, "holds a None, which is no MusicGen"),
    ],
)
def test_other_models_are_refused_by_name(folder: Path, kind: str | None, message: str) -> None:
    rewrite(folder, lambda about: about.update(model_type=kind))
    with pytest.raises(ValueError, match=message):
        read_musicgen(folder)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("decoder", {"activation_function": "relu"}, "activation_function is relu, wanted gelu"),
        ("decoder", {"ffn_dim": 40}, "ffn_dim is 40, wanted a multiple of 16"),
        ("decoder", {"pad_token_id": 3}, r"pad and bos token are \[3, 16\], wanted 16"),
        ("decoder", {"cross_attention_hidden_size": 12}, "leaves text and model of different widths"),
        ("decoder", {"num_codebooks": 3, "audio_channels": 2}, "audio_channels is 2 for 3 codebooks, an odd number"),
        ("decoder", {"hidden_size": "wide"}, "does not describe a MusicGen"),
        ("audio_encoder", {"normalize": True}, "audio_encoder scales sounds or cuts them up"),
        ("audio_encoder", {"chunk_length_s": 1.0}, "audio_encoder scales sounds or cuts them up"),
        ("audio_encoder", {"model_type": "dac"}, "audio_encoder is a dac, wanted encodec"),
        ("text_encoder", {"model_type": "bert"}, "text_encoder is a bert, wanted t5"),
    ],
)
def test_architectures_that_ours_is_not_are_refused(
    folder: Path, part: str, change: dict[str, Any], message: str
) -> None:
    rewrite(folder, lambda about: about[part].update(change))
    with pytest.raises(ValueError, match=message) as caught:
        read_musicgen(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("decoder.lm_heads.1.weight", None, r"lacks tensors \(1\): decoder.lm_heads.1.weight"),
        ("enc_to_dec_proj.bias", None, r"lacks tensors \(1\): enc_to_dec_proj.bias"),
        ("text_encoder.shared.weight", None, r"lacks tensors \(2\): text_encoder.encoder.embed_tokens.weight"),
        ("audio_encoder.quantizer.layers.0.codebook.embed", None, "lacks tensors"),
        ("decoder.more", torch.zeros(1), r"has unknown tensors \(1\): decoder.more"),
        ("audio_enc_to_dec_proj.weight", torch.zeros(1), "has unknown tensors"),
        (
            "decoder.lm_heads.1.weight",
            torch.zeros(V, 3),
            r"has wrongly shaped tensors \(1\): decoder.lm_heads.1.weight",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(folder: Path, name: str, tensor: Tensor | None, message: str) -> None:
    def change(state: dict[str, Tensor]) -> None:
        state.pop(name, None)
        if tensor is not None:
            state[name] = tensor

    reweigh(folder, change)
    with pytest.raises(ValueError, match=message):
        read_musicgen(folder)


def test_a_codec_of_other_codes_is_refused(folder: Path, parts: Parts, tmp_path: Path) -> None:
    def widened(state: dict[str, Tensor]) -> None:
        for name in ("decoder.lm_heads.{}.weight", "decoder.model.decoder.embed_tokens.{}.weight"):
            state[name.format(2)] = state[name.format(1)].clone()

    rewrite(folder, lambda about: about["decoder"].update(num_codebooks=3))
    reweigh(folder, widened)
    with pytest.raises(ValueError, match="the model is for 3 codebooks of 16, the codec has 2 of 16"):
        read_musicgen(folder)
    codec = a_codec(quantizer=QuantizerConfig(num_codebooks=3, codebook_size=V, dim=4))
    with pytest.raises(ValueError, match="the model is for 2 codebooks of 16, the codec has 3 of 16"):
        write_musicgen(parts._replace(codec=codec), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_folders_that_are_not_whole_are_refused(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        read_musicgen(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match="holds no model.safetensors or pytorch_model.bin"):
        read_musicgen(folder)
    for places in ({}, {"weight": "../other/model.safetensors"}, {"weight": 3}, None):
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))
        with pytest.raises(ValueError, match="index.json does not say which files beside it hold the weights"):
            read_musicgen(folder)
    torch.save({"weight": torch.zeros(1), "epoch": 3}, folder / PICKLE)
    (folder / f"{WEIGHTS}.index.json").unlink()
    with pytest.raises(ValueError, match="pytorch_model.bin holds more than weights, epoch among it"):
        read_musicgen(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="config.json: give a folder of transformers' MusicGen"):
        read_musicgen(folder)


def test_a_folder_without_tokenizer_is_refused(folder: Path) -> None:
    for path in [*folder.glob("tokenizer*"), *folder.glob("spiece*")]:
        path.unlink()
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        read_musicgen(folder)


# --- in writing


def changed(parts: Parts, **changes: Any) -> Parts:
    return parts._replace(lm=a_model(**{"text": parts.lm.config.text, **changes}))


TRANSFORMER = TransformerConfig(dim=D, heads=2, layers=1, cross_attention=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": TextConfig(kind="small", dim=8, heads=1, pieces=9)}, "its text kind is small"),
        ({"text": TextConfig()}, "its text kind is none, and theirs is read by a T5"),
        ({"text": TextConfig(kind="labels", labels=("rain",))}, "its text kind is labels"),
        ({"text": TextConfig(kind="t5", dim=12, clean=True)}, "its captions are cleaned"),
        (
            {"text": TextConfig(kind="t5", dim=D)},
            "its text and itself are both 16 wide, and it has learned a projection",
        ),
        ({"pattern": "flatten"}, "its pattern is flatten, and theirs is delay"),
        ({"offsets": (0, 2)}, r"its offsets are \(0, 2\), and theirs with such a codec are \(0, 1\)"),
        ({"offsets": (0, 0)}, r"its offsets are \(0, 0\)"),
        ({"prefix": Prefix(1, 4)}, "it stands on a prefix"),
        ({"transformer": replace(TRANSFORMER, positions="rotary")}, "its positions are rotary"),
        ({"transformer": replace(TRANSFORMER, attend_padding=True)}, "it attends to padding"),
    ],
)
def test_models_that_theirs_cannot_be_are_refused(
    parts: Parts, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"transformers' MusicGen cannot be this model: {message}"):
        write_musicgen(changed(parts, **changes), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (lambda: NeuralCodec(CodecConfig()), "its codec is a convnext"),
        (lambda: a_codec(peak=0.9), "its codec scales sounds or cuts them up"),
        (lambda: a_codec(normalize=True), "its codec scales sounds or cuts them up"),
        (lambda: a_codec(segment=1.0), "its codec scales sounds or cuts them up"),
        (lambda: a_codec(channels=2, split_channels=True), r"its offsets are \(0, 1\), and theirs .* \(0, 0\)"),
    ],
)
def test_codecs_that_theirs_cannot_be_are_refused(
    parts: Parts, tmp_path: Path, codec: Callable[[], NeuralCodec], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_musicgen(parts._replace(codec=codec()), tmp_path / "new")


def test_an_identity_between_equal_widths_is_written(parts: Parts, tmp_path: Path) -> None:
    from transformers import T5Config, T5EncoderModel

    save_tokenizer(tmp_path / "t5")
    T5EncoderModel(T5Config(**{**SMALL_T5, "d_model": D})).save_pretrained(tmp_path / "t5")
    made = changed(parts, text=TextConfig(kind="t5", dim=D, name=str(tmp_path / "t5")))
    with torch.no_grad():
        made.lm.text_projection.weight.copy_(torch.eye(D))
        made.lm.text_projection.bias.zero_()
    write_musicgen(made, tmp_path / "musicgen")
    assert not [name for name in load_file(tmp_path / "musicgen" / WEIGHTS) if name.startswith("enc_to_dec_proj")]
    assert_equal(read_musicgen(tmp_path / "musicgen"), made)


def test_an_export_replaces_an_earlier_one_and_nothing_else(parts: Parts, folder: Path, tmp_path: Path) -> None:
    (folder / "left_over").write_text("of the old one")
    write_musicgen(parts, folder)
    assert not (folder / "left_over").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="mine exists and is no checkpoint: give a new folder"):
        write_musicgen(parts, tmp_path / "mine")


def test_no_path_of_this_machine_is_written(written: Path, parts: Parts) -> None:
    told = "".join(path.read_text() for path in written.glob("*.json"))
    assert parts.lm.config.text.name not in told and dataclasses.asdict(parts.lm.config)["text"]["name"].startswith("/")
