"""Folders in audiocraft's layout, made by hand: what is read, and what is refused by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from audiocraft_folders import LAYERS, SETTINGS, D, V, a_codec, an_lm, changed, exported, renamed, same, written

from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.official import encodec
from audiolm_kit.official.audiocraft import read_audiocraft, write_audiocraft
from audiolm_kit.official.parts import Parts
from audiolm_kit.transformer import TransformerConfig

# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_folder_becomes_the_model_the_codec_and_the_name_of_the_t5(tmp_path: Path) -> None:
    parts = read_audiocraft(written(tmp_path))
    assert parts.lm.config == an_lm().config
    assert same(parts.lm, an_lm())
    assert isinstance(parts.codec, NeuralCodec)
    sound = torch.randn(1, 1, 800)
    assert torch.equal(parts.codec.encode(sound), a_codec().encode(sound))
    assert parts.text_encoder is None
    assert not parts.lm.training and not parts.codec.training


def test_padding_is_masked_unless_asked_for(tmp_path: Path) -> None:
    folder = written(tmp_path)
    assert not read_audiocraft(folder).lm.config.transformer.attend_padding
    lm = read_audiocraft(folder, attend_padding=True).lm
    assert lm.config.transformer.attend_padding and lm.transformer.config.attend_padding
    assert same(lm, an_lm())


def packages() -> dict[str, tuple[dict[str, Any], str]]:
    """The same weights as they come: their file's content and name."""
    state, nested = renamed(an_lm()), {"model": renamed(an_lm())}
    theirs = {
        name.replace("_attn.", "_attn.mha.").replace("_attention.", "_attention.mha."): state[name] for name in state
    }
    training = exported(nested, SETTINGS, optimizer={"state": {0: torch.ones(1)}}, history=[{"train": {"ce": 1.0}}])
    return {
        "first MusicGen": (exported(state, SETTINGS), "state_dict.bin"),
        "training": ({**training, "fsdp_best_state": {}}, "checkpoint.th"),
        "gathered": (exported({}, SETTINGS, fsdp_best_state=nested), "checkpoint.th"),
        "gathered is newer": (exported({"model": {}}, SETTINGS, fsdp_best_state=nested), "state_dict.bin"),
        "torch's attention": (exported(theirs, SETTINGS), "state_dict.bin"),
    }


@pytest.mark.parametrize("name", list(packages()))
def test_every_layout_of_the_file_gives_the_same_weights(tmp_path: Path, name: str) -> None:
    content, file = packages()[name]
    torch.save(content, tmp_path / file)
    assert same(read_audiocraft(tmp_path, codec=a_codec()).lm, an_lm())
    assert same(read_audiocraft(tmp_path / file, codec=a_codec()).lm, an_lm())


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in renamed(an_lm()).items()}
    lm = read_audiocraft(written(tmp_path, state=half)).lm
    assert {tensor.dtype for tensor in lm.state_dict().values()} == {torch.float32}
    assert torch.equal(lm.heads.weight, an_lm().heads.weight.half().float())


@pytest.mark.parametrize(
    ("pattern", "ours", "offsets"),
    [
        ({"modeling": "parallel"}, "parallel", ()),
        ({"modeling": "delay", "delay": None}, "delay", ()),
        ({"modeling": "delay", "delay": {"delays": [0, 0, 1, 1]}}, "delay", (0, 0, 1, 1)),
        ({"modeling": "unroll", "unroll": {"flattening": [0, 1, 2, 3], "delays": [0, 0, 0, 0]}}, "flatten", ()),
        ({"modeling": None, "delay": {"delays": [9]}}, "delay", ()),
    ],
)
def test_the_pattern_is_read_off_the_settings(
    tmp_path: Path, pattern: dict[str, Any], ours: str, offsets: tuple[int, ...]
) -> None:
    settings = changed(codebooks_pattern=pattern, transformer_lm={"q_modeling": "delay"})
    config = read_audiocraft(written(tmp_path, settings)).lm.config
    assert (config.pattern, config.offsets) == (ours, offsets)


