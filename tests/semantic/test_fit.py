"""Features by name; a fit is the same again, tells of its progress, and refuses what is no recording."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.semantic.fit import features_from, fit_tokenizer
from audiolm_kit.semantic.masked import MaskedConfig, MaskedModel
from audiolm_kit.semantic.spectrum import SpectrumOptions

MASKED = MaskedConfig(sample_rate=4000, hop=80, num_mels=20, dim=16, heads=2, layers=2)


def waveforms(*lengths: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [(torch.randn(length, generator=draw).cumsum(0) * 0.1).sin() for length in lengths]


def test_names_of_features(tmp_path: Path) -> None:
    mfcc = features_from("mfcc").config
    assert (mfcc.kind, mfcc.sample_rate, mfcc.hop) == ("mfcc", 16000, 320)
    mel = features_from("mel", sample_rate=8000, frame_rate=100.0).config
    assert (mel.kind, mel.sample_rate, mel.hop) == ("mel", 8000, 80)
    of_a_sound = features_from("mfcc", sample_rate=8000, spectrum=SpectrumOptions(standardised=True, context=3))
    assert (of_a_sound.config.standardised, of_a_sound.config.context, of_a_sound.dim) == (True, 3, 7 * 13)
    checkpoint.save(MaskedModel(MASKED), tmp_path / "masked")
    ours = features_from(str(tmp_path / "masked"), 1, sample_rate=4000, frame_rate=50.0).config
    assert (ours.kind, ours.layer, ours.sample_rate, ours.hop) == ("masked", 1, 4000, 80)


def test_names_and_numbers_that_cannot_be_are_refused(tmp_path: Path) -> None:
    folder = str(tmp_path / "masked")
    checkpoint.save(MaskedModel(MASKED), folder)
    with pytest.raises(ValueError, match="layer is 3, but mfcc has no layers"):
        features_from("mfcc", 3)
    with pytest.raises(ValueError, match="layer is 3, but chroma has no layers"):
        features_from("chroma", 3)
    with pytest.raises(ValueError, match="masked has several layers: say which one"):
        features_from(folder)
    with pytest.raises(ValueError, match="sample_rate is 8000, but .* has 4000"):
        features_from(folder, 1, sample_rate=8000)
    with pytest.raises(ValueError, match="frame_rate is 25, but .* has 50"):
        features_from(folder, 1, frame_rate=25)
    with pytest.raises(ValueError, match="masked is a model, whose frames stay as they are"):
        features_from(folder, 1, spectrum=SpectrumOptions(standardised=True))
    with pytest.raises(ValueError, match="context of the features is -1: give 0"):
        features_from("mfcc", spectrum=SpectrumOptions(context=-1))
    for least in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="dynamic_range_db is .*: give 0"):
            features_from("mfcc", spectrum=SpectrumOptions(dynamic_range_db=least))
    for rate in (30.0, 0.0, -1.0, 99999.0):
        with pytest.raises(ValueError, match="does not divide sample_rate 16000"):
            features_from("mel", frame_rate=rate)
    with pytest.raises(FileNotFoundError, match="no model of speech at '.*nowhere'"):
        features_from(str(tmp_path / "nowhere"), 1)
    (tmp_path / "other").mkdir()
    checkpoint.write_json(tmp_path / "other" / "config.json", {"kind": "NeuralCodec", "format": 1})
    with pytest.raises(ValueError, match="holds a NeuralCodec, wanted a MaskedModel"):
        features_from(str(tmp_path / "other"), 1)


def test_the_same_seed_gives_the_same_tokenizer() -> None:
    made = [
        fit_tokenizer(features_from("mfcc", sample_rate=4000), waveforms(4000, 3000), 6, seed=seed, max_frames=60)
        for seed in (1, 1, 2)
    ]
    one, same, other = (checkpoint.fingerprint(each) for each in made)
    assert one == same != other


def test_recordings_are_read_once_and_counted() -> None:
    seen: list[int] = []
    stream = iter(waveforms(4000, 805, 1))
    fit_tokenizer(features_from("mel", sample_rate=4000), stream, 4, progress=seen.append)
    assert seen == [50, 61, 62]


def test_what_is_no_recording_is_refused() -> None:
    features = features_from("mel", sample_rate=4000)
    good = waveforms(4000)[0]
    with pytest.raises(ValueError, match=r"recording 1 is of shape \[1, 4000\], wanted \[samples\]"):
        fit_tokenizer(features, [good, good[None]], 4)
    with pytest.raises(ValueError, match="recording 1 holds NaN"):
        fit_tokenizer(features, [good, good * torch.nan], 4)
    with pytest.raises(ValueError, match="recording 0 is empty"):
        fit_tokenizer(features, [good[:0]], 4)
    with pytest.raises(ValueError, match="50 frames are too few for 51 centroids"):
        fit_tokenizer(features, [good], 51)
