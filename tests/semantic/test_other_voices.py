"""OtherVoices: what is said stays, who says it does not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from audiolm_kit.semantic import other_voices
from audiolm_kit.semantic.features import FeatureConfig, FrameFeatures
from audiolm_kit.semantic.fit import fit_tokenizer
from audiolm_kit.semantic.other_voices import OtherVoices
from audiolm_kit.semantic.tokenizer import SemanticConfig, SemanticTokenizer

RATE, WORD = 4000, 800
VOICES = {"ann": 1.0, "bob": 1.25, "cyd": 0.8}
"""How much higher than written each one speaks: no two tones of two voices are the same."""
WORDS = (300.0, 600.0, 1200.0)


def said(speaker: str, words: list[int]) -> Tensor:
    """Tones of a fifth of a second, [L]."""
    clock = torch.arange(WORD) / RATE
    return torch.cat([0.5 * torch.sin(2 * math.pi * VOICES[speaker] * WORDS[word] * clock) for word in words])


SOUNDS = [(speaker, said(speaker, words)) for speaker in VOICES for words in ([0, 1, 2], [2, 0, 1], [1, 0, 2])]


@pytest.fixture(scope="module")
def tokenizer() -> SemanticTokenizer:
    """A code for each word of each speaker, and some for what lies between."""
    features = FrameFeatures(FeatureConfig("mel", RATE, 80))
    return fit_tokenizer(features, [sound for _, sound in SOUNDS], 16)


def middles(codes: Tensor) -> list[int]:
    """The code in the middle of each word of ``[1, 1, T]``."""
    return codes[0, 0, WORD // 80 // 2 :: WORD // 80].tolist()


def test_codes_are_those_of_the_same_words_by_another(tokenizer: SemanticTokenizer) -> None:
    own = {name: middles(tokenizer.encode(said(name, [0, 1, 2])[None, None])) for name in VOICES}
    assert len({code for codes in own.values() for code in codes}) == 9  # so the plain codes tell who speaks
    others = OtherVoices(tokenizer, SOUNDS, neighbours=2)
    found = set()
    for draw in range(20):
        codes = middles(others.encode(said("ann", [2, 0, 1])[None, None], ["ann"], [(0, draw)]))
        by = [name for name in VOICES if codes == [own[name][word] for word in (2, 0, 1)]]
        found |= set(by)
        assert by, codes
    assert found == {"bob", "cyd"}


class Given(SemanticTokenizer):
    """Reads two dimensions of a frame from two samples, and has a code for each word of each speaker."""

    def __init__(self, centroids: Tensor) -> None:
        super().__init__(SemanticConfig(FeatureConfig("mel", RATE, 80), len(centroids), 40))
        self.centroids = centroids

    def embed(self, audio: Tensor) -> Tensor:
        return audio.reshape(len(audio), -1, 2)


def test_a_word_stays_itself_where_another_one_of_the_other_voice_is_nearer() -> None:
    words = torch.tensor([[0.0, 0.0], [1.0, 0.2], [2.0, 0.1], [3.0, 0.6]])
    centroids = torch.cat(
        [words, 1.3 * words + torch.tensor([1.4, 0.3])]
    )  # ann's 2 is nearer to bob's 0 than to bob's 2
    draw = torch.Generator().manual_seed(0)
    spoken = centroids.repeat(50, 1, 1) + 0.05 * torch.randn(50, 8, 2, generator=draw)
    sounds = [("ann", spoken[:, :4].flatten()), ("bob", spoken[:, 4:].flatten())]
    others = OtherVoices(Given(centroids), sounds, neighbours=4)
    for speaker, own, lent in (("ann", slice(4), [4, 5, 6, 7]), ("bob", slice(4, 8), [0, 1, 2, 3])):
        assert others.encode(centroids[own].reshape(1, 1, 8), [speaker], [(0,)])[0, 0].tolist() == lent


def test_speakers_who_say_nothing_much_are_lent_voices_too() -> None:
    still = torch.zeros(40)  # no frame differs from another
    others = OtherVoices(Given(torch.tensor([[0.0, 0.0], [9.0, 9.0]])), [("ann", still), ("bob", still + 9)], 2)
    assert others.encode(still[None, None], ["ann"], [(0,)]).unique().tolist() == [1]


def test_each_item_of_a_batch_is_drawn_by_itself(tokenizer: SemanticTokenizer) -> None:
    others = OtherVoices(tokenizer, SOUNDS, neighbours=2)
    audio = torch.stack([said("ann", [0, 1, 2]), said("bob", [2, 1, 0])])[:, None]
    draws = [(3, 0), (3, 1)]
    together = others.encode(audio, ["ann", "bob"], draws)
    assert together.shape == (2, 1, 3 * WORD // 80) and together.dtype == torch.int64
    for place in range(2):
        alone = others.encode(audio[place : place + 1], ["ann", "bob"][place : place + 1], draws[place : place + 1])
        assert torch.equal(together[place : place + 1], alone)


def test_codes_do_not_depend_on_how_many_frames_are_looked_up_at_once(
    tokenizer: SemanticTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    others, audio = OtherVoices(tokenizer, SOUNDS, neighbours=2), said("ann", [0, 1, 2])[None, None]
    whole = others.encode(audio, ["ann"], [(4,)])
    monkeypatch.setattr(other_voices, "AT_ONCE", 7)  # of 30 frames: the last piece is shorter
    assert torch.equal(others.encode(audio, ["ann"], [(4,)]), whole)


def test_a_stranger_gets_any_voice(tokenizer: SemanticTokenizer) -> None:
    others = OtherVoices(tokenizer, SOUNDS, neighbours=2)
    audio = said("ann", [0, 1, 2])[None, None]
    found = {tuple(middles(others.encode(audio, ["dan"], [(draw,)]))) for draw in range(30)}
    assert len(found) == 3


def test_voices_that_are_not_there_are_refused(tokenizer: SemanticTokenizer) -> None:
    with pytest.raises(ValueError, match="the recordings name ann: other voices take two speakers or more"):
        OtherVoices(tokenizer, SOUNDS[:2], neighbours=2)
    with pytest.raises(ValueError, match="ann has 30 frames, fewer than 40 neighbours"):
        OtherVoices(tokenizer, [SOUNDS[0], *SOUNDS[3:]], neighbours=40)
    with pytest.raises(ValueError, match="neighbours is 0"):
        OtherVoices(tokenizer, SOUNDS, neighbours=0)
