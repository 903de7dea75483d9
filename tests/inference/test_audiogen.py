"""AudioGen: an item's sound is its own text's and seed's, away from its own negative text, the best of its own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_audiogen import HOP, RATE, SAMPLING, TEXTS, a_batch_of_prompts, a_codec, codes_of
from torch import Tensor

from audiolm_kit.audio import Sound
from audiolm_kit.inference import items
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.transformer import TransformerConfig


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_an_item_depends_on_its_text_and_seed_alone(
    model: AudioGen, decoded: list[Tensor], guidance_scale: float
) -> None:
    sampling = dataclasses.replace(SAMPLING, guidance_scale=guidance_scale)
    model.generate(TEXTS, 0.2, sampling, seed=[7, 8, 9, 10])
    together = codes_of(decoded)
    for text, seed in zip(TEXTS, [7, 8, 9, 10], strict=True):
        model.generate([text], 0.2, sampling, seed)
    alone = codes_of(decoded)
    model.generate(TEXTS[::-1], 0.2, sampling, seed=[10, 9, 8, 7])
    backwards = codes_of(decoded)[::-1]
    assert torch.equal(torch.stack(alone), torch.stack(together))
    assert torch.equal(torch.stack(backwards), torch.stack(together))
    assert len({tuple(codes.flatten().tolist()) for codes in together}) == len(TEXTS)


def test_nothing_depends_on_how_many_items_go_at_once(
    model: AudioGen, decoded: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = model.generate(TEXTS, 0.1, SAMPLING, seed=3)
    continued = model.continue_(a_batch_of_prompts(), 0.3, TEXTS, SAMPLING, seed=3)
    whole = codes_of(decoded)
    monkeypatch.setattr(items, "BATCH", 1)
    in_pieces = model.generate(TEXTS, 0.1, SAMPLING, seed=3)
    in_pieces += model.continue_(a_batch_of_prompts(), 0.3, TEXTS, SAMPLING, seed=3)
    assert [len(batch) for batch in decoded] == [1] * 8
    assert all(torch.equal(a, b) for a, b in zip(whole, codes_of(decoded), strict=True))
    for one, other in zip(sounds + continued, in_pieces, strict=True):
        torch.testing.assert_close(one.samples, other.samples)


def test_one_seed_counts_up_and_several_are_each_items_own(model: AudioGen, decoded: list[Tensor]) -> None:
    model.generate(["a bell"] * 3, 0.1, SAMPLING, seed=5)
    counted = codes_of(decoded)
    model.generate(["a bell"] * 3, 0.1, SAMPLING, seed=[5, 6, 7])
    assert all(torch.equal(a, b) for a, b in zip(counted, codes_of(decoded), strict=True))
    model.generate(["a bell"] * 2, 0.1, SAMPLING, seed=range(6, 8))
    assert all(torch.equal(a, b) for a, b in zip(counted[1:], codes_of(decoded), strict=True))
    model.generate(["a bell"], 0.1, SAMPLING, seed=torch.tensor(6))
    assert torch.equal(counted[1], codes_of(decoded)[0])
    assert not torch.equal(counted[0], counted[1])


def test_empty_texts_are_unconditional_at_any_guidance(model: AudioGen, decoded: list[Tensor]) -> None:
    for text, scale in (("", 1.0), ("", 7.0), (" \n", 3.0)):
        model.generate([text], 0.2, dataclasses.replace(SAMPLING, guidance_scale=scale))
    model.generate(["", "rain"], 0.2, SAMPLING)  # among others with a text
    plain, guided, blank, among, rain = codes_of(decoded)
    assert torch.equal(plain, guided) and torch.equal(plain, blank) and torch.equal(plain, among)
    model.generate(["rain"], 0.2, SAMPLING)
    assert not torch.equal(codes_of(decoded)[0], plain)
    assert rain.shape == plain.shape


def test_a_model_without_text_makes_sound_and_refuses_texts() -> None:
    transformer = TransformerConfig(dim=16, heads=2, layers=1)
    model = AudioGen(a_codec(), StreamLM(LMConfig(num_codebooks=2, codebook_size=16, transformer=transformer)))
    [sound] = model.generate([""], 0.1)
    assert sound.samples.shape == (1, 800)
    with pytest.raises(ValueError, match="trained without captions"):
        model.generate(["a bell"], 0.1)


@pytest.mark.parametrize("seconds", [0.0001, 0.02, 0.14, 0.28, 0.2801, 0.56])
def test_sounds_are_as_long_as_asked_for_and_no_frame_is_made_in_vain(
    model: AudioGen, decoded: list[Tensor], seconds: float
) -> None:
    [sound] = model.generate(["a bell"], seconds, SAMPLING)
    length = max(1, round(seconds * RATE))
    assert sound.samples.shape == (1, length) and sound.sample_rate == RATE
    assert codes_of(decoded)[0].shape[1] == -(-length // HOP)  # 0.28 * 50 is 14.000000000000002


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"texts": []}, "texts is empty: give a list"),
        ({"texts": "a bell"}, "texts is a single caption: give a list"),
        ({"seconds": 0}, "seconds is 0: ask for a positive number"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"seed": [1, 2]}, "2 seeds for 1 items"),
        ({"seed": 2**64}, "seeds are 18446744073709551616 to"),
    ],
)
def test_requests_that_make_no_sense_are_refused(model: AudioGen, arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("*", r"\*")):
        model.generate(**{"texts": ["a bell"], "seconds": 0.1, **arguments})  # type: ignore[arg-type]


# --- away from a negative text


def test_an_empty_negative_text_is_none(model: AudioGen) -> None:
    plain = model.generate(TEXTS, 0.2, SAMPLING)
    for negative in ("", " ", [""] * len(TEXTS)):
        for one, other in zip(plain, model.generate(TEXTS, 0.2, SAMPLING, negative=negative), strict=True):
            assert torch.equal(one.samples, other.samples)


def test_guidance_leads_away_from_the_negative_text(model: AudioGen, decoded: list[Tensor]) -> None:
    model.generate(["rain"], 0.2, SAMPLING)
    model.generate(["rain"], 0.2, SAMPLING, negative="a bell")
    model.generate([""], 0.2, SAMPLING)
    model.generate([""], 0.2, SAMPLING, negative="a bell")
    rain, without_bell, plain, plain_without_bell = codes_of(decoded)
    assert not torch.equal(rain, without_bell) and not torch.equal(plain, plain_without_bell)
    model.generate(["rain"], 0.2, SAMPLING, negative="rain")  # from rain towards rain leads nowhere
    unguided = dataclasses.replace(SAMPLING, guidance_scale=1.0)
    model.generate(["rain"], 0.2, unguided)
    model.generate(["rain"], 0.2, unguided, negative="a bell")
    towards_itself, once, twice = codes_of(decoded)
    assert torch.equal(towards_itself, once) and torch.equal(once, twice)


def test_an_items_negative_text_is_its_own(model: AudioGen, decoded: list[Tensor]) -> None:
    negatives = ["a low bell", "", "rain", "a bell"]
    model.generate(TEXTS, 0.2, SAMPLING, seed=3, negative=negatives)
    together = codes_of(decoded)
    for i, (text, negative) in enumerate(zip(TEXTS, negatives, strict=True)):
        model.generate([text], 0.2, SAMPLING, seed=3 + i, negative=negative)
        assert torch.equal(codes_of(decoded)[0], together[i])
    model.generate(TEXTS, 0.2, SAMPLING, seed=3, negative="a bell")
    assert torch.equal(codes_of(decoded)[3], together[3])
    with pytest.raises(ValueError, match="2 negative texts for 4 items"):
        model.generate(TEXTS, 0.2, negative=["rain", "rain"])


# --- best of n


def middle(sounds: list[Sound], texts: list[str]) -> Tensor:
    """A scorer that likes a certain loudness, and longer texts."""
    levels = torch.stack([sound.samples.square().mean().sqrt() for sound in sounds])
    return -(levels - 0.1).abs() + torch.tensor([len(text) for text in texts])


def test_the_best_candidate_is_kept_and_can_be_made_again_from_its_seed(model: AudioGen) -> None:
    negatives = ["", "rain", "", "a bell"]
    choices = model.best_of(TEXTS, 0.2, SAMPLING, seed=3, candidates=5, scorer=middle, negative=negatives)
    sounds = model.generate(TEXTS, 0.2, SAMPLING, seed=3, candidates=5, scorer=middle, negative=negatives)
    for i, (choice, sound) in enumerate(zip(choices, sounds, strict=True)):
        assert torch.equal(choice.sound.samples, sound.samples)
        assert len(choice.scores) == 5 and choice.score == max(choice.scores)
        [again] = model.generate([TEXTS[i]], 0.2, SAMPLING, choice.seed, negative=negatives[i])
        torch.testing.assert_close(again.samples, sound.samples)
    assert any(choice.seed != 3 + i for i, choice in enumerate(choices))


def test_one_candidate_is_the_plain_sound(model: AudioGen) -> None:
    plain = model.generate(TEXTS, 0.2, SAMPLING, seed=3)
    judged = model.generate(TEXTS, 0.2, SAMPLING, seed=3, candidates=1, scorer=middle)
    assert all(torch.equal(one.samples, other.samples) for one, other in zip(plain, judged, strict=True))


def test_candidates_need_a_judge_and_one_text(model: AudioGen) -> None:
    with pytest.raises(
        ValueError, match="candidates is 2, but nothing judges them, and this model brings no scorer: give one"
    ):
        model.generate(["rain"], 0.2, candidates=2)
    with pytest.raises(ValueError, match="a timeline has several"):
        model.generate([["0-0.2: rain"]], candidates=2, scorer=middle)
