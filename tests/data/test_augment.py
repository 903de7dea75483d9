"""Variations are mild, repeatable, and do what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from audiolm_kit.audio import Sound
from audiolm_kit.data.augment import (
    REACH,
    WINDOW,
    Variation,
    VariationRanges,
    change_gain,
    change_speed,
    change_tempo,
    draw_variation,
    pad_end,
    vary,
)

RATE, FRAME = 8000, 160


def tone(hertz: float = 440.0, seconds: float = 0.5) -> Sound:
    times = torch.arange(round(RATE * seconds)) / RATE
    return Sound(0.5 * torch.sin(2 * math.pi * hertz * times)[None], RATE)


def loudest_hertz(sound: Sound) -> float:
    spectrum = torch.fft.rfft(sound.samples[0]).abs()
    return float(spectrum.argmax()) * RATE / sound.samples.shape[1]


def test_variant_zero_is_the_recording_itself() -> None:
    sound = tone()
    assert torch.equal(vary(sound, draw_variation(3, 7, 0, RATE, FRAME)).samples, sound.samples)


def test_a_variation_is_a_pure_function_of_seed_row_and_variant() -> None:
    assert draw_variation(0, 5, 2, RATE, FRAME) == draw_variation(0, 5, 2, RATE, FRAME)
    others = [
        draw_variation(1, 5, 2, RATE, FRAME),
        draw_variation(0, 6, 2, RATE, FRAME),
        draw_variation(0, 5, 3, RATE, FRAME),
    ]
    assert draw_variation(0, 5, 2, RATE, FRAME) not in others


def test_variations_stay_within_their_ranges_and_fill_them() -> None:
    drawn = [draw_variation(0, row, 1, RATE, FRAME) for row in range(500)]
    speeds, gains, leads = ([getattr(each, name) for each in drawn] for name in ("speed", "gain_db", "lead"))
    assert 0.95 <= min(speeds) < 0.955 and 1.045 < max(speeds) <= 1.05
    assert -6 <= min(gains) < -5.8 and 2.8 < max(gains) <= 3
    assert 0 <= min(leads) < 5 and FRAME * 2 < max(leads) < FRAME + 0.05 * RATE


def test_the_lead_is_silence_in_front() -> None:
    varied = vary(tone(), Variation(lead=100))
    assert torch.equal(varied.samples[:, :100], torch.zeros(1, 100))
    assert torch.equal(varied.samples[:, 100:], tone().samples)


@pytest.mark.parametrize("speed", [0.95, 1.05])
def test_speed_changes_length_and_pitch(speed: float) -> None:
    faster = change_speed(tone(), speed)
    assert faster.sample_rate == RATE
    assert abs(faster.samples.shape[1] - round(RATE * 0.5 / speed)) <= 1
    assert abs(loudest_hertz(faster) - 440 * speed) < 3
    with pytest.raises(ValueError, match="above 0"):
        change_speed(tone(), 0.0)


@pytest.mark.parametrize("tempo", [0.7, 0.99, 1.4])
def test_tempo_changes_length_and_leaves_pitch_and_loudness(tempo: float) -> None:
    sound = tone()
    played = change_tempo(sound, tempo)
    assert played.sample_rate == RATE and played.samples.shape == (1, round(sound.samples.shape[1] / tempo))
    assert abs(loudest_hertz(played) - 440) < 3
    inside = played.samples[0, 400:-400].unfold(0, RATE // 50, 10)
    loudness = tone().samples.square().mean().sqrt()
    torch.testing.assert_close(inside.square().mean(1).sqrt(), loudness.expand(len(inside)), rtol=0.1, atol=0)


@pytest.mark.parametrize("tempo", [0.75, 1.3])
def test_what_is_heard_comes_sooner_or_later_by_the_tempo(tempo: float) -> None:
    samples = torch.zeros(2, 2 * RATE)
    samples[0, RATE : RATE + 200] = samples[1, RATE : RATE + 200] = torch.hann_window(200)
    samples[1] *= -0.5
    played = change_tempo(Sound(samples, RATE), tempo).samples
    assert abs(int(played[0].argmax()) - (RATE + 100) / tempo) <= (REACH + WINDOW / 2) * RATE
    assert torch.allclose(played[1], -0.5 * played[0])  # channels stay together


def test_a_tempo_of_one_changes_nothing_and_none_is_refused() -> None:
    assert torch.equal(change_tempo(tone(), 1.0).samples, tone().samples)
    assert change_tempo(Sound(torch.ones(1, 7), RATE), 0.5).samples.shape == (1, 14)  # shorter than a window
    with pytest.raises(ValueError, match="above 0"):
        change_tempo(tone(), 0.0)
    with pytest.raises(ValueError, match="tempo is 2,1, wanted a range above 0"):
        VariationRanges(tempo=(2.0, 1.0))


def test_a_range_of_tempos_changes_nothing_else_that_is_drawn() -> None:
    ranges = VariationRanges(tempo=(0.5, 2.0))
    pairs = [
        [draw_variation(0, row, 1, RATE, FRAME, each) for each in (VariationRanges(), ranges)] for row in range(500)
    ]
    assert all(replace(played, tempo=1.0) == plain for plain, played in pairs)
    tempos = sorted(played.tempo for _, played in pairs)
    assert 0.5 <= tempos[0] < 0.51 and 1.95 < tempos[-1] <= 2 and 0.9 < tempos[250] < 1.1
    assert vary(tone(), pairs[0][1]).samples.shape != vary(tone(), pairs[0][0]).samples.shape


def test_semitones_are_whole_and_change_nothing_else_that_is_drawn() -> None:
    ranges = VariationRanges(semitones=2)
    pairs = [
        [draw_variation(0, row, 1, RATE, FRAME, each) for each in (VariationRanges(), ranges)] for row in range(100)
    ]
    assert all(replace(played, speed=plain.speed) == plain for plain, played in pairs)
    moved = {round(12 * math.log2(played.speed), 9) for _, played in pairs}
    assert moved == {-2.0, -1.0, 0.0, 1.0, 2.0}
    for wrong in (-1, 13):
        with pytest.raises(ValueError, match=f"semitones is {wrong}, wanted 0"):
            VariationRanges(semitones=wrong)


def test_gain_is_in_decibels_and_never_clips() -> None:
    samples = tone().samples
    assert torch.allclose(change_gain(samples, -6.0), samples * 0.501187, atol=1e-6)
    assert torch.allclose(change_gain(samples, 3.0), samples * 1.412538, atol=1e-6)
    assert float(change_gain(samples, 20.0).abs().max()) == pytest.approx(1.0)
    assert torch.equal(change_gain(samples * 4, 3.0), samples * 4)
    assert torch.equal(change_gain(torch.zeros(1, 9), 3.0), torch.zeros(1, 9))


def test_padding_lengthens_and_never_cuts() -> None:
    assert torch.equal(pad_end(torch.ones(1, 2), 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    assert torch.equal(pad_end(torch.ones(1, 5), 4), torch.ones(1, 5))
