"""A model is given the codec that has learned more since: its codes stay, its sounds are the new codec's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from with_codec import with_codec

from audiolm_kit import AudioGen, NeuralCodec, checkpoint, provenance
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.training.postfilter import with_postfilter
from audiolm_kit.transformer import TransformerConfig

BODY = ConvNeXtConfig(
    dim=4, width=8, encoder_layers=1, decoder_layers=1, hop=16, fft_size=32, noise=True, linear=True, refine=1
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``model``, whose codec is begun, and ``codec``, that codec with a postfilter that changes something."""
    torch.manual_seed(0)
    begun = NeuralCodec(CodecConfig(sample_rate=1600, convnext=BODY, quantizer=QuantizerConfig(2, 16, dim=4))).eval()
    begun.begin(torch.randn(2, 1, 6400))
    lm = StreamLM(LMConfig(num_codebooks=2, codebook_size=16, transformer=TransformerConfig(dim=32, heads=2, layers=1)))
    AudioGen(begun, lm).save(tmp_path / "model")
    provenance.write(tmp_path / "model", {"steps": 7})
    filtered = with_postfilter(begun, 2, 2, 8, 1)
    with torch.no_grad():
        for weight in filtered.decoder.head.postfilter.parameters():  # type: ignore[union-attr, operator]
            weight.add_(0.1)
    checkpoint.save(filtered, tmp_path / "codec")
    provenance.write(tmp_path / "codec", {"base": {"fingerprint": checkpoint.fingerprint(begun)}})
    return tmp_path


def test_the_same_codes_are_decoded_by_the_new_codec(folder: Path) -> None:
    with_codec(folder / "model", folder / "codec", folder / "made")
    old, made = AudioGen.load(folder / "model"), AudioGen.load(folder / "made")
    first, second = (each.generate([""], 0.5, seed=3)[0].samples for each in (old, made))
    assert first.shape == second.shape and not torch.equal(first, second)
    codes = old.codec.encode(first[None])
    assert torch.equal(made.codec.encode(first[None]), codes)
    new = checkpoint.load(NeuralCodec, folder / "codec").eval()
    assert torch.equal(made.codec.decode(codes), new.decode(codes))
    assert provenance.read(folder / "made")["steps"] == 7


def test_a_scorer_goes_along(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, given = object(), []
    opened = AudioGen.load(folder / "model")
    opened.scorer = scorer  # type: ignore[assignment]  # only handed on here

    class Noting(AudioGen):
        def __init__(self, *parts: object) -> None:
            given.extend(parts)

        def save(self, folder: str | Path) -> None: ...

    monkeypatch.setattr(Noting, "load", lambda *_: opened)
    monkeypatch.setattr("with_codec.AudioGen", Noting)
    monkeypatch.setattr("with_codec.checkpoint.write_json", lambda *_: None)
    with_codec(folder / "model", folder / "codec", folder / "made")
    assert given[3] is scorer


def test_a_codec_that_came_of_one_that_came_of_it_is_taken(folder: Path) -> None:
    facts = provenance.read(folder / "codec")
    provenance.write(folder / "codec", {"base": {"fingerprint": "0123456789abcdef", **facts}})
    with_codec(folder / "model", folder / "codec", folder / "made")
    assert (folder / "made").is_dir()


def test_its_own_codec_once_more_is_taken(folder: Path) -> None:
    checkpoint.save(AudioGen.load(folder / "model").codec, folder / "same")
    with_codec(folder / "model", folder / "same", folder / "made")
    assert AudioGen.load(folder / "made").fingerprints == AudioGen.load(folder / "model").fingerprints


def test_a_codec_of_another_one_is_refused(folder: Path) -> None:
    provenance.write(folder / "codec", {"base": {"fingerprint": "0123456789abcdef"}})
    with pytest.raises(ValueError, match=r"codec came of the codec 0123456789abcdef, and .*model has learned codes of"):
        with_codec(folder / "model", folder / "codec", folder / "made")
    assert not (folder / "made").exists()
