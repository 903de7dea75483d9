"""AudioGen: continuations keep their prompts, their codes and their loudness, whatever the prompts are."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_audiogen import HOP, RATE, SAMPLING, TEXTS, a_batch_of_prompts, a_codec, a_model, a_tone, codes_of, rms
from torch import Tensor

from audiolm_kit.audio import Sound, fit
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.text import Vocabulary


def test_a_continuation_begins_with_its_prompts_codes(model: AudioGen, decoded: list[Tensor]) -> None:
    for prompt in a_batch_of_prompts():
        [sound] = model.continue_([prompt], 0.4, ["a bell"], SAMPLING, seed=2)
        [codes], given = codes_of(decoded), model.codec.encode(prompt.samples[None])[0]
        assert sound.samples.shape == (1, round(0.4 * RATE))
        assert codes.shape == (2, 20) and torch.equal(codes[:, : given.shape[1]], given)
        assert len(given.unique()) > 2


def test_a_continuation_depends_on_its_own_prompt_text_and_seed_alone(model: AudioGen) -> None:
    prompts = a_batch_of_prompts()
    together = model.continue_(prompts, 0.4, TEXTS, SAMPLING, seed=2)
    for i, prompt in enumerate(prompts):
        [alone] = model.continue_([prompt], 0.4, [TEXTS[i]], SAMPLING, seed=2 + i)
        torch.testing.assert_close(alone.samples, together[i].samples)
        [another] = model.continue_([prompt], 0.4, [TEXTS[i]], SAMPLING, seed=12 + i)
        assert not torch.allclose(another.samples, alone.samples, atol=1e-3)


def test_prompts_of_unequal_length_go_side_by_side(model: AudioGen, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    plain = model.lm.new_cache
    monkeypatch.setattr(model.lm, "new_cache", lambda count, *rest: (rows.append(count), plain(count, *rest))[1])
    model.continue_(a_batch_of_prompts(), 0.4, TEXTS, SAMPLING)
    assert rows == [2 * len(TEXTS)]  # with text and without
    sounds = model.continue_(a_batch_of_prompts(), [0.4, 0.2, 0.3, 0.4], TEXTS, SAMPLING)
    assert rows == [2 * len(TEXTS)] * 2
    assert [each.samples.shape[1] / RATE for each in sounds] == [0.4, 0.2, 0.3, 0.4]


def test_no_texts_are_empty_texts(model: AudioGen) -> None:
    [without] = model.continue_([a_tone(0.1)], 0.3, sampling=SAMPLING)
    [empty] = model.continue_([a_tone(0.1)], 0.3, [""], SAMPLING)
    assert torch.equal(without.samples, empty.samples)


@pytest.mark.parametrize("peak", [0.0, 0.7])
@pytest.mark.parametrize("loudness", [0.2, 0.02, 0.002])
def test_the_beginning_is_as_loud_as_the_prompt(vocabulary: Vocabulary, loudness: float, peak: float) -> None:
    prompt = a_tone(0.2, loudness)
    [sound] = a_model(vocabulary, a_codec(peak=peak)).continue_([prompt], 0.4, sampling=SAMPLING)
    assert float(sound.samples.abs().max()) <= 1
    followed = rms(sound.samples[:, : prompt.samples.shape[1]])
    assert followed == pytest.approx(rms(prompt.samples), rel=0.03)  # its last frames sound on into the new ones


def test_a_continuation_may_follow_its_prompt_more_than_it_is_wont_to(model: AudioGen) -> None:
    [plain] = model.continue_([a_tone(0.2)], 0.4, ["a bell"], SAMPLING)
    sampling = dataclasses.replace(SAMPLING, prompt_guidance_scale=4.0)
    [closer] = model.continue_([a_tone(0.2)], 0.4, ["a bell"], sampling)
    assert not torch.allclose(plain.samples[:, 1600:], closer.samples[:, 1600:], atol=1e-3)
    assert torch.equal(plain.samples[:, :800], closer.samples[:, :800])


def test_no_sample_passes_full_scale(vocabulary: Vocabulary) -> None:
    codec = a_codec()
    codec.decoder.head.project.bias.data[:40] += 2.0  # type: ignore[union-attr, operator]
    model = a_model(vocabulary, codec)
    [sound] = model.generate(["rain"], 0.3, SAMPLING)
    assert float(sound.samples.abs().max()) == 1
    [sound] = model.continue_([a_tone(0.2, 0.9)], 0.4, sampling=SAMPLING)
    assert float(sound.samples.abs().max()) <= 1


def test_a_silent_prompt_does_not_silence_its_continuation(model: AudioGen) -> None:
    [sound] = model.continue_([Sound(torch.zeros(1, 800), RATE)], 0.3, sampling=SAMPLING)
    assert rms(sound.samples[:, 800:]) > 1e-4


@pytest.mark.parametrize(("rate", "channels"), [(RATE, 2), (16000, 1), (11025, 2), (44100, 1)])
def test_prompts_of_any_rate_and_of_both_channels_are_taken(model: AudioGen, rate: int, channels: int) -> None:
    prompt = a_tone(0.2, rate=rate, channels=channels)
    [sound] = model.continue_([prompt], 0.4, sampling=SAMPLING)
    [same] = model.continue_([fit(prompt, RATE, 1)], 0.4, sampling=SAMPLING)
    assert sound.samples.shape == (1, round(0.4 * RATE))
    torch.testing.assert_close(sound.samples, same.samples)


def test_a_stereo_codec_takes_a_mono_prompt(vocabulary: Vocabulary) -> None:
    [sound] = a_model(vocabulary, a_codec(channels=2)).continue_([a_tone(0.1)], 0.2, sampling=SAMPLING)
    assert sound.samples.shape == (2, 1600)


def test_what_does_not_fill_a_frame_is_left_out(model: AudioGen) -> None:
    whole = a_tone(0.1)
    longer = Sound(torch.cat([whole.samples, torch.zeros(1, HOP - 1)], 1), RATE)
    [sound], [same] = (model.continue_([prompt], 0.3, sampling=SAMPLING) for prompt in (longer, whole))
    assert torch.equal(sound.samples, same.samples)


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (a_tone(0.3), "the prompt is 0.300 s long, 0.300 s were asked for in all: ask for more seconds"),
        (a_tone(0.301), "ask for more seconds"),
        (a_tone(0.01), "the prompt is 0.010 s long, a frame of the codec 0.020 s: give at least one frame"),
        (Sound(torch.zeros(1, 0), RATE), "the prompt is empty"),
        (Sound(torch.full((1, 800), torch.nan), RATE), "the prompt holds NaN"),
        (Sound(torch.full((1, 800), torch.inf), 16000), "the prompt holds NaN or infinite"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(model: AudioGen, prompt: Sound, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        model.continue_([a_tone(0.1), prompt], 0.3)


def test_lone_and_missing_prompts_are_refused(model: AudioGen) -> None:
    with pytest.raises(ValueError, match="prompts is a single Sound"):
        model.continue_(a_tone(0.1), 0.3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prompts is empty"):
        model.continue_([], 0.3)
    with pytest.raises(ValueError, match="1 texts for 2 prompts"):
        model.continue_([a_tone(0.1)] * 2, 0.3, ["a bell"])
