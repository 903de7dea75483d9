"""Transfer: out of ours into each layout and back again is the same model; options do what they say or are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from audiolm_kit import checkpoint, provenance
from audiolm_kit.codec.foreign import ForeignCodec
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.opening import open_codec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.official import encodec
from audiolm_kit.official.parts import Parts, write_ours
from audiolm_kit.official.transfer import Reading, export, import_, read_any
from audiolm_kit.transformer import TransformerConfig

WORDS = ["<pad>", "</s>", "<unk>", "a", "bell", "rings", "rain"]


def save_t5(folder: Path, width: int = 12) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = T5Config(vocab_size=8, d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder)
    return folder


def tiny_codec() -> NeuralCodec:
    """As audiocraft trains them."""
    body = SEANetConfig(ratios=(4, 2), filters=2, dim=4, lstm=1, causal=False, shortcut="identity", pad_mode="constant")
    quantizer = QuantizerConfig(num_codebooks=2, codebook_size=16, dim=4)
    codec = NeuralCodec(CodecConfig(8000, body="seanet", seanet=body, quantizer=quantizer))
    for name, buffer in codec.named_buffers():
        if name.endswith(("embed", "embed_sum")):
            nn.init.normal_(buffer)
    return codec.eval()


def tiny_lm(text: TextConfig) -> StreamLM:
    transformer = TransformerConfig(dim=16, heads=2, layers=1, cross_attention=True)
    return StreamLM(LMConfig(num_codebooks=2, codebook_size=16, transformer=transformer, text=text)).eval()


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a tiny T5 with its tokenizer."""
    torch.manual_seed(1)
    return save_t5(tmp_path_factory.mktemp("t5") / "text_encoder")


@pytest.fixture(scope="module")
def ours(t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights that brings its T5."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ours") / "model"
    write_ours(Parts(tiny_codec(), tiny_lm(TextConfig(kind="t5", dim=12, name="./text_encoder")), t5), folder)
    return folder


@pytest.fixture(scope="module")
def theirs(ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as transformers has it."""
    folder = tmp_path_factory.mktemp("theirs") / "musicgen"
    assert export(ours, folder, "transformers").startswith("AudioGen, 0.00")
    return folder


@pytest.fixture(scope="module")
def craft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in audiocraft's layout, whose T5 is known by name alone."""
    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("craft")
    write_ours(Parts(tiny_codec(), tiny_lm(TextConfig(kind="t5", dim=512, name="t5-small")), None), home / "ours")
    export(home / "ours", home / "audiocraft", "audiocraft")
    return home / "audiocraft"


def same(one: nn.Module, other: nn.Module) -> bool:
    return checkpoint.fingerprint(one) == checkpoint.fingerprint(other)


def parts_of(source: str | Path, reading: Reading = Reading()) -> Parts:  # noqa: B008
    found = read_any(source, reading)
    assert isinstance(found, Parts)
    return found


# --- models


def test_to_transformers_and_back_is_the_same_model(ours: Path, theirs: Path, tmp_path: Path) -> None:
    told = import_(theirs, tmp_path / "again")
    assert "captions by the T5 in its folder; NeuralCodec, 2 codebooks of 16 at 1000 Hz, 8000 Hz mono" in told
    first, again = AudioGen.load(ours), AudioGen.load(tmp_path / "again")
    assert torch.equal(first.generate(["rain"], 0.05)[0].samples, again.generate(["rain"], 0.05)[0].samples)
    state = again.lm.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in first.lm.state_dict().items())
    assert same(first.codec, again.codec)


def test_to_audiocraft_and_back_is_the_same_model(craft: Path, tmp_path: Path) -> None:
    assert "captions by the T5 t5-small" in import_(craft, tmp_path / "again")
    first, again = parts_of(craft.parent / "ours"), parts_of(tmp_path / "again")
    assert same(first.codec, again.codec)
    state = again.lm.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in first.lm.state_dict().items())


def test_from_transformers_to_audiocraft_by_ours(theirs: Path, tmp_path: Path) -> None:
    import_(theirs, tmp_path / "ours")
    with pytest.raises(ValueError, match="t5"):
        export(tmp_path / "ours", tmp_path / "craft", "audiocraft")  # it opens a T5 by name alone
    assert not (tmp_path / "craft").exists()


