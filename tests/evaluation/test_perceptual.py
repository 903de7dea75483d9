"""Scoring by CLAP: the cosine of transformers' own features, the same always, whatever stands beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.evaluation.perceptual import BATCH, ClapScorer, Scorer, windows

RATE = 8000
TEXTS = ["a dog barks twice", "rain", "a bell rings and a siren wails far away"]


def save_clap(folder: Path, **of_audio: Any) -> str:
    """A folder with a real CLAP of random weights, its preparation of sounds and a real tokenizer, all tiny."""
    from transformers import (
        ClapAudioConfig,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapTextConfig,
        RobertaTokenizer,
    )

    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\u0120", *"abcdefghijklmnopqrstuvwxyz"]
    RobertaTokenizer(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]).save_pretrained(folder)
    truncation = "fusion" if of_audio.get("enable_fusion") else "rand_trunc"
    ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=RATE,
        hop_length=80,
        max_length_s=1,
        fft_window_size=256,
        frequency_max=4000,
        truncation=truncation,
    ).save_pretrained(folder)
    heard = ClapAudioConfig(
        window_size=4,
        num_mel_bins=16,
        spec_size=64,
        hidden_size=16,
        depths=[1, 1],
        num_attention_heads=[1, 2],
        patch_embeds_hidden_size=8,
        num_hidden_layers=2,
        **of_audio,
    )
    read = ClapTextConfig(
        vocab_size=len(letters),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    model = ClapModel(ClapConfig(text_config=read.to_dict(), audio_config=heard.to_dict(), projection_dim=12))
    for parameter in model.parameters():  # as initialised, all texts are nearly alike
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_clap(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_clap(tmp_path_factory.mktemp("fused"), enable_fusion=True, fusion_type="aff_2d")


@pytest.fixture(scope="module")
def scorer(plain: str) -> ClapScorer:
    return ClapScorer(plain)


def noise(seconds: float, seed: int = 0, rate: int = RATE, channels: int = 1) -> Sound:
    length = round(seconds * rate)
    return Sound(torch.rand(channels, length, generator=torch.Generator().manual_seed(seed)) - 0.5, rate)


def tone(hertz: float, seconds: float = 1.0) -> Sound:
    return Sound(0.5 * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)[None], RATE)


def test_the_score_is_the_cosine_of_the_model_itself(plain: str, scorer: ClapScorer) -> None:
    from transformers import AutoFeatureExtractor, AutoTokenizer, ClapModel

    sounds = [tone(300), noise(1.0), tone(2000)]
    heard = AutoFeatureExtractor.from_pretrained(plain)(
        [sound.samples[0].numpy() for sound in sounds], sampling_rate=RATE, return_tensors="pt"
    )
    read = AutoTokenizer.from_pretrained(plain)(TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        theirs = ClapModel.from_pretrained(plain).eval()(**heard, **read)
    wanted = torch.nn.functional.cosine_similarity(theirs.audio_embeds, theirs.text_embeds)
    scores = scorer(sounds, TEXTS)
    torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-5)
    assert scores.shape == (3,) and not scores.requires_grad and scores.std() > 0.01


@pytest.mark.parametrize("kind", ["plain", "fused"])
def test_a_pair_alone_and_among_others_has_the_same_score(kind: str, request: pytest.FixtureRequest) -> None:
    scorer = ClapScorer(request.getfixturevalue(kind))
    sounds = [noise(0.3, 1), tone(500, 2.5), noise(1.0, 2)]
    together = scorer(sounds, TEXTS)
    for i, (sound, text) in enumerate(zip(sounds, TEXTS, strict=True)):
        torch.testing.assert_close(scorer([sound], [text])[0], together[i], rtol=1e-4, atol=1e-5)
    swapped = scorer(sounds, [*TEXTS[1:], TEXTS[0]])
    assert not torch.allclose(swapped, together, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "fused"])
def test_scores_neither_draw_nor_disturb_random_numbers(kind: str, request: pytest.FixtureRequest) -> None:
    scorer = ClapScorer(request.getfixturevalue(kind))
    sounds = [noise(3.7), noise(0.2, 1), noise(1.01, 2)]
    states = []
    for seed in (1, 2):
        np.random.seed(seed)
        torch.manual_seed(seed)
        states.append(scorer(sounds, TEXTS))
        drawn = np.random.rand(), torch.rand(())
        np.random.seed(seed)
        torch.manual_seed(seed)
        assert drawn == (np.random.rand(), torch.rand(()))
    assert torch.equal(states[0], states[1])


def test_a_long_sound_has_the_mean_score_of_its_windows(scorer: ClapScorer) -> None:
    long = noise(2.5)
    parts = [Sound(long.samples[:, first : first + RATE], RATE) for first in (0, 6000, 12000)]
    mean = scorer(parts, ["rain"] * 3).mean()
    torch.testing.assert_close(scorer([long], ["rain"])[0], mean, rtol=1e-4, atol=1e-5)


def test_windows_cover_a_sound_evenly_and_end_with_it() -> None:
    for length in range(1, 60):
        samples = torch.arange(length)
        cut = windows(samples, 7)
        assert len(cut) == -(-length // 7)
        assert cut[-1][-1] == length - 1 and cut[0][0] == 0
        assert torch.equal(torch.cat(cut).unique(), samples)
        assert all(len(each) == min(7, length) for each in cut)
        gaps = {int(second[0] - first[0]) for first, second in zip(cut, cut[1:], strict=False)}
        assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_more_windows_than_a_batch_are_gathered_by_their_sounds(scorer: ClapScorer) -> None:
    sounds = [noise(BATCH - 0.5), tone(700), noise(3.0, 1)]
    alone = torch.cat([scorer([sound], [text]) for sound, text in zip(sounds, TEXTS, strict=True)])
    torch.testing.assert_close(scorer(sounds, TEXTS), alone, rtol=1e-4, atol=1e-5)


def test_sounds_of_any_rate_and_channels_are_fitted_to_the_model(scorer: ClapScorer) -> None:
    stereo = noise(1.0, rate=44100, channels=2)
    fitted = audio.fit(stereo, RATE, 1)
    assert torch.equal(scorer([stereo], ["rain"]), scorer([fitted], ["rain"]))


def test_bfloat16_around_it_leaves_the_score_as_it_is(scorer: ClapScorer) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scores = scorer([tone(300)], ["rain"])
    assert torch.equal(scores, scorer([tone(300)], ["rain"]))


def test_no_pairs_have_no_scores(scorer: ClapScorer) -> None:
    assert scorer([], []).shape == (0,)


def test_a_scorer_may_be_a_function(scorer: ClapScorer) -> None:
    def loudest(sounds: list[Sound], texts: list[str]) -> torch.Tensor:
        return torch.stack([sound.samples.abs().max() for sound in sounds])

    each: Scorer
    for each in (loudest, scorer):
        assert each([tone(300)], ["rain"]).shape == (1,)


@pytest.mark.parametrize(
    ("sounds", "texts", "told"),
    [
        ([tone(300)], ["rain", "wind"], "1 sounds for 2 texts: give one text for each sound"),
        ([tone(300)], [" "], "a text to score by is empty"),
        ([tone(300)], ["a" * 70], r"the text 'a+'\.\.\. has 72 pieces, CLAP reads 62: shorten it"),
        ([Sound(torch.zeros(1, 0), RATE)], ["rain"], "a sound to score is empty"),
        ([Sound(torch.tensor([[math.nan]]), RATE)], ["rain"], "a sound to score holds NaN"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(
    scorer: ClapScorer, sounds: list[Sound], texts: list[str], told: str
) -> None:
    with pytest.raises(ValueError, match=told) as refusal:
        scorer(sounds, texts)
    assert "\n" not in str(refusal.value)


def test_a_caption_as_long_as_the_model_reads_is_read(scorer: ClapScorer) -> None:
    assert torch.isfinite(scorer([tone(300)], ["a" * 60])).all()


def test_a_missing_or_another_model_is_told_in_one_line(plain: str, tmp_path: Path) -> None:
    from shutil import copytree

    from safetensors.torch import load_file, save_file
    from transformers import T5Config

    T5Config().save_pretrained(tmp_path / "t5")
    for lacking, file in (("words", "tokenizer*"), ("sounds", "preprocessor_config.json"), ("model", "*.safetensors")):
        copytree(plain, tmp_path / lacking)
        for each in (tmp_path / lacking).glob(file):
            each.unlink()
    for name in ("nowhere", "t5", "words", "sounds", "model"):
        with pytest.raises(FileNotFoundError, match=rf"no CLAP at '.*{name}' \(.+\): give a folder or a name") as error:
            ClapScorer(str(tmp_path / name))
        assert "\n" not in str(error.value)
    copytree(plain, tmp_path / "holed")
    weights = load_file(tmp_path / "holed" / "model.safetensors")
    del weights["audio_projection.linear1.weight"]
    save_file(weights, tmp_path / "holed" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights, as audio_projection.linear1.weight"):
        ClapScorer(str(tmp_path / "holed"))
