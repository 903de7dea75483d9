"""Checkpoints that bring their T5: whole wherever they are moved, and the same through parts and through AudioGen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from audiolm_kit import checkpoint, conditioning, text_cache
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.official.parts import Parts, conditioner_of, read_ours, write_ours
from audiolm_kit.transformer import TransformerConfig

WORDS = ["<pad>", "</s>", "<unk>", "a", "bell", "rings", "rain"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """A model of random weights whose captions a tiny T5 reads, which lies beside it."""
    from transformers import T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("source") / "text_encoder"
    save_tokenizer(folder)
    torch.manual_seed(0)
    T5EncoderModel(T5Config(vocab_size=8, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(
        folder
    )
    body = SEANetConfig(ratios=(4, 2), filters=2, dim=4, lstm=0)
    codec = NeuralCodec(
        CodecConfig(
            8000, body="seanet", seanet=body, quantizer=QuantizerConfig(num_codebooks=2, codebook_size=16, dim=4)
        )
    )
    transformer = TransformerConfig(dim=16, heads=2, layers=1, cross_attention=True)
    text = TextConfig(kind="t5", dim=12, name="./text_encoder")
    lm = StreamLM(LMConfig(num_codebooks=2, codebook_size=16, transformer=transformer, text=text))
    return Parts(codec.eval(), lm.eval(), folder)


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


@pytest.fixture
def folder(parts: Parts, tmp_path: Path) -> Path:
    write_ours(parts, tmp_path / "model")
    return tmp_path / "model"


def heard(model: AudioGen) -> torch.Tensor:
    return model.generate(["a bell rings"], seconds=0.02, seed=1)[0].samples


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_parts_and_audiogen_write_the_same_folder(folder: Path, tmp_path: Path) -> None:
    AudioGen.load(folder).save(tmp_path / "again")
    write_ours(read_ours(folder), tmp_path / "parts")
    assert files(folder) == files(tmp_path / "again") == files(tmp_path / "parts")
    assert {path.name for path in folder.iterdir()} == {"config.json", "codec", "lm", "text_encoder"}
    assert checkpoint.read_kind(folder, "AudioGen")["fingerprints"].keys() == {"codec", "lm", "text_encoder"}


def test_a_folder_is_whole_wherever_it_is_moved(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = heard(AudioGen.load(folder))
    shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    folder.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(heard(AudioGen.load("moved")), expected)
    monkeypatch.chdir(tmp_path / "elsewhere")
    model = AudioGen.load("copy")
    monkeypatch.chdir(tmp_path)  # where it was opened from is forgotten, where it lies is not
    assert torch.equal(heard(model), expected)
    model.save("saved")
    assert files(tmp_path / "saved") == files(tmp_path / "moved")


def test_a_checkpoint_is_saved_over_itself(folder: Path) -> None:
    before = files(folder)
    AudioGen.load(folder).save(folder)
    assert files(folder) == before


def test_a_t5_of_the_hub_is_copied_and_not_linked(parts: Parts, tmp_path: Path) -> None:
    assert parts.text_encoder is not None
    linked = tmp_path / "snapshot" / "text_encoder"
    linked.mkdir(parents=True)
    for path in parts.text_encoder.iterdir():
        (linked / path.name).symlink_to(path)
    write_ours(parts._replace(text_encoder=linked), tmp_path / "model")
    assert not any(path.is_symlink() for path in (tmp_path / "model").rglob("*"))
    assert AudioGen.load(tmp_path / "model").fingerprints["text_encoder"] == checkpoint.folder_fingerprint(linked)


def test_a_changed_or_missing_t5_is_noticed(folder: Path) -> None:
    weights = folder / "text_encoder" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for read in (read_ours, AudioGen.load):
        with pytest.raises(ValueError, match="text_encoder is not what the checkpoint was made of"):
            read(folder)
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(FileNotFoundError, match="text_encoder is missing: copy the whole checkpoint folder"):
        read_ours(folder)
    with pytest.raises(FileNotFoundError, match="no T5 at .*text_encoder"):
        AudioGen.load(folder)


def test_a_t5_that_is_gone_when_it_is_saved_leaves_what_was_there(folder: Path, tmp_path: Path) -> None:
    model = AudioGen.load(folder)
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(FileNotFoundError, match="text_encoder was moved or deleted while in use"):
        model.save(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_its_states_are_cached_as_those_of_any_t5(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_cache, "SETTLED", 0.0)
    parts = read_ours(folder)
    plain = conditioner_of(parts)
    assert plain is not None
    cached = conditioner_of(parts, tmp_path / "cache")
    assert cached is not None
    torch.testing.assert_close(cached.prepare(["rain"]), plain.prepare(["rain"]))
    monkeypatch.setattr(conditioning.FrozenT5, "__init__", None)  # another one loads none, for the same files
    again = conditioner_of(parts, tmp_path / "cache")
    assert again is not None and torch.equal(again.prepare(["rain"]).content, cached.prepare(["rain"]).content)


def test_parts_keep_the_vocabulary_of_a_small_encoder(trained: Path, tmp_path: Path) -> None:
    write_ours(read_ours(trained), tmp_path / "again")
    assert files(trained) == files(tmp_path / "again")
    conditioner = conditioner_of(read_ours(trained))
    assert conditioner is not None and conditioner.prepare(["a bell rings"]).mask.all()
    with pytest.raises(ValueError, match="what reads the captions of this model .text kind small. is missing"):
        write_ours(read_ours(trained)._replace(vocabulary=None), tmp_path / "without")


def test_parts_that_do_not_belong_together_are_not_written(parts: Parts, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="text kind t5. is missing: give it too"):
        write_ours(parts._replace(text_encoder=None), tmp_path / "new")
    lm = StreamLM(LMConfig(num_codebooks=3, codebook_size=16))
    with pytest.raises(ValueError, match="the model is for 3 codebooks of 16, the codec has 2 of 16"):
        write_ours(parts._replace(lm=lm), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_t5_of_the_checkpoint_needs_to_know_where_that_is() -> None:
    text = TextConfig(kind="t5", dim=12, name="./text_encoder")
    with pytest.raises(ValueError, match=r"T5 ./text_encoder lies in a checkpoint folder, and none was given"):
        TextConditioner(text)
    for name in ("./t5", "./../t5", "./text_encoder/../../t5"):
        with pytest.raises(ValueError, match="./ stands for the checkpoint's own folder"):
            TextConfig(kind="t5", name=name)
    TextConfig(kind="small", name="./t5")  # which reads no T5
