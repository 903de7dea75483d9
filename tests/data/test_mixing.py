"""A mixture holds both sounds at the levels and with the overlap asked for; its partner is another recording."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from audiolm_kit.audio import Sound, rms_dbfs
from audiolm_kit.data.manifest import Row
from audiolm_kit.data.mixing import (
    Heard,
    Mix,
    Mixing,
    Partners,
    draw_mix,
    heard,
    is_mixed,
    mix,
    mixed_row,
    partner_offset,
)

RATE = 8000
DEFAULT = Mixing()
PLAIN = Mixing(level_db=None, peak=1.0, gate_db=math.inf)


def make_row(number: int, caption: str = "", label: str | None = None, split: str | None = None, **more: object) -> Row:
    return Row(
        **{"path": f"/{number}.wav", "duration": 1.0, "caption": caption, "label": label, "split": split, **more}
    )


def noise(seed: int, seconds: float = 1.0, level: float = 0.1, channels: int = 1) -> Sound:
    generator = torch.Generator().manual_seed(seed)
    return Sound(level * torch.randn(channels, round(seconds * RATE), generator=generator), RATE)


def in_silence(sound: Sound, before: float, after: float) -> Sound:
    pad = round(before * RATE), round(after * RATE)
    return Sound(torch.nn.functional.pad(sound.samples, pad), RATE)


def gains(mixed: Sound, first: Sound, second: Sound, offset: int) -> tuple[float, float]:
    """By which the two sounds were multiplied, by least squares."""
    length = mixed.samples.shape[1]
    moved = torch.zeros_like(first.samples)
    begin, end = max(0, offset), min(length, offset + second.samples.shape[1])
    moved[:, begin:end] = second.samples[:, begin - offset : end - offset]
    pair = torch.stack([first.samples.flatten(), moved.flatten()], 1).double()
    one, other = torch.linalg.lstsq(pair, mixed.samples.flatten().double()[:, None]).solution.flatten().tolist()
    assert torch.allclose(one * first.samples + other * moved, mixed.samples, atol=1e-5)
    return one, other


def decibels(gain: float) -> float:
    return 20 * math.log10(gain)


def draws(count: int = 500, mixing: Mixing = DEFAULT, rows: int = 7) -> list[Mix]:
    partners = Partners([make_row(number) for number in range(rows)], mixing.distinct)
    return [draw_mix(0, number % rows, number, partners, mixing) for number in range(count)]


# --- who with whom


@pytest.mark.parametrize("count", [2, 3, 20])
def test_a_clip_is_never_its_own_partner_and_all_others_are(count: int) -> None:
    partners = Partners([make_row(number) for number in range(count)])
    for row in (0, count - 1):
        seen = {draw_mix(1, row, number, partners).partner for number in range(25 * count)}
        assert seen == set(range(count)) - {row}


def test_partners_are_drawn_evenly_past_the_barred_ones() -> None:
    rows = [make_row(number, label="dog" if number in (0, 3, 4, 9) else str(number)) for number in range(12)]
    partners, random = Partners(rows, "label"), np.random.default_rng(0)
    seen = Counter(partners.draw(3, random) for _ in range(4000))
    assert set(seen) == {1, 2, 5, 6, 7, 8, 10, 11}
    assert all(abs(times - 500) < 100 for times in seen.values())


def test_rows_of_one_recording_are_no_partners_but_pieces_of_one_file_are() -> None:
    captions = [make_row(1, "a bell"), make_row(1, "a ringing"), make_row(2, "rain")]  # two captions of one sound
    partners = Partners(captions)
    assert {draw_mix(0, row, number, partners).partner for row in (0, 1) for number in range(50)} == {2}
    pieces = [make_row(1, start=start) for start in (0.0, 0.5, 1.0)]  # the middle one overlaps both
    with pytest.raises(ValueError, match="finds no partner"):
        Partners(pieces)
    partners = Partners([*pieces, make_row(2)])
    assert {draw_mix(0, 0, number, partners).partner for number in range(50)} == {2, 3}
    assert {draw_mix(0, 1, number, partners).partner for number in range(50)} == {3}


def test_partners_are_of_the_same_split_and_no_split_is_train() -> None:
    rows = [make_row(number, split=split) for number, split in enumerate(["train", None, "valid", "valid", "train"])]
    partners = Partners(rows)
    found = [{draw_mix(0, row, number, partners).partner for number in range(80)} for row in range(5)]
    assert found == [{1, 4}, {0, 4}, {3}, {2}, {0, 1}]


@pytest.mark.parametrize("distinct", ["caption", "label"])
def test_the_partner_has_other_words_where_that_is_asked_for(distinct: str) -> None:
    words = ["rain", "rain", "a dog", "Rain ", "a cat"]
    rows = [make_row(number, **{distinct: word}) for number, word in enumerate(words)]
    partners = Partners(rows, distinct)
    assert {draw_mix(0, 0, number, partners).partner for number in range(80)} == {2, 4}
    assert {draw_mix(0, 2, number, partners).partner for number in range(80)} == {0, 1, 3, 4}


@pytest.mark.parametrize(
    ("rows", "distinct", "message"),
    [
        ([make_row(0)], "row", r"/0.wav finds no partner .* split 'train' \(1\) are of this recording"),
        ([make_row(0), make_row(1), make_row(2, split="valid")], "row", "/2.wav finds no partner"),
        ([make_row(0, "rain"), make_row(1, "rain")], "caption", "are of this recording or its caption"),
        ([make_row(0), make_row(1)], "label", "are of this recording or its label; give clips that differ"),
    ],
)
def test_a_row_without_a_partner_is_refused_in_one_line(rows: list[Row], distinct: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Partners(rows, distinct)
    assert "\n" not in str(caught.value)


# --- draws


def test_a_draw_is_a_pure_function_of_seed_row_and_number() -> None:
    partners = Partners([make_row(number) for number in range(50)])
    assert draw_mix(3, 4, 5, partners) == draw_mix(3, 4, 5, partners)
    numbers = [(3, 4, 5), (4, 4, 5), (3, 5, 5), (3, 4, 6)]
    assert len({draw_mix(*each, partners) for each in numbers}) == 4
    assert len({is_mixed(0, row, number, 0.5) for row in range(5) for number in range(5)}) == 2


def test_draws_fill_their_ranges_and_stay_within() -> None:
    drawn = draws(1000)
    for values, (low, high) in (
        ([each.snr_db for each in drawn], (-5.0, 5.0)),
        ([each.level_db for each in drawn], (-35.0, -15.0)),
        ([each.place for each in drawn], (0.0, 1.0)),
    ):
        width = high - low
        assert low <= min(values) < low + width / 100 and high - width / 100 < max(values) <= high
        assert abs(sum(values) / len(values) - (low + high) / 2) < width / 20
    assert all(each.level_db is None for each in draws(3, Mixing(level_db=None)))
    assert {each.snr_db for each in draws(3, Mixing(snr_db=(2.0, 2.0)))} == {2.0}


def test_items_are_mixed_with_the_probability_asked_for_each_by_itself() -> None:
    coins = [is_mixed(0, row, number, 0.3) for row in range(100) for number in range(20)]
    assert 0.26 < sum(coins) / 2000 < 0.34
    assert 5 < sum(coins[:40]) < 20  # no batch is all mixed or all not
    assert not any(is_mixed(0, row, 1, 0.0) for row in range(100)) and all(is_mixed(0, n, 1, 1.0) for n in range(100))


# --- place


def test_enough_of_both_sounds_together_wherever_they_lie() -> None:
    random, shares = np.random.default_rng(0), set()
    for drawn in draws(500):
        window, other = (int(each) for each in random.integers(1, 4000, 2))
        one = Heard(0.0, *_span(window, random))
        two = Heard(0.0, *_span(other, random))
        least = float(random.uniform(0.01, 1.0))
        offset = partner_offset(one, two, window, least, drawn.place)
        begin, end = two.start + offset, two.end + offset
        together = min(one.end, end) - max(one.start, begin)
        assert together >= least * min(one.end - one.start, end - begin) - 1e-9
        assert min(window, end) - max(0, begin) >= least * min(window, end - begin) - 1e-9
        shares.add(round(together / min(one.end - one.start, end - begin), 1))
    assert {0.5, 1.0} <= shares


def _span(length: int, random: np.random.Generator) -> tuple[int, int]:
    start = int(random.integers(0, length))
    return start, int(random.integers(start + 1, length + 1))


def test_equal_clips_are_moved_either_way_up_to_half() -> None:
    whole = Heard(0.0, 0, 1000)
    offsets = [partner_offset(whole, whole, 1000, 0.5, place) for place in np.linspace(0, 1, 101)]
    assert offsets[0] == -500 and offsets[-1] == 500 and abs(offsets[50]) <= 1
    assert {partner_offset(whole, whole, 1000, 1.0, place) for place in (0.0, 0.5, 1.0)} == {0}


def test_what_little_sounds_in_the_partner_is_heard() -> None:
    bark = in_silence(noise(1, 0.3), 2.2, 2.5)  # as the dogs of ESC-10
    rain = noise(2, 5.0)
    for drawn in draws(40, mixing := Mixing(least_overlap=0.5)):
        offset = partner_offset(heard(rain), heard(bark), 5 * RATE, 0.5, drawn.place)
        begin = offset + round(2.2 * RATE)
        assert -0.15 * RATE <= begin <= 4.85 * RATE
        mixed = mix(rain, bark, drawn, mixing)
        alone = rain.samples * gains(mixed, rain, bark, offset)[0]
        assert float((mixed.samples - alone).abs().max()) > 0.01 * float(alone.abs().max())


# --- levels


@pytest.mark.parametrize("gate_db", [40.0, math.inf])
def test_the_signal_to_noise_ratio_is_as_drawn(gate_db: float) -> None:
    mixing = Mixing(gate_db=gate_db)
    for number, drawn in enumerate(draws(20)):
        first, second = noise(number, level=0.02), noise(100 + number, 0.8, level=0.3)
        offset = partner_offset(heard(first, gate_db), heard(second, gate_db), RATE, 0.5, drawn.place)
        one, other = gains(mix(first, second, drawn._replace(level_db=-30.0), mixing), first, second, offset)
        found = rms_dbfs(first.samples * one) - rms_dbfs(second.samples * other)
        assert found == pytest.approx(drawn.snr_db, abs=0.01)


def test_the_level_of_a_mixture_is_as_drawn() -> None:
    for number, drawn in enumerate(draws(30, whole := Mixing(gate_db=math.inf))):
        mixed = mix(noise(number), noise(100 + number, 0.7), drawn, whole)
        assert -35.01 < rms_dbfs(mixed.samples) < -14.99
        assert rms_dbfs(mixed.samples) == pytest.approx(drawn.level_db, abs=0.01)


def test_without_a_level_of_the_mixture_each_source_is_at_its_own() -> None:
    first, second, drawn = noise(0), noise(1), Mix(1, 3.0, 0.5, None, (1, 1))
    mixing = replace(PLAIN, source_db=-20.0, least_overlap=1.0)
    one, other = gains(mix(first, second, drawn, mixing), first, second, 0)
    assert rms_dbfs(first.samples * one) == pytest.approx(-20.0, abs=0.01)
    assert rms_dbfs(second.samples * other) == pytest.approx(-23.0, abs=0.01)


def test_silence_around_a_sound_changes_neither_its_level_nor_that_of_the_other() -> None:
    bark, rain = noise(0, 0.3), noise(1, 5.0)
    around, drawn = in_silence(bark, 2.0, 2.7), Mix(1, 0.0, 0.5, None, (1, 1))
    for mixing, apart in ((Mixing(level_db=None), 0.0), (PLAIN, decibels(math.sqrt(5 / 0.3)))):
        begin, end = round(2.0 * RATE), round(2.3 * RATE)
        offset = partner_offset(*(heard(each, mixing.gate_db) for each in (around, rain)), 5 * RATE, 0.5, 0.5)
        one, other = gains(mix(around, rain, drawn, mixing), around, rain, offset)
        found = rms_dbfs(around.samples[:, begin:end] * one) - rms_dbfs(rain.samples * other)
        assert found == pytest.approx(apart, abs=0.05)  # whole-clip levels: 12 dB too loud


def test_the_loudest_sample_never_passes_the_peak_and_nothing_is_clipped() -> None:
    for number, drawn in enumerate(draws(50)):
        first, second = noise(number, level=0.5), noise(100 + number, level=0.01)
        first.samples[:, 10] = -20.0  # a click, and negative: a guard that looks at the largest value would miss it
        mixed = mix(first, second, drawn._replace(level_db=-15.0), Mixing())
        assert float(mixed.samples.abs().max()) == pytest.approx(0.99, abs=1e-5)
        quiet = mix(first, second, drawn._replace(level_db=-60.0), Mixing())
        assert torch.allclose(quiet.samples / quiet.samples.abs().max(), mixed.samples / 0.99, atol=1e-5)


def test_levels_are_those_of_what_sounds() -> None:
    sound = noise(0)
    assert heard(sound).level_db == pytest.approx(rms_dbfs(sound.samples), abs=1e-4)
    assert heard(sound)[1:] == (0, RATE)
    around = in_silence(sound, 0.4, 0.33)
    found = heard(around)
    assert found.level_db == pytest.approx(rms_dbfs(sound.samples), abs=0.05)
    assert (found.start, found.end) == (round(0.4 * RATE), round(1.4 * RATE))
    everything = heard(around, math.inf)
    assert everything.level_db == pytest.approx(rms_dbfs(around.samples), abs=1e-4)
    assert everything[1:] == (0, around.samples.shape[1])
    assert heard(Sound(torch.ones(2, 3), RATE))[1:] == (0, 3)  # shorter than a block


# --- mixtures


@pytest.mark.parametrize("seconds", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_mixture_has_the_first_clips_window_and_leaves_the_sources_alone(seconds: float, channels: int) -> None:
    first, second = noise(0, channels=channels), noise(1, seconds, channels=channels)
    before = first.samples.clone(), second.samples.clone()
    for drawn in draws(20):
        mixed = mix(first, second, drawn)
        assert mixed.samples.shape == (channels, RATE) and mixed.sample_rate == RATE
        assert torch.equal(mixed.samples, mix(first, second, drawn).samples)
        mixed.samples.zero_()
    assert torch.equal(first.samples, before[0]) and torch.equal(second.samples, before[1])


@pytest.mark.parametrize("silent", [torch.zeros(1, 800), 5e-4 * torch.ones(1, 800)])
def test_silence_is_refused_on_either_side(silent: Tensor) -> None:
    drawn = draws(1)[0]
    for pair in ((noise(0), Sound(silent, RATE)), (Sound(silent, RATE), noise(0))):
        with pytest.raises(ValueError, match="a silent sound cannot be mixed"):
            mix(*pair, drawn)


def test_sounds_of_two_forms_are_refused() -> None:
    drawn = draws(1)[0]
    with pytest.raises(ValueError, match="1 channels at 8000 Hz with 2 at 8000 Hz: .* audio.fit"):
        mix(noise(0), noise(1, channels=2), drawn)
    with pytest.raises(ValueError, match="at 8000 Hz with 1 at 4000 Hz"):
        mix(noise(0), Sound(noise(1).samples, 4000), drawn)


def test_a_mixture_is_said_with_the_words_of_both() -> None:
    dog, rain = make_row(1, "a dog barks", "dog", speaker="ann"), make_row(2, "rain", "rain")
    both = mixed_row(dog, rain, " and ")
    assert (both.path, both.caption, both.label, both.speaker) == ("/1.wav", "a dog barks and rain", "dog+rain", "ann")
    again = mixed_row(dog, replace(rain, caption="a dog barks", label="dog"), " and ")
    assert (again.caption, again.label) == ("a dog barks", "dog")
    assert mixed_row(make_row(1), rain).caption == "rain" and mixed_row(dog, make_row(1)).label == "dog"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"probability": 1.5}, "probability is 1.5"),
        ({"snr_db": (5.0, -5.0)}, "snr_db is"),
        ({"level_db": (-35.0, math.nan)}, "level_db is"),
        ({"least_overlap": 0.0}, "least_overlap is 0.0"),
        ({"peak": 0.0}, "peak is 0.0"),
        ({"gate_db": 0.0}, "gate_db is 0.0"),
        ({"source_db": 3.0}, "source_db is 3.0"),
        ({"distinct": "clip"}, "wanted row, caption or label"),
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Mixing(**wrong)
    assert "wanted" in str(caught.value)
