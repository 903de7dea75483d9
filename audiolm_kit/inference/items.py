"""What is asked for: texts, seeds, prompts, lengths and windows, checked, and turned from seconds into frames.

C channels, L samples.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.inference.streaming import Windows
from audiolm_kit.inference.timeline import duration, parse, segments
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.protocols import Codec

BATCH = 32
"""Items that are generated at once; what comes out does not depend on it."""
OVERLAP = 0.3
"""Share of a window that the next one begins with, if nothing else is said: AudioLM's 3 s of 10 s."""
CHANGE = 1.0
"""Seconds that are read again where a timeline changes and there are no windows: in the middle of the prompts that
AudioGen tries, 0.5 to 2 s. The longer it is, the longer the old text is heard."""

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)
Text = str | Sequence[str]
"""What is to be heard: a caption, or the lines of a timeline."""
Shape = tuple[int | None, ...]


class Item(NamedTuple):
    """One sound that is asked for."""

    text: Text
    seed: int
    length: int | None
    """In samples; None is without end."""
    negative: str = ""
    prompt: Tensor | None = None
    """``[C, L]`` in whole frames."""

    @property
    def lead(self) -> int:
        """Samples of the prompt."""
        return 0 if self.prompt is None else self.prompt.shape[1]

    def sections(self, hop: int, sample_rate: int) -> list[tuple[int | None, str]]:
        """Its texts, one after the other, each with the frame at which it ends; None: it does not."""
        num_frames = None if self.length is None else -(-self.length // hop)  # in whole numbers: no rounding adds one
        if isinstance(self.text, str):
            return [(num_frames, self.text)]
        spans, rate = parse(self.text), sample_rate / hop
        if num_frames is not None:
            return [(end, text) for _, end, text in segments(spans, num_frames, rate)]
        settled = max(time for span in spans for time in span[:2] if time < math.inf)
        *earlier, last = segments(spans, math.ceil(settled * rate) + 1, rate)
        return [*((end, text) for _, end, text in earlier), (None, last[2])]

    def shape(self, hop: int, sample_rate: int) -> Shape:
        """Items of the same shape can always be made together; see ``batches``."""
        return (self.lead, self.length, *(end for end, _ in self.sections(hop, sample_rate)))

    def free(self, sampling: Sampling, windows: Windows) -> bool:
        """Whether it goes beside others of any length: one caption, all at once, no frame weighed by its place."""
        steady = sampling.guidance_schedule == "constant" and sampling.prompt_guidance_scale == 1
        return steady and windows.size is None and isinstance(self.text, str)


def groups(shapes: Sequence[H]) -> Iterator[tuple[H, list[int]]]:
    """What is there, and the places of each."""
    found: dict[H, list[int]] = {}
    for place, shape in enumerate(shapes):
        found.setdefault(shape, []).append(place)
    yield from found.items()


def alike(shapes: Sequence[Shape]) -> Iterator[list[int]]:
    """The places of equal shapes, a batch at a time."""
    for _, group in groups(shapes):
        for first in range(0, len(group), BATCH):
            yield group[first : first + BATCH]


def batches(shapes: Sequence[Shape], free: Sequence[bool]) -> Iterator[list[int]]:
    """The places of what is made together, a batch at a time.

    Args:
        shapes: of each, its prompt's length and that of the whole first.
        free: which go side by side however long they are, like lengths next to each other; others do in equal shapes.
    """
    plain = [i for i, each in enumerate(free) if each]
    plain.sort(key=lambda i: (shapes[i][1] or 0, shapes[i][0] or 0))
    for first in range(0, len(plain), BATCH):
        yield plain[first : first + BATCH]
    rest = [i for i, each in enumerate(free) if not each]
    for places in alike([shapes[i] for i in rest]):
        yield [rest[place] for place in places]


def listed(items: Sequence[T], name: str, kind: str) -> list[T]:
    """The items as a list; a lone one, which is a sequence too (of letters, of fields), is refused."""
    if isinstance(items, (str, Sound)) or len(items) == 0:
        given = "empty" if len(items) == 0 else f"a single {kind}"
        raise ValueError(f"{name} is {given}: give a list of at least one {kind}")
    return list(items)


def seeds_of(seed: int | Sequence[int], count: int) -> list[int]:
    """One seed for each item."""
    if isinstance(seed, Sequence):
        if len(seed) != count:
            raise ValueError(f"{len(seed)} seeds for {count} items: give one for each, or a single one")
        seeds = list(seed)
    else:
        seeds = [operator.index(seed) + i for i in range(count)]
    if not -(2**63) <= min(seeds) <= max(seeds) < 2**64:
        raise ValueError(f"seeds are {min(seeds)} to {max(seeds)}: give numbers from -2**63 to 2**64 - 1")
    return seeds


def negatives_of(negative: str | Sequence[str], count: int) -> list[str]:
    """One negative text for each item."""
    if isinstance(negative, str):
        return [negative] * count
    if len(negative) != count:
        raise ValueError(f"{len(negative)} negative texts for {count} items: give one for each, or a single one")
    return list(negative)


def samples_of(seconds: float | None, sample_rate: int, name: str = "seconds") -> int:
    """A length in samples, at least one."""
    return max(1, round(_positive(seconds, name) * sample_rate))


def lengths_of(seconds: float | Sequence[float], count: int, sample_rate: int) -> list[int]:
    """One length in samples for each item."""
    if isinstance(seconds, Sequence):
        if len(seconds) != count:
            raise ValueError(f"{len(seconds)} lengths for {count} items: give one for each, or a single one")
        return [samples_of(each, sample_rate) for each in seconds]
    return [samples_of(seconds, sample_rate)] * count


def length_of(text: Text) -> float | None:
    """The seconds that a text itself says: until a timeline's last line ends."""
    return None if isinstance(text, str) else duration(parse(text))


def whole_frames(prompt: Sound, codec: Codec, num_samples: int | None) -> Tensor:
    """A prompt as the codec takes it, [C, L].

    A frame that the prompt does not fill would be filled up with silence, and that continued as a pause.

    Args:
        num_samples: Of the whole that is to begin with it; None is without end.

    Raises:
        ValueError: A prompt that is shorter than a frame, not shorter than the whole, or no sound.
    """
    audio.checked(prompt.samples, "the prompt")
    samples = audio.fit(prompt, codec.sample_rate, codec.channels).samples
    length, frame = samples.shape[1], codec.hop
    given, one = (f"{count / codec.sample_rate:.3f} s" for count in (length, frame))
    if length < frame:
        raise ValueError(f"the prompt is {given} long, a frame of the codec {one}: give at least one frame")
    if num_samples is not None and length >= num_samples:
        wanted = f"{num_samples / codec.sample_rate:.3f} s"
        raise ValueError(f"the prompt is {given} long, {wanted} were asked for in all: ask for more seconds")
    return samples[:, : length - length % frame]


def windows_of(window: float | None, overlap: float | None, texts: Sequence[Text], frame_rate: float) -> Windows:
    """Windows in seconds, or none, as frames.

    Raises:
        ValueError: No lengths of time, a window that its overlap fills, or an overlap where nothing overlaps.
    """
    repeated = None if overlap is None else round(_positive(overlap, "overlap", least=0) * frame_rate)
    if window is None:
        if repeated is not None and all(isinstance(text, str) for text in texts):
            raise ValueError(f"overlap is {overlap}, but all is made at once: give window too, or leave overlap out")
        return Windows(None, round(CHANGE * frame_rate) if repeated is None else repeated)
    size = max(1, round(_positive(window, "window") * frame_rate))
    repeated = round(OVERLAP * size) if repeated is None else repeated
    if repeated >= size:
        raise ValueError(f"overlap is {overlap}, window {window}: a window must be longer than what it repeats")
    return Windows(size, repeated)


def _positive(seconds: float | None, name: str, least: float = math.ulp(0.0)) -> float:
    """The number itself, if it is a length of time."""
    if seconds is None or not least <= seconds < math.inf:
        raise ValueError(f"{name} is {seconds}: ask for a positive number{' or 0' if least == 0 else ''}")
    return seconds