def test_stereo_is_a_codec_for_each_channel(tmp_path: Path) -> None:
    codec = a_codec(quantizer=QuantizerConfig(num_codebooks=2, codebook_size=V, dim=8))
    weights = exported(*reversed(encodec.to_audiocraft(codec)))
    settings = changed(interleave_stereo_codebooks={"use": True}, codebooks_pattern={"delay": {"delays": [0, 0, 1, 1]}})
    parts = read_audiocraft(written(tmp_path, settings, codec=weights))
    assert isinstance(parts.codec, NeuralCodec)
    assert (parts.codec.channels, parts.codec.num_codebooks, parts.lm.config.offsets) == (2, 4, (0, 0, 1, 1))
    sound = torch.randn(1, 2, 400)
    each = [codec.encode(sound[:, :1]), codec.encode(sound[:, 1:])]
    assert torch.equal(parts.codec.encode(sound), torch.stack(each, dim=2).flatten(1, 2))


def test_fewer_codebooks_of_a_codec_are_its_first_ones(tmp_path: Path) -> None:
    codec = a_codec(quantizer=QuantizerConfig(num_codebooks=6, codebook_size=V, dim=8))
    weights = exported(*reversed(encodec.to_audiocraft(codec)))
    folder = written(tmp_path, changed(compression_model_n_q=4), codec=weights)
    sound = torch.randn(1, 1, 400)
    assert torch.equal(read_audiocraft(folder).codec.encode(sound), codec.encode(sound, num_codebooks=4))
    with pytest.raises(ValueError, match="is for 4 codebooks of 16, the codec has 6 of 16"):
        read_audiocraft(written(tmp_path, codec=weights))


def test_a_model_without_text(tmp_path: Path) -> None:
    lm = an_lm(text=TextConfig(), transformer=TransformerConfig(dim=D, heads=2, layers=LAYERS))
    write_audiocraft(Parts(a_codec(), lm, None), tmp_path / "out")
    assert same(read_audiocraft(tmp_path / "out").lm, lm)


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        *(
            ({"transformer_lm": {name: value}}, rf"transformer_lm\.{name} is {value!r}, and only")
            for name, value in {
                **{"norm": "rms_norm", "norm_first": False, "bias_attn": True, "bias_ff": True, "bias_proj": True},
                **{"positional_embedding": "rope", "qk_layer_norm": True, "qk_layer_norm_cross": True, "kv_repeat": 2},
                **{"layer_scale": 0.1, "past_context": 100, "two_step_cfg": True, "activation": "relu"},
                **{"causal": False, "positional_scale": 0, "max_period": 5000, "xpos": True, "hidden_scale": 2.5},
                **{"residual_balancer_ff": 0.1, "n_q": "many"},
            }.items()
        ),
        ({"lm_model": "transformer_lm_magnet"}, "lm_model is 'transformer_lm_magnet'"),
        ({"fuser": {"prepend": ["description"], "cross": []}}, r"fuser.prepend is \['description'\]"),
        ({"fuser": {"sum": ["genre"]}}, "fuser.sum"),
        ({"fuser": {"input_interpolate": ["genre"]}}, "fuser.input_interpolate"),
        ({"fuser": {"cross_attention_pos_emb": True}}, "fuser.cross_attention_pos_emb is True"),
        ({"fuser": {"cross": []}}, "fuser.cross"),
        ({"conditioners": {"self_wav": {"model": "chroma_stem"}}}, "conditioners.self_wav: .*melody"),
        ({"conditioners": {"genre": {"model": "lut"}}}, "fuser.cross .*genre"),
        ({"conditioners": {"description": {"model": "clap"}}}, "conditioners.description.model is 'clap'"),
        ({"conditioners": {"description": {"model": "t5", "t5": {}}}}, "description.t5.name is None"),
        (
            {"conditioners": {"description": {"model": "t5", "t5": {"name": "t5-small", "finetune": True}}}},
            "description.t5.finetune is True",
        ),
        (
            {"conditioners": {"description": {"model": "t5", "t5": {"name": "t5-small", "normalize_text": True}}}},
            "description.t5.normalize_text is True",
        ),
        ({"codebooks_pattern": {"modeling": "musiclm"}}, "codebooks_pattern.modeling is 'musiclm'"),
        ({"codebooks_pattern": {"delay": {"flatten_first": 2}}}, "codebooks_pattern.delay.flatten_first is 2"),
        ({"codebooks_pattern": {"delay": {"empty_initial": 1}}}, "codebooks_pattern.delay.empty_initial is 1"),
        ({"codebooks_pattern": {"delay": {"delays": [0, 1]}}}, r"codebooks_pattern.delay.delays is \[0, 1\]"),
        (
            {"codebooks_pattern": {"modeling": "unroll", "unroll": {"flattening": [0, 1, 1, 1]}}},
            "codebooks_pattern.unroll.flattening",
        ),
        ({"interleave_stereo_codebooks": {"use": True, "per_timestep": True}}, "per_timestep is true"),
    ],
)
def test_what_ours_would_compute_otherwise_is_refused_by_name(
    tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"state_dict.bin: .*{message}"):
        read_audiocraft(written(tmp_path, changed(**sections)))


