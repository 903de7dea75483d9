"""Timelines: lines such as ``0-4: rain`` say what is to be heard when.

A time is seconds (``4``, ``4.25``, ``4s``), minutes (``1:30``) or hours (``1:02:03.5``). ``8-: dog`` lasts until the
next line begins, or to the end. Lines may stand in any order; what lies between them is left to the model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

_TIME = r"[0-9]+(?::[0-9]+){0,2}(?:\.[0-9]*)?|\.[0-9]+"
_RANGE = rf"\s*(?P<start>{_TIME})\s*s?\s*[-\u2013]\s*(?:(?P<end>{_TIME})\s*s?\s*)?:"
MEANT = re.compile(rf"\s*-?{_RANGE}")  # a line that opens like this is no caption, even if it is wrong
LINE = re.compile(rf"{_RANGE}(?![0-9])(?P<text>.*)", re.DOTALL)  # in "0-1:30 rain" the colon that ends the range lacks
EXAMPLE = "write START-END: TEXT, as in '0-4: rain' or '1:30-2:00: a dog barks'"
FUZZ = 1e-6  # of a frame; less than that is rounding


class Span(NamedTuple):
    """What is to be heard from one second to another; infinity is the end of the sound."""

    start: float
    end: float
    text: str


def is_timeline(lines: Sequence[str]) -> bool:
    """Whether the lines open with time ranges.

    Raises:
        ValueError: Some do, others do not.
    """
    meant = [bool(MEANT.match(line)) for line in lines]
    if any(meant) and not all(meant):
        line = lines[meant.index(False)]
        raise ValueError(f"{line!r} has no time range, but other texts have: {EXAMPLE}, for all or for none")
    return any(meant)


def parse(lines: Sequence[str]) -> list[Span]:
    """The spans in the order of their times; texts are stripped, and may be empty or hold colons.

    Raises:
        ValueError: A line that is no range and text, ends before it begins, or overlaps another.
    """
    if isinstance(lines, str) or not lines:
        raise ValueError(f"the timeline is {lines!r}: give a list of lines; {EXAMPLE}")
    ordered = sorted((_span(line), line) for line in lines)
    spans = []
    for place, (span, line) in enumerate(ordered, 1):
        end = span.end
        if place < len(ordered):
            follower, other = ordered[place]
            end = follower.start if end == math.inf else end
            if end > follower.start or span.start == follower.start:
                raise ValueError(f"{other!r} overlaps {line!r}: let one end where the other begins")
        spans.append(span._replace(end=end))
    return spans


def duration(spans: Sequence[Span]) -> float | None:
    """Seconds until the last span ends; None where it lasts to the end of the sound, however long that is."""
    end = max(span.end for span in spans)
    return None if end == math.inf else end


def segments(spans: Sequence[Span], num_frames: int, frame_rate: float) -> list[tuple[int, int, str]]:
    """``(first frame, last frame + 1, text)`` from frame 0 to ``num_frames``, each beginning where another ends.

    A time falls on the nearest border of frames; a gap has the text "". What ends within the last frame, which a sound
    need not fill, ends with it.

    Args:
        spans: As `parse` returns them: in order, none overlapping.
        num_frames: The length of the whole sound, at least 1.
        frame_rate: Frames of a second.

    Raises:
        ValueError: A span that goes on after the end of the sound, or that is too short to be a frame.
    """
    made: list[tuple[int, int, str]] = []
    here = 0
    for span in spans:
        begin, end = span.start * frame_rate, num_frames if span.end == math.inf else span.end * frame_rate
        if begin >= num_frames or end > num_frames + 0.5:
            told = f"the sound at {num_frames / frame_rate:g} s: ask for more seconds, or end it there"
            raise ValueError(f"{_shown(span)!r} ends after {told}")
        first, last = round(begin), round(end)
        if span is spans[-1] and end > num_frames - 1 + FUZZ:
            last = num_frames
        if last <= first:
            raise ValueError(f"{_shown(span)!r} is shorter than a frame, {1 / frame_rate:.3g} s: make it longer")
        if first > here:
            made.append((here, first, ""))
        made.append((first, last, span.text))
        here = last
    return [*made, (here, num_frames, "")] if here < num_frames else made


def _span(line: str) -> Span:
    """A line by itself; an open end is infinite."""
    found = LINE.match(line)
    if not found:
        raise ValueError(f"{line!r} is no line of a timeline: {EXAMPLE}")
    start, end = (math.inf if time is None else _seconds(time, line) for time in (found["start"], found["end"]))
    if start >= end:
        raise ValueError(f"{line!r} does not end after it begins: give the earlier time first")
    return Span(start, end, found["text"].strip())


def _seconds(time: str, line: str) -> float:
    """A time as it is written, in seconds."""
    total = 0.0
    for place, part in enumerate(time.split(":")):
        if place and float(part) >= 60:
            raise ValueError(f"{line!r} has the time {time}: minutes and seconds behind a colon go up to 59")
        total = 60 * total + float(part)
    return total


def _shown(span: Span) -> str:
    """A span as a line."""
    end = "" if span.end == math.inf else f"{span.end:g}"
    return f"{span.start:g}-{end}: {span.text}"
