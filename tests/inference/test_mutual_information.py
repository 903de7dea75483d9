"""A model that judges its own sounds: by how much likelier a text makes them, of any length, each for itself."""

from __future__ import annotations

import pytest
import torch
from small_audiogen import HOP, RATE, SAMPLING, a_model, a_tone

from audiolm_kit import AudioGen, MutualInformation, Sound
from audiolm_kit.inference import mutual_information
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.text import Vocabulary
from audiolm_kit.transformer import TransformerConfig

SOUNDS = [a_tone(0.4), a_tone(0.2, seed=1), a_tone(0.4, seed=2, rate=16000), a_tone(0.205, seed=3, channels=2)]
SAID = ["a bell rings", "a low bell", "a low bell", "rain falls on a high and wide tin roof"]


@pytest.fixture
def model(vocabulary: Vocabulary) -> AudioGen:
    return a_model(vocabulary)


def test_the_score_is_what_the_text_adds_to_the_log_likelihood_of_a_code(model: AudioGen) -> None:
    codes = model.codec.encode(SOUNDS[0].samples[None])
    logits = [model.lm(codes, context).log_softmax(-1) for context in (model.context(SAID[:1]), None)]
    with_text, without = (each.gather(-1, codes[..., None]).mean() for each in logits)
    score = MutualInformation(model)(SOUNDS[:1], SAID[:1])
    torch.testing.assert_close(score, (with_text - without)[None].float())
    assert score.dtype == torch.float32 and abs(float(score)) > 1e-3


def test_a_pair_does_not_depend_on_the_others(model: AudioGen) -> None:
    judge = MutualInformation(model)
    alone = torch.cat([judge([sound], [text]) for sound, text in zip(SOUNDS, SAID, strict=True)])
    torch.testing.assert_close(judge(SOUNDS, SAID), alone)
    torch.testing.assert_close(judge(SOUNDS[::-1], SAID[::-1]), alone.flip(0))
    assert len(set(alone.tolist())) == len(SOUNDS)


def test_long_sounds_are_read_in_pieces(model: AudioGen, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = [Sound(half, RATE) for half in SOUNDS[0].samples.split(10 * HOP, dim=1)]
    assert len(halves) == 2
    codes = model.codec.encode(SOUNDS[0].samples[None])
    monkeypatch.setattr(mutual_information, "PIECE", 10)
    read = []
    likelihood = model.lm.log_likelihood
    monkeypatch.setattr(
        model.lm, "log_likelihood", lambda piece, *given: read.append(piece) or likelihood(piece, *given)
    )
    MutualInformation(model)(SOUNDS[:1], SAID[:1])
    assert [piece.shape[-1] for piece in read] == [10] * 4  # each with the text and without
    assert torch.equal(torch.cat(read[::2], -1), codes)


def test_the_best_of_several_by_itself_is_what_it_finds_most_telling(model: AudioGen) -> None:
    texts = [text for text in SAID if text]
    own = model.best_of(texts, 0.2, SAMPLING, candidates=3, scorer="self")
    given = model.best_of(texts, 0.2, SAMPLING, candidates=3, scorer=MutualInformation(model))
    assert [choice.seed for choice in own] == [choice.seed for choice in given]
    assert all(choice.score == max(choice.scores) for choice in own)
    assert len({choice.scores.index(choice.score) for choice in own}) > 1  # not always the first
    sounds = model.generate(texts, 0.2, SAMPLING, candidates=3, scorer="self")
    assert all(torch.equal(sound.samples, choice.sound.samples) for sound, choice in zip(sounds, own, strict=True))


def test_what_has_no_score_is_refused_in_one_line(model: AudioGen) -> None:
    judge = MutualInformation(model)
    with pytest.raises(ValueError, match="2 sounds for 1 texts: give one text for each sound"):
        judge(SOUNDS[:2], SAID[:1])
    with pytest.raises(ValueError, match="a text to score by is empty: give a caption for each sound"):
        judge(SOUNDS[:2], ["rain", " "])
    config = LMConfig(num_codebooks=2, codebook_size=16, transformer=TransformerConfig(dim=8, heads=1, layers=1))
    with pytest.raises(ValueError, match="trained without captions, and cannot judge by them: give another scorer"):
        MutualInformation(AudioGen(model.codec, StreamLM(config)))
