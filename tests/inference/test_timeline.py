"""Timelines: what is written is what is heard when, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from audiolm_kit.inference.timeline import Span, duration, is_timeline, parse, segments


@pytest.mark.parametrize(
    ("line", "span"),
    [
        ("0-4: rain", (0, 4, "rain")),
        ("0.5-4.25: rain", (0.5, 4.25, "rain")),
        (".5-4.: rain", (0.5, 4, "rain")),
        ("1:30-2:00: rain", (90, 120, "rain")),
        ("59-1:01.5: rain", (59, 61.5, "rain")),
        ("1:02:03-1:02:04: rain", (3723, 3724, "rain")),
        ("0s - 4 s : rain", (0, 4, "rain")),
        ("0\u20134: rain", (0, 4, "rain")),
        ("  0-4:rain  ", (0, 4, "rain")),
        ("8-: dog", (8, math.inf, "dog")),
        ("8 - : dog", (8, math.inf, "dog")),
        ("0-4: a voice says: rain, 3:15", (0, 4, "a voice says: rain, 3:15")),
        ("0-4: 30 dogs", (0, 4, "30 dogs")),
        ("0-4:30: dogs", (0, 270, "dogs")),
        ("0-4:", (0, 4, "")),
    ],
)
def test_a_line_is_a_range_and_a_text(line: str, span: tuple[float, float, str]) -> None:
    assert is_timeline([line])
    assert parse([line]) == [Span(*span)]


def test_lines_may_stand_in_any_order() -> None:
    lines = ["6-8: c", "0-2: a", "2-4.5: b"]
    assert parse(lines) == [Span(0, 2, "a"), Span(2, 4.5, "b"), Span(6, 8, "c")]
    assert parse(lines[::-1]) == parse(lines)


def test_an_open_end_lasts_until_the_next_line_or_to_the_end() -> None:
    assert parse(["8-: dog", "0-: rain"]) == [Span(0, 8, "rain"), Span(8, math.inf, "dog")]
    assert duration(parse(["0-: rain", "8-: dog"])) is None
    assert duration(parse(["0-: rain", "8-9.5: dog"])) == 9.5


@pytest.mark.parametrize(
    "lines",
    [[], ["rain"], ["a dog", "0 to 4: rain"], ["2-3 dogs bark"], ["4: rain"], ["from 0-4: rain"], [""]],
)
def test_a_text_without_a_time_range_is_no_timeline(lines: list[str]) -> None:
    assert not is_timeline(lines)


@pytest.mark.parametrize("check", [is_timeline, parse])
def test_texts_with_and_without_ranges_are_not_mixed(check: Callable[[list[str]], object]) -> None:
    with pytest.raises(ValueError, match="^'wind' (has|is) no .*START-END: TEXT"):
        check(["0-4: rain", "wind"])


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["4-4: rain"], "'4-4: rain' does not end after it begins"),
        (["4-2: rain"], "'4-2: rain' does not end after it begins"),
        (["0-1:30 rain"], "'0-1:30 rain' is no line of a timeline: write START-END: TEXT"),
        (["0-1:75: rain"], "'0-1:75: rain' has the time 1:75: minutes and seconds behind a colon go up to 59"),
        (["0-4: rain", "3-5: dog"], "'3-5: dog' overlaps '0-4: rain': let one end where the other begins"),
        (["3-5: dog", "0-4: rain"], "'3-5: dog' overlaps '0-4: rain'"),
        (["0-9: rain", "1-2: dog", "5-6: cat"], "'1-2: dog' overlaps '0-9: rain'"),
        (["1:30-2:00: rain", "1:59-3:00: dog"], "'1:59-3:00: dog' overlaps '1:30-2:00: rain'"),
        (["2-: rain", "2-: dog"], "overlaps"),
        (["-1-4: rain"], "'-1-4: rain' is no line of a timeline"),
        (["0-4: rain", "rain"], "'rain' is no line of a timeline"),
        ([], r"the timeline is \[\]: give a list of lines"),
        ("0-4: rain", "the timeline is '0-4: rain': give a list of lines"),
    ],
)
def test_a_wrong_line_is_named_in_one_line(lines: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told) as refusal:
        parse(lines)
    assert isinstance(lines, str) or not lines or is_timeline(lines[:1])  # so it is never taken for a caption
    assert "\n" not in str(refusal.value)


# --- frames


def test_segments_cover_every_frame_once_and_gaps_are_empty() -> None:
    spans = parse(["1-2: a", "2-2.5: b", "3-: c"])
    assert segments(spans, 200, 50) == [(0, 50, ""), (50, 100, "a"), (100, 125, "b"), (125, 150, ""), (150, 200, "c")]
    assert segments(parse(["0-2: a"]), 150, 50) == [(0, 100, "a"), (100, 150, "")]
    assert segments(parse(["0-: a"]), 1, 50) == [(0, 1, "a")]


@pytest.mark.parametrize("frame_rate", [12.5, 22050 / 320, 50.0, 86.1328125])
@pytest.mark.parametrize("seconds", [1.0, 3.3, 7.77])
def test_segments_are_adjacent_at_any_frame_rate(frame_rate: float, seconds: float) -> None:
    num_frames = math.ceil(seconds * frame_rate)
    third = seconds / 3
    spans = parse([f"{2 * third}-{seconds}: c", f"0-{third}: a", f"{third}-{2 * third}: b"])
    made = segments(spans, num_frames, frame_rate)
    assert [text for _, _, text in made] == ["a", "b", "c"]
    assert made[0][0] == 0 and made[-1][1] == num_frames
    assert all(before[1] == after[0] for before, after in zip(made, made[1:], strict=False))
    for first, _, text in made:
        assert abs(first - spans["abc".index(text)].start * frame_rate) <= 0.5


def test_what_ends_within_the_last_frame_ends_with_it() -> None:
    rate = 22050 / 320
    num_frames = math.ceil(8 * rate)
    assert round(8 * rate) == num_frames - 1
    assert segments(parse(["0-8: a"]), num_frames, rate) == [(0, num_frames, "a")]
    assert segments(parse(["0-0.3: a"]), 4, 10) == [(0, 3, "a"), (3, 4, "")]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["0-4: rain", "4-8: dog"], r"'4-8: dog' ends after the sound at 5 s: ask for more seconds"),
        (["5-: dog"], r"'5-: dog' ends after the sound at 5 s"),
        (["1:00-: dog"], r"'60-: dog' ends after the sound at 5 s"),
        (["1-1.001: click"], r"'1-1.001: click' is shorter than a frame, 0.02 s: make it longer"),
    ],
)
def test_spans_that_no_frame_can_hold_are_refused(lines: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        segments(parse(lines), 250, 50)
