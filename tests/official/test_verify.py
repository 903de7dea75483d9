"""Checkpoints side by side: what is equal is said to be, what differs is found, and foreign ones run by themselves."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.opening import AnyCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.official import theirs, verify
from audiolm_kit.official.audiocraft import write_audiocraft
from audiolm_kit.official.musicgen import read_musicgen, write_musicgen
from audiolm_kit.official.parts import Parts, read_ours, write_ours
from audiolm_kit.official.transfer import import_
from audiolm_kit.official.verify import Verdict
from audiolm_kit.transformer import TransformerConfig

FRAMES = 12
TEXTS = ("rain", "a bell rings")
WORDS = ["<pad>", "</s>", "<unk>", "a", "bell", "rings", "rain"]


def verified(a: Path, b: Path, **options: Any) -> Verdict:
    return verify.verify(a, b, frames=FRAMES, texts=TEXTS, **options)


def line(verdict: Verdict, what: str) -> str:
    """The line about something, by its name."""
    return next(each for each in verdict.lines if each[8:].startswith(what))


def a_codec(split: bool = False, **changes: Any) -> NeuralCodec:
    torch.manual_seed(1)
    body = SEANetConfig(ratios=(4, 2), filters=2, dim=4, lstm=1, causal=False, shortcut="identity", pad_mode="constant")
    quantizer = QuantizerConfig(num_codebooks=2, codebook_size=16, dim=4)
    config = CodecConfig(800, body="seanet", seanet=body, quantizer=quantizer)
    if split:
        config = replace(config, channels=2, split_channels=True)
    codec = NeuralCodec(replace(config, **changes))
    for name, buffer in codec.named_buffers():
        if name.endswith(("embed", "embed_sum")):
            nn.init.normal_(buffer, std=0.1)
    return codec.eval()


def a_model(text: TextConfig, stereo: bool = False) -> StreamLM:
    torch.manual_seed(2)
    transformer = TransformerConfig(dim=16, heads=2, layers=2, cross_attention=True)
    books, offsets = (4, (0, 0, 1, 1)) if stereo else (2, ())
    lm = StreamLM(LMConfig(books, 16, transformer=transformer, text=text, offsets=offsets))
    for weight in lm.parameters():
        nn.init.normal_(weight, mean=float(weight.dim() == 1), std=0.3)
    return lm.eval()


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 12 wide."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("t5")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=8, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``mono`` and ``stereo`` of transformers, and ``mono-ours``, ``stereo-ours`` as they are imported."""
    home = tmp_path_factory.mktemp("checkpoints")
    for name, stereo in (("mono", False), ("stereo", True)):
        lm = a_model(TextConfig(kind="t5", dim=12, name=str(t5)), stereo)
        write_musicgen(Parts(a_codec(stereo), lm, None), home / name)
        import_(home / name, home / f"{name}-ours")
    return home


def changed(folder: Path, target: Path, change: Any) -> Path:
    """A copy of one of our checkpoints with something else about it."""
    parts = read_ours(folder)
    write_ours(change(parts) or parts, target)
    return target


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mono", "stereo"])
def test_an_import_is_equal_to_what_transformers_itself_computes(folders: Path, name: str) -> None:
    found = verified(folders / name, folders / f"{name}-ours")
    assert found.equal, "\n".join(found.lines)
    assert "(musicgen), run by transformers" in found.lines[0] and "(ours), run by audiolm_kit" in found.lines[1]
    compared = [each[8:32].rstrip() for each in found.lines if each.startswith("equal")]
    everything = "codec shape|model shape|tensors|text states|logits|logits, padded|logits, captions|greedy codes"
    assert compared == [*everything.split("|"), "codes of a sound", "decoded sound"]
    assert "bit for bit" in line(found, "tensors") and found.lines[-1].startswith("Equal in all")
    books = 4 if name == "stereo" else 2
    assert f"all {2 * books * FRAMES} codes of {FRAMES} frames behind 2, guidance 3" in line(found, "greedy codes")


