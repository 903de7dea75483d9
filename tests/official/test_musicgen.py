"""Folders of MusicGen in all their layouts; what is refused, and why."""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.official import lm_names
from audiolm_kit.official.musicgen import read_musicgen, write_musicgen
from audiolm_kit.official.parts import Parts, conditioner_of
from audiolm_kit.transformer import TransformerConfig

K, V, D = 2, 16, 16
CAPTIONS = ["rain", "a bell rings"]
WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """A model of random weights; its T5 lies in a folder of its own, as where the checkpoint names one of the hub."""
    from transformers import T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("t5")
    save_tokenizer(folder)
    torch.manual_seed(0)
    T5EncoderModel(T5Config(**SMALL_T5)).save_pretrained(folder)
    return Parts(a_codec(), a_model(text=TextConfig(kind="t5", dim=12, name=str(folder))), None)


SMALL_T5 = {"vocab_size": 8, "d_model": 12, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def written(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "musicgen"
    write_musicgen(parts, folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy to be tampered with."""
    copy = tmp_path / "musicgen"
    copy.mkdir()
    for path in written.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def a_codec(**changes: Any) -> NeuralCodec:
    torch.manual_seed(1)
    body = SEANetConfig(ratios=(4, 2), filters=2, dim=4, lstm=1, causal=False, shortcut="identity")
    quantizer = QuantizerConfig(num_codebooks=K, codebook_size=V, dim=4)
    return NeuralCodec(replace(CodecConfig(8000, body="seanet", seanet=body, quantizer=quantizer), **changes)).eval()


def a_model(**changes: Any) -> StreamLM:
    torch.manual_seed(2)
    transformer = TransformerConfig(dim=D, heads=2, layers=2, cross_attention=True)
    return StreamLM(replace(LMConfig(num_codebooks=K, codebook_size=V, transformer=transformer), **changes)).eval()


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "a", "bell", "rings", "rain"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def assert_equal(found: Parts, expected: Parts) -> None:
    """The same models, and captions that are read alike."""
    for one, other in ((found.lm, expected.lm), (found.codec, expected.codec)):
        ours, theirs = one.state_dict(), other.state_dict()
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    reads, wanted = conditioner_of(found), conditioner_of(expected)
    assert reads is not None and wanted is not None
    assert torch.equal(reads.prepare(CAPTIONS).content, wanted.prepare(CAPTIONS).content)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    about = checkpoint.read_json(folder / "config.json")
    change(about)
    (folder / "config.json").write_text(json.dumps(about))


def reweigh(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


# --- the layouts


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


# --- what is refused in reading


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


# --- what is refused in writing


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