def test_what_audiocraft_takes_where_the_settings_are_silent_counts(tmp_path: Path) -> None:
    settings = changed()
    del settings["transformer_lm"]["bias_ff"]
    with pytest.raises(ValueError, match="transformer_lm.bias_ff is True"):
        read_audiocraft(written(tmp_path, settings))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("linears.3.weight"), r"1 weights are missing \(linears.3.weight\)"),
        (lambda state: state.update(extra=torch.ones(1)), r"1 weights are unknown \(extra\)"),
        (lambda state: state.update({"out_norm.bias": torch.ones(3)}), r"wrongly shaped \(out_norm.bias \[3\], wanted"),
        (lambda state: state.update(number=3), "best_state holds more than weights, number"),
        (lambda state: state.clear(), "it holds no best weights"),
        (lambda state: [state.pop(name) for name in list(state) if "output_proj" in name], "no projection of its"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    state = renamed(an_lm())
    change(state)
    with pytest.raises(ValueError, match=f"state_dict.bin: .*{message}"):
        read_audiocraft(written(tmp_path, state=state))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("!!python/object/apply:os.mkdir [MARK]", "xp.cfg is not readable as plain YAML"),
        ("a: &a [1]\nb: *a", "xp.cfg is not readable as plain YAML .it holds aliases"),
        ("[1, 2", "xp.cfg is not readable as plain YAML"),
        ("[1, 2]", "xp.cfg is a list, wanted settings by name"),
        ("a: ${a}", "lm_model is None"),
    ],
)
def test_settings_are_plain_or_refused(tmp_path: Path, settings: str, message: str) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(ValueError, match=message):
        read_audiocraft(written(tmp_path, settings.replace("MARK", str(mark))))
    assert not mark.exists()


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", ["state_dict.bin", "compression_state_dict.bin"])
def test_a_malicious_or_damaged_file_is_refused(tmp_path: Path, file: str) -> None:
    folder, mark = written(tmp_path / "folder"), tmp_path / "mark"
    path = folder / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{file} is cut off or damaged"):
        read_audiocraft(folder)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    path.write_bytes(bytes(flipped))
    with pytest.raises(ValueError, match=f"{file} is cut off or damaged"):
        read_audiocraft(folder)
    torch.save({"best_state": {}, "xp.cfg": Evil(mark)}, path)
    with pytest.raises(ValueError, match=f"{file} is refused, nothing of it was run: .*mkdir.*--unsafe-pickle"):
        read_audiocraft(folder)
    assert not mark.exists()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=file):
        read_audiocraft(folder)


def test_another_programs_file_is_told(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "state_dict.bin")
    with pytest.raises(ValueError, match="state_dict.bin holds no xp.cfg but weight"):
        read_audiocraft(tmp_path)
