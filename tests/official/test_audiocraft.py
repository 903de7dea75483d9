"""Folders in audiocraft's layout, made by hand: what is read, what is refused by name, and what is written back."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.official import encodec
from audiolm_kit.official.audiocraft import read_audiocraft, read_codec, write_audiocraft
from audiolm_kit.official.audiocraft_files import read_package
from audiolm_kit.official.parts import Parts
from audiolm_kit.transformer import TransformerConfig

K, V, D, LAYERS, E = 4, 16, 16, 2, 512
SETTINGS: dict[str, Any] = {
    "solver": "audiogen",
    "sizes": {"dim": D},
    "lm_model": "transformer_lm",
    "dataset": {"segment_duration": 10},
    "transformer_lm": {
        **{"dim": "${sizes.dim}", "num_heads": 2, "num_layers": LAYERS, "n_q": K, "card": V, "hidden_scale": 4},
        **{"norm_first": True, "bias_proj": False, "bias_ff": False, "bias_attn": False, "causal": True},
        **{"activation": "gelu", "dropout": 0.0, "memory_efficient": True, "layer_scale": None, "past_context": None},
        **{"positional_embedding": "sin", "norm": "layer_norm", "weight_init": "gaussian", "spectral_norm": False},
    },
    "codebooks_pattern": {"modeling": "delay", "delay": {"delays": [0, 1, 2, 3], "flatten_first": 0}},
    "classifier_free_guidance": {"training_dropout": 0.1, "inference_coef": 3.0},
    "fuser": {"cross": ["description"], "sum": [], "prepend": [], "input_interpolate": []},
    "conditioners": {
        "args": {"merge_text_conditions_p": 0.25},
        "description": {"model": "t5", "t5": {"name": "t5-small", "finetune": False, "word_dropout": 0.3}},
    },
    "interleave_stereo_codebooks": {"use": False, "per_timestep": False},
}


def a_codec(**options: Any) -> NeuralCodec:
    body = SEANetConfig(ratios=(4, 2), filters=4, dim=8, lstm=1, causal=False, pad_mode="constant", shortcut="identity")
    quantizer = QuantizerConfig(num_codebooks=K, codebook_size=V, dim=8)
    torch.manual_seed(1)
    config = CodecConfig(sample_rate=400, body="seanet", seanet=body, quantizer=quantizer)
    return NeuralCodec(replace(config, **options)).eval()


def an_lm(**options: Any) -> StreamLM:
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=D, heads=2, layers=LAYERS, cross_attention=True)
    text = TextConfig(kind="t5", dim=E, name="t5-small")
    config = LMConfig(num_codebooks=K, codebook_size=V, transformer=transformer, text=text)
    return StreamLM(replace(config, **options)).eval()


def renamed(lm: StreamLM) -> dict[str, Tensor]:
    """The weights as audiocraft calls them, by hand."""
    ours, out = lm.state_dict(), {}
    books, width = lm.config.num_codebooks, lm.config.codebook_size
    for k in range(books):
        out[f"emb.{k}.weight"] = ours["embedding.weight"][k * (width + 1) : (k + 1) * (width + 1)].clone()
        out[f"linears.{k}.weight"] = ours["heads.weight"][k * width : (k + 1) * width].clone()
    for part in ("weight", "bias"):
        out[f"out_norm.{part}"] = ours[f"transformer.norm.{part}"]
        name = "condition_provider.conditioners.description.output_proj"
        out[f"{name}.{part}"] = ours[f"text_projection.{part}"]
    for i in range(lm.config.transformer.layers):
        at = f"transformer.layers.{i}"
        out[f"{at}.self_attn.in_proj_weight"] = ours[f"{at}.attention.query_key_value.weight"]
        out[f"{at}.self_attn.out_proj.weight"] = ours[f"{at}.attention.output.weight"]
        fused = [ours[f"{at}.cross_attention.{name}.weight"] for name in ("query", "key_value")]
        out[f"{at}.cross_attention.in_proj_weight"] = torch.cat(fused)
        out[f"{at}.cross_attention.out_proj.weight"] = ours[f"{at}.cross_attention.output.weight"]
        out[f"{at}.linear1.weight"] = ours[f"{at}.feed_forward.up.weight"]
        out[f"{at}.linear2.weight"] = ours[f"{at}.feed_forward.down.weight"]
        norms = {"norm1": "attention_norm", "norm_cross": "cross_attention_norm", "norm2": "feed_forward_norm"}
        for theirs, name in norms.items():
            for part in ("weight", "bias"):
                out[f"{at}.{theirs}.{part}"] = ours[f"{at}.{name}.{part}"]
    return out


def changed(**sections: Any) -> dict[str, Any]:
    """The settings with others laid over them, section by section."""
    settings = copy.deepcopy(SETTINGS)
    for name, value in sections.items():
        settings[name] = {**settings.get(name, {}), **value} if isinstance(value, dict) else value
    return settings


def exported(state: Any, settings: Any, **rest: Any) -> dict[str, Any]:
    text = yaml.safe_dump(settings) if isinstance(settings, dict) else settings
    return {"best_state": state, "xp.cfg": text, **rest}


def written(folder: Path, settings: Any = SETTINGS, state: Any = None, codec: Any = None) -> Path:
    """A folder as audiocraft exports it."""
    folder.mkdir(exist_ok=True)
    marks = {"version": "1.3.0", "exported": True}
    torch.save(exported(renamed(an_lm()) if state is None else state, settings, **marks), folder / "state_dict.bin")
    if codec is None:
        config, weights = encodec.to_audiocraft(a_codec())
        codec = exported(weights, config, **marks)
    torch.save(codec, folder / "compression_state_dict.bin")
    return folder


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


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
