"""Folders in audiocraft's layout: pointers that are followed, and what is written back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from audiocraft_folders import D, E, K, a_codec, an_lm, changed, exported, renamed, same, written

from audiolm_kit.conditioning import TextConfig
from audiolm_kit.lm.model import Prefix
from audiolm_kit.official import encodec
from audiolm_kit.official.audiocraft import read_audiocraft, read_codec, write_audiocraft
from audiolm_kit.official.audiocraft_files import read_package
from audiolm_kit.official.parts import Parts
from audiolm_kit.transformer import TransformerConfig

# --- pointers ---------------------------------------------------------------------------------------------------------


def test_a_pointer_is_followed_to_a_folder_beside_it(tmp_path: Path) -> None:
    encodec.to_transformers(a_codec()).save_pretrained(tmp_path / "encodec_tiny")
    pointer = {"pretrained": "facebook/encodec_tiny", "exported": True, "version": "1.3.0"}
    folder = written(tmp_path / "musicgen", codec=pointer)
    sound = torch.randn(1, 1, 800)
    assert torch.equal(read_audiocraft(folder).codec.encode(sound), a_codec().encode(sound))
    assert torch.equal(read_codec(folder).encode(sound), a_codec().encode(sound))
    (folder / "compression_state_dict.bin").unlink()  # the settings name it as well
    settings = changed(compression_model_checkpoint="//pretrained/facebook/encodec_tiny")
    torch.save(exported(renamed(an_lm()), settings), folder / "state_dict.bin")
    assert torch.equal(read_audiocraft(folder).codec.encode(sound), a_codec().encode(sound))


def test_a_pointer_to_another_folder_of_audiocraft_is_followed_once(tmp_path: Path) -> None:
    written(tmp_path / "other")
    folder = written(tmp_path / "model", codec={"pretrained": "other"})
    assert same(read_audiocraft(folder).codec, a_codec())
    written(tmp_path / "other", codec={"pretrained": "model"})
    with pytest.raises(ValueError, match="says that its codec is other, but .* holds no codec"):
        read_audiocraft(folder)


def test_a_pointer_in_the_place_of_the_model_is_told(tmp_path: Path) -> None:
    torch.save({"pretrained": "facebook/audiogen-medium"}, tmp_path / "state_dict.bin")
    with pytest.raises(ValueError, match="state_dict.bin only says that the model is facebook/audiogen-medium"):
        read_audiocraft(tmp_path)


def test_a_pointer_into_nothing_names_it_and_a_codec_helps(tmp_path: Path) -> None:
    folder = written(tmp_path, codec={"pretrained": "facebook/encodec_nowhere"})
    with pytest.raises(FileNotFoundError, match="its codec is facebook/encodec_nowhere, .*beside the file"):
        read_audiocraft(folder)
    assert same(read_audiocraft(folder, codec=a_codec()).codec, a_codec())
    (folder / "compression_state_dict.bin").unlink()
    settings = changed(compression_model_checkpoint="//sig/bd44a852")
    torch.save(exported(renamed(an_lm()), settings), folder / "state_dict.bin")
    with pytest.raises(FileNotFoundError, match="no compression_state_dict.bin beside .*bd44a852"):
        read_audiocraft(folder)


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "split"),
    [
        ({}, False),
        ({"pattern": "parallel"}, False),
        ({"pattern": "flatten"}, False),
        ({"num_codebooks": 2 * K, "offsets": (0, 0, 1, 1, 2, 2, 3, 3)}, True),
    ],
)
def test_export_then_import_gives_equal_tensors_and_settings(
    tmp_path: Path, options: dict[str, Any], split: bool
) -> None:
    lm, codec = an_lm(**options), a_codec(channels=2, split_channels=True) if split else a_codec()
    write_audiocraft(Parts(codec, lm, None), tmp_path / "out")
    parts = read_audiocraft(tmp_path / "out")
    assert (parts.lm.config, parts.codec.config) == (lm.config, codec.config)
    assert same(parts.lm, lm) and same(parts.codec, codec)
    write_audiocraft(parts, tmp_path / "out")  # an earlier one is replaced


def test_import_then_export_gives_equal_tensors(tmp_path: Path) -> None:
    folder = written(tmp_path / "in")
    write_audiocraft(read_audiocraft(folder), tmp_path / "out")
    for file in ("state_dict.bin", "compression_state_dict.bin"):
        before, after = (read_package(each / file).state for each in (folder, tmp_path / "out"))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert torch.load(tmp_path / "out" / file, weights_only=True)["exported"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": TextConfig(kind="t5", dim=E, name="./text_encoder")}, "audiocraft opens by name: give t5 as"),
        ({"text": TextConfig(kind="t5", dim=E, name="t5-base")}, "states 512 wide, t5-base's are 768"),
        ({"text": TextConfig(kind="t5", dim=E, name="t5-small", clean=True)}, "text clean is true"),
        ({"text": TextConfig(kind="small", dim=8)}, "text kind is 'small'"),
        ({"text": TextConfig()}, "cross-attention and no text"),
        ({"prefix": Prefix(1, 8)}, "stands on a prefix"),
        ({"offsets": (3, 2, 1, 0)}, "delays in rising order"),
        (
            {"transformer": TransformerConfig(dim=D, heads=2, layers=1, cross_attention=True, positions="rotary")},
            "sinusoidal positions, this one has rotary",
        ),
    ],
)
def test_what_audiocraft_cannot_be_is_not_written(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_audiocraft(Parts(a_codec(), an_lm(**options), None), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_t5_can_be_said(tmp_path: Path) -> None:
    lm = an_lm(text=TextConfig(kind="t5", dim=E, name="./text_encoder"))
    write_audiocraft(Parts(a_codec(), lm, None), tmp_path / "out", t5="google/flan-t5-small")
    assert read_audiocraft(tmp_path / "out").lm.config.text.name == "google/flan-t5-small"


def test_another_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all I have")
    with pytest.raises(ValueError, match="exists and is no folder of audiocraft"):
        write_audiocraft(Parts(a_codec(), an_lm(), None), tmp_path)