def test_their_logits_and_codes_are_not_ours(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of our reading that no tensor shows is found, because transformers itself is asked."""

    kept: list[Parts] = []  # its T5 lasts as long as it does

    def wrong(parts: Parts) -> Parts:
        kept.append(parts)
        late = replace(parts.lm.config, offsets=(0, 2))
        other = StreamLM(late)
        other.load_state_dict(parts.lm.state_dict())
        return parts._replace(lm=other.eval())

    monkeypatch.setattr("audiolm_kit.official.transfer.read_musicgen", lambda *given: wrong(read_musicgen(*given)))
    import_(folders / "mono", folders / "late")
    found = verified(folders / "mono", folders / "late")
    assert not found.equal and line(found, "tensors").startswith("equal")
    assert line(found, "logits").startswith("DIFFER") and line(found, "greedy").startswith("DIFFER")
    assert found.lines[-1] == "Not equal: logits, greedy codes."


def test_a_weight_that_differs_is_named_with_what_comes_of_it(folders: Path, tmp_path: Path) -> None:
    def change(parts: Parts) -> None:
        with torch.no_grad():
            parts.lm.heads.weight[3, 5] += 2.5

    other = changed(folders / "mono-ours", tmp_path / "other", change)
    found = verified(folders / "mono-ours", other)
    assert not found.equal
    assert "lm.heads.weight by 2.5" in line(found, "tensors") and "codebook 0" in line(found, "logits ")
    assert line(found, "text states").startswith("equal") and line(found, "codes of a sound").startswith("equal")
    assert "the first that differs is frame" in line(found, "greedy codes")


def test_a_codec_that_differs_is_found_and_the_model_is_not_blamed(folders: Path, tmp_path: Path) -> None:
    def change(parts: Parts) -> None:
        assert isinstance(parts.codec, NeuralCodec)
        for book in parts.codec.quantizer.books:
            book.embed.copy_(book.embed.flip(0))  # type: ignore[operator, union-attr]

    found = verified(folders / "mono-ours", changed(folders / "mono-ours", tmp_path / "other", change))
    assert line(found, "codes of a sound").startswith("DIFFER") and line(found, "greedy codes").startswith("equal")
    assert line(found, "decoded sound").startswith("DIFFER") and "SI-SDR" in line(found, "decoded sound")


def test_a_difference_within_the_tolerance_is_none(folders: Path, tmp_path: Path) -> None:
    def change(parts: Parts) -> None:
        with torch.no_grad():
            parts.lm.heads.weight.add_(1e-6)

    other = changed(folders / "mono-ours", tmp_path / "other", change)
    assert verified(folders / "mono-ours", other).equal
    assert not verified(folders / "mono-ours", other, tolerance=1e-8).equal


def test_text_that_cannot_be_read_here_is_said_and_the_rest_is_compared(
    folders: Path, t5: Path, tmp_path: Path
) -> None:
    def elsewhere(parts: Parts) -> Parts:
        config = replace(parts.lm.config, text=replace(parts.lm.config.text, name="nowhere/t5"))
        other = StreamLM(config)
        other.load_state_dict(parts.lm.state_dict())
        return parts._replace(lm=other.eval(), text_encoder=None)

    found = verified(folders / "mono", changed(folders / "mono-ours", tmp_path / "other", elsewhere))
    assert found.equal, "\n".join(found.lines)
    assert "not of B: no T5 at 'nowhere/t5'" in line(found, "text states")
    assert line(found, "logits, captions").startswith("-") and line(found, "logits ").startswith("equal")
    assert found.lines[-1] == "Equal in all that both hold."


def test_another_text_encoder_is_found(folders: Path, tmp_path: Path) -> None:
    from transformers import T5EncoderModel

    other = tmp_path / "other"
    shutil.copytree(folders / "mono", other)
    model = read_musicgen(other)
    assert model.text_encoder is not None
    t5 = T5EncoderModel.from_pretrained(model.text_encoder)
    with torch.no_grad():
        t5.shared.weight.mul_(2)
    t5.save_pretrained(model.text_encoder)
    write_ours(model, tmp_path / "ours")
    found = verified(folders / "mono", tmp_path / "ours")
    assert line(found, "text states").startswith("DIFFER") and line(found, "logits, captions").startswith("DIFFER")
    assert line(found, "logits ").startswith("equal")


def test_models_of_another_shape_are_told_and_not_asked(folders: Path) -> None:
    found = verified(folders / "mono-ours", folders / "stereo-ours")
    assert not found.equal and "num_codebooks 2 and 4" in line(found, "model shape")
    assert line(found, "logits, greedy codes").startswith("-") and line(found, "codes, sound").startswith("-")


def test_a_small_text_encoder_of_ours_is_compared_too(audiogen_folder: Path) -> None:
    found = verified(audiogen_folder, audiogen_folder)
    assert found.equal and line(found, "logits, captions").startswith("equal")


def test_padding_is_not_compared_where_one_attends_to_it(folders: Path, tmp_path: Path) -> None:
    def attending(parts: Parts) -> Parts:
        config = parts.lm.config
        other = StreamLM(replace(config, transformer=replace(config.transformer, attend_padding=True)))
        other.load_state_dict(parts.lm.state_dict())
        return parts._replace(lm=other.eval())

    found = verified(folders / "mono", changed(folders / "mono-ours", tmp_path / "other", attending))
    assert found.equal, "\n".join(found.lines)
    assert "one attends to padding" in line(found, "logits, padded")


def test_audiocraft_is_run_where_it_is_installed_and_missed_by_name(folders: Path, tmp_path: Path) -> None:
    text = TextConfig(kind="t5", dim=512, name="t5-small")
    parts = Parts(a_codec(), a_model(text), None)
    write_audiocraft(parts, tmp_path / "theirs")
    write_ours(parts, tmp_path / "ours")
    found = verified(tmp_path / "theirs", tmp_path / "ours")
    assert found.equal, "\n".join(found.lines)
    if find_spec("audiocraft") is None:
        assert "audiocraft itself cannot run it (audiocraft is not installed): our reading" in found.lines[2]


@pytest.mark.parametrize("stereo", [False, True])
def test_audiocraft_itself_computes_the_same(stereo: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conditioners = pytest.importorskip("audiocraft.modules.conditioners")

    class Nothing(nn.Module):
        """In the place of a T5, which nobody has here."""

        @classmethod
        def from_pretrained(cls, name: str) -> nn.Module:
            return cls()

    monkeypatch.setattr(conditioners, "T5EncoderModel", Nothing)
    monkeypatch.setattr(conditioners, "T5Tokenizer", Nothing)
    monkeypatch.setattr(theirs.AudiocraftModel, "read", lambda self, texts: _refuse())
    parts = Parts(a_codec(stereo), a_model(TextConfig(kind="t5", dim=512, name="t5-small"), stereo), None)
    write_audiocraft(parts, tmp_path / "theirs")
    write_ours(parts, tmp_path / "ours")
    found = verified(tmp_path / "theirs", tmp_path / "ours")
    assert found.equal, "\n".join(found.lines)
    assert "run by audiocraft" in found.lines[0]
    assert line(found, "greedy codes").startswith("equal") and line(found, "decoded sound").startswith("equal")


def _refuse() -> None:
    raise ValueError("no T5 here")


# --- codecs -----------------------------------------------------------------------------------------------------------


def foreign_codec(kind: str, folder: Path) -> Path:
    """A codec of transformers, tiny and random."""
    import transformers

    torch.manual_seed(3)
    small: dict[str, Any] = {"codebook_size": 16, "codebook_dim": 4}
    encodec = {**small, "hidden_size": 4, "num_filters": 2, "upsampling_ratios": [4, 2], "num_lstm_layers": 1}
    configs = {
        # 2 codebooks of 4 bits at 100 frames a second are 0.8 kbit
        "encodec": transformers.EncodecConfig(**encodec, sampling_rate=800, target_bandwidths=[0.4, 0.8]),
        "encodec-48": transformers.EncodecConfig(
            **encodec,
            sampling_rate=800,
            target_bandwidths=[0.4, 0.8],
            audio_channels=2,
            normalize=True,
            chunk_length_s=0.5,
            overlap=0.02,
            norm_type="time_group_norm",
            use_causal_conv=False,
        ),
        "dac": transformers.DacConfig(
            **small, encoder_hidden_size=4, decoder_hidden_size=16, downsampling_ratios=[2, 4], n_codebooks=3,
            upsampling_ratios=[4, 2], sampling_rate=800,
        ),
    }  # fmt: skip
    classes = {"encodec": "EncodecModel", "encodec-48": "EncodecModel", "dac": "DacModel"}
    model = getattr(transformers, classes[kind])(configs[kind])
    for name, buffer in [*model.named_buffers(), *model.named_parameters()]:
        if name.endswith(("embed", "codebook.weight")):
            nn.init.normal_(buffer, std=0.1)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["encodec", "encodec-48", "dac"])
def test_a_codec_is_equal_to_what_transformers_itself_computes(kind: str, tmp_path: Path) -> None:
    import_(foreign_codec(kind, tmp_path / kind), tmp_path / "ours")
    found = verified(tmp_path / kind, tmp_path / "ours")
    assert found.equal, "\n".join(found.lines)
    assert "run by transformers" in found.lines[0] and "model" not in {each[8:13] for each in found.lines}
    assert any("scales of a sound" in each for each in found.lines) == (kind == "encodec-48")


@pytest.mark.slow
@pytest.mark.parametrize("rate", ["24", "48"])
def test_a_file_of_metas_is_equal_to_what_encodec_itself_computes(rate: str, tmp_path: Path) -> None:
    from audiolm_kit.official.encodec import import_encodec

    torch.manual_seed(0)
    model: Any = getattr(import_encodec().EncodecModel, f"encodec_model_{rate}khz")(pretrained=False)
    for name, buffer in model.named_buffers():
        if name.endswith("embed"):
            nn.init.normal_(buffer, std=0.1)
    torch.save(model.state_dict(), tmp_path / f"encodec_{rate}khz-random.th")
    import_(tmp_path / f"encodec_{rate}khz-random.th", tmp_path / "ours")
    found = verified(tmp_path / f"encodec_{rate}khz-random.th", tmp_path / "ours")
    assert found.equal, "\n".join(found.lines)
    assert "(encodec_file), run by encodec" in found.lines[0]


def test_a_codec_alone_is_compared_with_that_of_a_model(folders: Path) -> None:
    found = verified(folders / "mono", folders / "mono-ours" / "codec")
    assert found.equal, "\n".join(found.lines)
    assert "B is a codec alone" in line(found, "model") and found.lines[-1] == "Equal in all that both hold."


def test_codecs_of_two_kinds_share_no_tensor_and_differ(folders: Path, tmp_path: Path) -> None:
    found = verified(foreign_codec("dac", tmp_path / "dac"), folders / "mono-ours" / "codec")
    assert not found.equal and line(found, "tensors").startswith("-") and "num_codebooks 3 and 2" in found.lines[2]


# --- parts ------------------------------------------------------------------------------------------------------------


def test_the_first_code_that_differs_is_the_first_in_time() -> None:
    one = torch.zeros(2, 3, 5, dtype=torch.long)
    other = one.clone()
    other[0, 0, 4], other[1, 2, 1], other[1, 1, 1] = 5, 6, 7
    told = verify._codes("codes", one, other).told
    assert told == "90.00% of 30 codes; the first that differs is frame 1, codebook 1, row 1: 0 and 7"


def test_the_largest_difference_is_found_and_nan_is_larger_than_any() -> None:
    one, other = torch.zeros(2, 3), torch.tensor([[0.0, -0.5, 0.25], [0.0, 0.0, 0.0]])
    assert verify._largest(one, other) == (0.5, (0, 1))
    other[1, 2] = math.nan
    far, place = verify._largest(one, other)
    assert math.isnan(far) and place == (1, 2)
    assert verify._numbers("x", one, other, 1.0, ("row", "column")).state == "DIFFER"
    assert verify._largest(other, other)[0] == 0.0


def test_questions_that_say_nothing_are_refused(folders: Path) -> None:
    with pytest.raises(ValueError, match="give at least 2 frames, and captions with words"):
        verify.verify(folders / "mono", folders / "mono", texts=("rain", " "))
    with pytest.raises(ValueError, match="tolerance is -1"):
        verify.verify(folders / "mono", folders / "mono", tolerance=-1)
    with pytest.raises(FileNotFoundError):
        verify.verify(folders / "mono", folders / "none")


def test_nothing_is_left_behind(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    codec: AnyCodec = a_codec()
    checkpoint.save(codec, tmp_path / "codec")
    verified(tmp_path / "codec", tmp_path / "codec")
    assert [path.name for path in tmp_path.iterdir()] == ["codec"]