def test_an_import_says_where_it_comes_from_and_nothing_of_the_machine(theirs: Path, tmp_path: Path) -> None:
    import_(theirs, tmp_path / "again")
    facts = provenance.read(tmp_path / "again")
    assert facts["imported"] == {"source": "musicgen", "layout": "musicgen"}
    assert str(theirs.parent) not in json.dumps(facts)


def test_an_import_replaces_nothing_but_a_checkpoint(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for done in (lambda: import_(theirs, tmp_path), lambda: export(theirs, tmp_path, "transformers")):
        with pytest.raises(ValueError, match="exists and is no checkpoint"):
            done()


def test_exports_may_be_written_anew(ours: Path, craft: Path, tmp_path: Path) -> None:
    for _ in range(2):
        export(ours / "codec", tmp_path / "transformers", "transformers")
        export(craft.parent / "ours", tmp_path / "audiocraft", "audiocraft")
        export(ours / "codec", tmp_path / "codec", "audiocraft")
    assert parts_of(tmp_path / "audiocraft").lm.config == parts_of(craft).lm.config


# --- codecs


def test_a_codec_goes_to_each_layout_and_back(ours: Path, tmp_path: Path) -> None:
    codec = open_codec(ours / "codec")
    assert isinstance(codec, NeuralCodec)
    for to in ("transformers", "audiocraft"):
        export(ours / "codec", tmp_path / to, to)  # type: ignore[arg-type]
        assert import_(tmp_path / to, tmp_path / f"from_{to}").startswith("NeuralCodec, 2 codebooks of 16")
        assert same(checkpoint.load(NeuralCodec, tmp_path / f"from_{to}"), codec)
    from transformers import AutoProcessor, EncodecModel

    theirs = EncodecModel.from_pretrained(tmp_path / "transformers")
    reader = AutoProcessor.from_pretrained(tmp_path / "transformers")
    assert (reader.feature_size, reader.sampling_rate) == (1, 8000) == (1, theirs.config.sampling_rate)


def test_audiocrafts_codec_is_had_from_beside_a_model(craft: Path, tmp_path: Path) -> None:
    import_(craft / "compression_state_dict.bin", tmp_path / "codec")
    assert same(checkpoint.load(NeuralCodec, tmp_path / "codec"), parts_of(craft).codec)


def test_a_training_of_audiocraft_is_a_codec_or_a_model(craft: Path, tmp_path: Path) -> None:
    (tmp_path / "codec").mkdir()
    shutil.copy(craft / "compression_state_dict.bin", tmp_path / "codec" / "checkpoint.th")
    assert isinstance(read_any(tmp_path / "codec"), NeuralCodec)
    shutil.copytree(craft, tmp_path / "lm")
    (tmp_path / "lm" / "state_dict.bin").rename(tmp_path / "lm" / "checkpoint.th")
    assert same(parts_of(tmp_path / "lm").lm, parts_of(craft).lm)
    assert same(parts_of(tmp_path / "lm" / "checkpoint.th").lm, parts_of(craft).lm)


def test_a_foreign_codec_goes_there_and_back(tmp_path: Path) -> None:
    from transformers import DacConfig, DacModel

    torch.manual_seed(0)
    sizes = {"n_codebooks": 3, "codebook_size": 16, "codebook_dim": 4, "encoder_hidden_size": 4}
    config = DacConfig(**sizes, decoder_hidden_size=16, downsampling_ratios=[4, 2], sampling_rate=1600)
    DacModel(config).save_pretrained(tmp_path / "dac")
    assert import_(tmp_path / "dac", tmp_path / "ours").startswith("ForeignCodec (dac), 3 codebooks of 16")
    export(tmp_path / "ours", tmp_path / "again", "transformers")
    codec = open_codec(tmp_path / "ours")
    again = read_any(tmp_path / "again")
    assert isinstance(again, ForeignCodec) and same(codec, again)
    fewer = read_any(tmp_path / "dac", Reading(num_codebooks=2))
    assert isinstance(fewer, ForeignCodec) and fewer.num_codebooks == 2
    with pytest.raises(ValueError, match="EnCodec alone"):
        export(tmp_path / "ours", tmp_path / "craft", "audiocraft")


def test_encodecs_own_file_becomes_a_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, opened = tiny_codec(), []

    def read(path: Path, unsafe: bool) -> NeuralCodec:
        opened.append((path, unsafe))
        return codec

    monkeypatch.setattr(encodec, "from_meta_file", read)
    (tmp_path / "encodec_24khz-d7cc33bc.th").write_text("")
    import_(tmp_path, tmp_path / "codec", Reading(unsafe_pickle=True))
    assert opened == [(tmp_path / "encodec_24khz-d7cc33bc.th", True)]
    assert same(checkpoint.load(NeuralCodec, tmp_path / "codec"), codec)


# --- options


@pytest.mark.parametrize("layout", ["theirs", "craft"])
def test_padding_is_masked_unless_it_is_asked_for(layout: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(layout)
    masked, attended = parts_of(source), parts_of(source, Reading(attend_padding=True))
    assert not masked.lm.config.transformer.attend_padding
    assert attended.lm.config == replace(
        masked.lm.config, transformer=replace(masked.lm.config.transformer, attend_padding=True)
    )
    assert attended.lm.transformer.config.attend_padding


def test_a_pointer_takes_the_codec_that_is_given(craft: Path, ours: Path, tmp_path: Path) -> None:
    shutil.copytree(craft, tmp_path / "pointing")
    torch.save({"pretrained": "facebook/nowhere"}, tmp_path / "pointing" / "compression_state_dict.bin")
    with pytest.raises(FileNotFoundError, match="facebook/nowhere"):
        read_any(tmp_path / "pointing")
    assert same(parts_of(tmp_path / "pointing", Reading(codec=str(ours / "codec"))).codec, open_codec(ours / "codec"))
    assert same(parts_of(tmp_path / "pointing", Reading(codec=str(ours))).codec, open_codec(ours / "codec"))


def test_a_text_encoder_may_be_given_by_folder_or_name(theirs: Path, t5: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(t5, other)
    import_(theirs, tmp_path / "copied", Reading(text_encoder=str(other)))
    shutil.rmtree(other)
    assert AudioGen.load(tmp_path / "copied").lm.config.text.name == "./text_encoder"
    import_(theirs, tmp_path / "named", Reading(text_encoder="owner/t5"))
    found = parts_of(tmp_path / "named")
    assert found.lm.config.text.name == "owner/t5" and found.text_encoder is None
    with pytest.raises(ValueError, match="is 8 wide, the model reads 12"):
        read_any(theirs, Reading(text_encoder=str(save_t5(tmp_path / "narrow", 8))))


@pytest.mark.parametrize(
    ("reading", "told"),
    [
        (Reading(num_codebooks=2), "num_codebooks is 2, but .* is no DAC or Mimi: leave it out"),
        (Reading(codec="x"), "codec is 'x', but .* holds its own: leave it out"),
    ],
)
def test_options_that_do_not_concern_a_source_are_refused(theirs: Path, reading: Reading, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_any(theirs, reading)


def test_options_of_models_are_refused_for_codecs(ours: Path, trained: Path, tmp_path: Path) -> None:
    for reading in (Reading(attend_padding=True), Reading(text_encoder="t5-base")):
        with pytest.raises(ValueError, match="is a codec alone: leave it out"):
            read_any(ours / "codec", reading)
    with pytest.raises(ValueError, match="reads no T5: leave it out"):
        read_any(trained, Reading(text_encoder="t5-base"))
    with pytest.raises(ValueError, match="t5 is 't5-base', but only a model in audiocraft's layout names one"):
        export(ours, tmp_path / "x", "transformers", "t5-base")


def test_other_checkpoints_of_ours_are_refused(ours: Path, tmp_path: Path) -> None:
    for done in (lambda: export(ours / "lm", tmp_path / "x", "transformers"), lambda: read_any(ours / "lm")):
        with pytest.raises(ValueError, match="holds a StreamLM, wanted an AudioGen or a codec"):
            done()
