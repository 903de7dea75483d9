"""Folders of MusicGen in all their layouts."""

from __future__ import annotations

import gc
import json
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
    K,
    a_codec,
    a_model,
    assert_equal,
    reweigh,
    save_tokenizer,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.official import lm_names
from audiolm_kit.official.musicgen import read_musicgen, write_musicgen
from audiolm_kit.official.parts import Parts
from audiolm_kit.transformer import TransformerConfig


def test_what_was_written_is_read_back(parts: Parts, written: Path) -> None:
    found = read_musicgen(written)
    assert_equal(found, parts)
    text = replace(parts.lm.config.text, name="./text_encoder")
    assert found.lm.config == replace(parts.lm.config, text=text)
    assert found.codec.config == parts.codec.config


def test_shards_and_pickles_are_read_as_whole_files_are(parts: Parts, folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(state)
    halves = {"model-00001-of-00002": names[::2], "model-00002-of-00002": names[1::2]}
    for ending, save in (("safetensors", save_file), ("bin", torch.save)):
        places = {name: f"{shard}.{ending}" for shard, own in halves.items() for name in own}
        for shard, own in halves.items():
            save({name: state[name] for name in own}, folder / f"{shard}.{ending}")
        index = WEIGHTS if ending == "safetensors" else PICKLE
        (folder / f"{index}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
        assert_equal(read_musicgen(folder), parts)
        (folder / f"model-00002-of-00002.{ending}").unlink()
        with pytest.raises(
            FileNotFoundError, match=f"model-00002-of-00002.{ending} is missing, and {index}.index.json"
        ):
            read_musicgen(folder)
        (folder / f"{index}.index.json").unlink()
    torch.save(state, folder / PICKLE)
    assert_equal(read_musicgen(folder), parts)


def test_safetensors_come_before_a_pickle_that_runs_code(parts: Parts, folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (folder / "run",))

    torch.save({"weight": Evil()}, folder / PICKLE)
    assert_equal(read_musicgen(folder), parts)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="pytorch_model.bin .*--unsafe-pickle"):
        read_musicgen(folder)
    assert not (folder / "run").exists()


def test_older_names_are_read(parts: Parts, folder: Path) -> None:
    def older(state: dict[str, Tensor]) -> None:
        for name in list(state):
            if ".parametrizations.weight.original" in name:
                old = name.replace(".parametrizations.weight.original0", ".weight_g")
                state[old.replace(".parametrizations.weight.original1", ".weight_v")] = state.pop(name)
        state["decoder.model.decoder.embed_positions.weights"] = torch.zeros(2048, D)
        state["text_encoder.encoder.embed_tokens.weight"] = state.pop("text_encoder.shared.weight")

    reweigh(folder, older)
    assert_equal(read_musicgen(folder), parts)


def test_half_precision_is_read_as_single(parts: Parts, folder: Path) -> None:
    def half(state: dict[str, Tensor]) -> None:
        state.update({name: tensor.half() for name, tensor in state.items() if tensor.is_floating_point()})

    reweigh(folder, half)
    found = read_musicgen(folder)
    assert {tensor.dtype for tensor in found.lm.state_dict().values()} == {torch.float32}
    assert torch.equal(found.lm.heads.weight, parts.lm.heads.weight.half().float())
    assert found.codec.encode(torch.zeros(1, 1, 80)).shape == (1, K, 10)


def test_a_flan_t5_is_written_and_read(parts: Parts, tmp_path: Path) -> None:
    """As published ones are: with a decoder that nobody needs, gated, embeddings untied."""
    from transformers import T5Config, T5ForConditionalGeneration

    save_tokenizer(tmp_path / "flan")
    config = T5Config(**SMALL_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "flan")
    model = a_model(text=TextConfig(kind="t5", dim=12, name=str(tmp_path / "flan")))
    write_musicgen(parts._replace(lm=model), tmp_path / "musicgen")
    found = read_musicgen(tmp_path / "musicgen")
    assert_equal(found, parts._replace(lm=model))
    write_musicgen(found, tmp_path / "again")
    assert_equal(read_musicgen(tmp_path / "again"), found)


def test_a_codec_may_code_two_channels_at_once(parts: Parts, tmp_path: Path) -> None:
    write_musicgen(parts._replace(codec=a_codec(channels=2)), tmp_path / "musicgen")
    found = read_musicgen(tmp_path / "musicgen")
    assert found.codec.channels == 2 and found.codec.num_codebooks == K
    assert_equal(found, parts._replace(codec=a_codec(channels=2)))


def test_a_t5_that_was_cut_out_lasts_as_long_as_its_model(written: Path) -> None:
    found = read_musicgen(written)
    place = found.text_encoder
    assert place is not None and (place / "config.json").is_file() and place.name == "text_encoder"
    del found
    gc.collect()
    assert not place.parent.exists()


@pytest.mark.parametrize(
    ("dim", "heads", "layers", "channels", "parameters"),
    [
        (1024, 16, 24, 1, 420_371_456),
        (1024, 16, 24, 2, 437_152_768),
        (1536, 24, 48, 1, 1_838_737_920),
        (2048, 32, 48, 1, 3_256_956_928),
    ],
    ids=["small", "stereo", "medium", "large"],
)
def test_published_sizes_are_ours(dim: int, heads: int, layers: int, channels: int, parameters: int) -> None:
    """Name for name and shape for shape, without a weight in memory."""
    from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

    transformer = TransformerConfig(dim=dim, heads=heads, layers=layers, cross_attention=True)
    text = TextConfig(kind="t5", dim=768)
    offsets = (0, 0, 1, 1, 2, 2, 3, 3) if channels == 2 else ()
    config = MusicgenDecoderConfig(
        hidden_size=dim,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        ffn_dim=4 * dim,
        num_codebooks=4 * channels,
        audio_channels=channels,
    )
    with torch.device("meta"):
        ours = StreamLM(LMConfig(4 * channels, 2048, transformer=transformer, text=text, offsets=offsets))
        theirs = MusicgenForCausalLM(config)
    wanted = {f"decoder.{name}": tensor for name, tensor in theirs.state_dict().items()}
    wanted |= {"enc_to_dec_proj.weight": torch.empty(dim, 768), "enc_to_dec_proj.bias": torch.empty(dim)}
    checkpoint.check_weights(wanted, lm_names.to_theirs(ours.state_dict(), 4 * channels), Path("theirs"))
    assert sum(tensor.numel() for tensor in ours.parameters()) == parameters
