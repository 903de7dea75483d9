"""AudioGen's mixing of two clips and their captions, each mixture a pure function of (seed, row, number).

C channels, L samples.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from audiolm_kit import captions
from audiolm_kit.audio import Sound
from audiolm_kit.data.manifest import SILENCE, Row

BLOCK_SECONDS = 0.05  # levels are taken block by block
BOTH = "+"  # between two labels or speakers
Distinct = Literal["row", "caption", "label"]
# Behind seed, row and number, so that no other draw shares the random state: numpy takes (1, 2) and (1, 2, 0) for one.
_MIXTURE, _COIN = 1, 2


@dataclass(frozen=True)
class Mixing:
    """How two clips are mixed (Kreuk et al., 2022; the numbers are those of the released training code)."""

    probability: float = 0.5
    """Share of the items that are mixed on the fly, decided for each; ``tokenize`` counts its mixtures instead."""
    snr_db: tuple[float, float] = (-5.0, 5.0)
    """The first clip's level over the second's is drawn from this range, uniformly."""
    least_overlap: float = 0.5
    """At least this share of the shorter sound is heard together with the longer one."""
    source_db: float = -25.0
    """Level that each clip is brought to first, in dBFS; it cancels out unless ``level_db`` is null."""
    level_db: tuple[float, float] | None = (-35.0, -15.0)
    """The mixture's level is drawn from this range, uniformly; null leaves the sum as it is."""
    peak: float = 0.99
    """A mixture whose loudest sample would pass this is scaled down to it; nothing is ever clipped."""
    gate_db: float = 40.0
    """Blocks of 50 ms that lie further below the loudest one count as silence, and silence counts neither towards a
    level nor as sound. Infinity counts everything, as the paper does: a bark in five seconds of silence then comes out
    12 dB above the rain it is mixed with, or is cut away altogether."""
    joiner: str = " "
    """Stands between the two captions."""
    distinct: Distinct = "row"
    """What the partner must have of its own: ``row`` means any other recording."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is {self.probability}, wanted a share from 0 to 1")
        if not 0 < self.least_overlap <= 1:
            raise ValueError(f"least_overlap is {self.least_overlap}, wanted a share above 0, at most 1")
        for name, bounds in (("snr_db", self.snr_db), ("level_db", self.level_db or (0.0, 0.0))):
            if not (all(map(math.isfinite, bounds)) and bounds[0] <= bounds[1]):
                raise ValueError(f"{name} is {bounds}, wanted two numbers of decibels, the lower one first")
        if not 0 < self.peak <= 1:
            raise ValueError(f"peak is {self.peak}, wanted above 0, at most 1 (full scale)")
        if not self.gate_db > 0:
            raise ValueError(f"gate_db is {self.gate_db}, wanted decibels above 0 (infinity counts silence as sound)")
        if not -50 <= self.source_db <= 0:
            raise ValueError(f"source_db is {self.source_db}, wanted -50 to 0 dBFS")
        if self.distinct not in get_args(Distinct):
            raise ValueError(f"distinct is {self.distinct!r}, wanted row, caption or label")


class Mix(NamedTuple):
    """What is drawn for one mixture."""

    partner: int
    """The row of the second clip."""
    snr_db: float
    place: float
    """Where the second clip lies, from 0 (as early as may be) to 1 (as late as may be)."""
    level_db: float | None
    variants: tuple[int, int]
    """Numbers of the variations (``augment.draw_variation``) that the two clips are heard in."""


class Heard(NamedTuple):
    """What of a clip is sound."""

    level_db: float
    """Root mean square of its sounding blocks, in dBFS."""
    start: int
    """In samples; silence lies before it,"""
    end: int
    """and from here on."""


# --- who with whom ----------------------------------------------------------------------------------------------------


class Partners:
    """Who may be mixed with whom: clips of the same split (none is train), and never a recording with itself.

    Rows of one file whose times overlap are one recording: several captions of one sound, windows that overlap.

    Raises:
        ValueError: a row finds no partner.
    """

    def __init__(self, rows: Sequence[Row], distinct: Distinct = "row") -> None:
        self.rows, self.distinct = rows, distinct
        self._starts = np.array([row.start for row in rows])
        self._ends = np.array([row.start + row.duration for row in rows])
        self._pools = _grouped((_split(row), number) for number, row in enumerate(rows))
        self._files = _grouped(((_split(row), row.path), number) for number, row in enumerate(rows))
        words = [] if distinct == "row" else [((_split(row), self._words(row)), n) for n, row in enumerate(rows)]
        self._alike = _grouped(words)
        for number, row in enumerate(rows):
            self._check(number, row)

    def draw(self, number: int, random: np.random.Generator) -> int:
        """A row that may be mixed with row ``number``, each as likely as the others."""
        pool, barred = self._pools[_split(self.rows[number])], self._barred(number)
        places = np.searchsorted(pool, barred)
        chosen = int(random.integers(len(pool) - len(barred)))
        return int(pool[chosen + np.searchsorted(places - np.arange(len(places)), chosen, side="right")])

    def _barred(self, number: int) -> np.ndarray:
        """The rows that row ``number`` must not be mixed with, in order."""
        row = self.rows[number]
        of_file = self._files[_split(row), row.path]
        overlap = (self._starts[of_file] < self._ends[number]) & (row.start < self._ends[of_file])
        same = of_file[overlap | (of_file == number)]
        if self.distinct == "row":
            return same
        return np.union1d(same, self._alike[_split(row), self._words(row)])

    def _check(self, number: int, row: Row) -> None:
        pool = self._pools[_split(row)]
        barred = len(self._files[_split(row), row.path])
        if self.distinct != "row":
            barred += len(self._alike[_split(row), self._words(row)])
        if barred < len(pool):  # cheap, and true of nearly all
            return
        if len(self._barred(number)) == len(pool):
            shared = "this recording" if self.distinct == "row" else f"this recording or its {self.distinct}"
            raise ValueError(
                f"{row.path} finds no partner to be mixed with: all rows of split {_split(row)!r} ({len(pool)}) are of "
                f"{shared}; give clips that differ, or mix none"
            )

    def _words(self, row: Row) -> str:
        text = row.caption if self.distinct == "caption" else row.label
        return (text or "").strip().casefold()


def _split(row: Row) -> str:
    return row.split or "train"


def _grouped(pairs: Iterable[tuple[Hashable, int]]) -> dict[Hashable, np.ndarray]:
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for key, number in pairs:
        groups[key].append(number)
    return {key: np.array(numbers) for key, numbers in groups.items()}


# --- draws ------------------------------------------------------------------------------------------------------------


def draw_mix(seed: int, row: int, number: int, partners: Partners, mixing: Mixing = Mixing()) -> Mix:
    """The mixture ``number`` of a row: its partner, levels and place; nothing but the arguments decides them."""
    random = np.random.default_rng((seed, row, number, _MIXTURE))
    partner = partners.draw(row, random)
    snr_db = _between(mixing.snr_db, random)
    place = _between((0.0, 1.0), random)
    level_db = None if mixing.level_db is None else _between(mixing.level_db, random)
    first, second = (int(each) for each in random.integers(1, 2**31, size=2))
    return Mix(partner, snr_db, place, level_db, (first, second))


def is_mixed(seed: int, row: int, number: int, probability: float) -> bool:
    """Whether an item is mixed at all, decided by (seed, row, number) alone and so for each item of a batch."""
    return bool(np.random.default_rng((seed, row, number, _COIN)).random() < probability)


def _between(bounds: tuple[float, float], random: np.random.Generator) -> float:
    """Uniform, both bounds included."""
    share = int(random.integers(0, 2**32, endpoint=True)) / 2**32
    return bounds[0] + (bounds[1] - bounds[0]) * share


# --- sounds -----------------------------------------------------------------------------------------------------------


def mix(first: Sound, second: Sound, drawn: Mix, mixing: Mixing = Mixing()) -> Sound:
    """Both sounds in the window of the first, [C, L] and [C, L'] -> [C, L]; neither is written to.

    The window stays, so that mixtures are as long as the dataset's clips and a model's windows cut no second sound off.
    The second is laid where ``partner_offset`` says: what is said of it in the caption can be heard.

    Raises:
        ValueError: sample rates or channels differ, or one of the sounds is silent.
    """
    if first.sample_rate != second.sample_rate or len(first.samples) != len(second.samples):
        raise ValueError(
            f"cannot mix {len(first.samples)} channels at {first.sample_rate} Hz with {len(second.samples)} at "
            f"{second.sample_rate} Hz: bring both to one form with audio.fit"
        )
    here, there = heard(first, mixing.gate_db), heard(second, mixing.gate_db)
    length = first.samples.shape[1]
    offset = partner_offset(here, there, length, mixing.least_overlap, drawn.place)
    placed = F.pad(second.samples, (offset, length - offset - second.samples.shape[1]))  # below 0 it cuts
    mixed = first.samples * _gain(mixing.source_db - here.level_db)
    mixed = mixed + placed * _gain(mixing.source_db - drawn.snr_db - there.level_db)
    if drawn.level_db is not None and not is_silent(mixed):
        mixed = mixed * _gain(drawn.level_db - heard(Sound(mixed, first.sample_rate), mixing.gate_db).level_db)
    loudest = float(mixed.abs().max())
    return Sound(mixed * (mixing.peak / loudest) if loudest > mixing.peak else mixed, first.sample_rate)


def heard(sound: Sound, gate_db: float = Mixing.gate_db) -> Heard:
    """The level of what sounds, and where it begins and ends; measured in blocks of 50 ms.

    Raises:
        ValueError: the sound is silent (its peak is below -60 dBFS).
    """
    samples = sound.samples
    if is_silent(samples):
        raise ValueError("a silent sound cannot be mixed: the caption would tell of what is not heard; leave it out")
    length, block = samples.shape[1], max(1, round(BLOCK_SECONDS * sound.sample_rate))
    energy = F.pad(samples.double().square().mean(0), (0, -length % block)).view(-1, block).sum(1)
    counts = energy.new_full(energy.shape, block)
    counts[-1] -= -length % block
    power = energy / counts
    sounding = power >= power.max() * 10 ** (-gate_db / 10)
    blocks = sounding.nonzero()[:, 0]
    level_db = 10 * math.log10(float(energy[sounding].sum() / counts[sounding].sum()))
    return Heard(level_db, int(blocks[0]) * block, min(length, (int(blocks[-1]) + 1) * block))


def is_silent(samples: Tensor) -> bool:
    """Whether a sound stays below -60 dBFS, as what the manifest's lint leaves out."""
    return samples.numel() == 0 or float(samples.abs().max()) < SILENCE


def partner_offset(first: Heard, second: Heard, window: int, least_overlap: float, place: float) -> int:
    """How many samples the second clip is moved to the right (negative: its beginning is cut), within two bounds.

    Of the shorter of the two sounds, ``least_overlap`` sounds together with the other; and of the second sound (of the
    window, if that is shorter) as much lies within the window. Silence around the sounds does not count.

    Args:
        window: the length of the first clip in samples.
        place: 0 is the earliest such offset, 1 the latest.
    """
    length = second.end - second.start
    together = math.ceil(least_overlap * min(first.end - first.start, length))
    inside = math.ceil(least_overlap * min(window, length))
    earliest = max(first.start + together, inside) - length  # where the second sound begins
    latest = min(first.end - together, window - inside)
    return min(latest, earliest + math.floor(place * (latest - earliest + 1))) - second.start


def _gain(decibels: float) -> float:
    return float(10 ** (decibels / 20))


# --- words ------------------------------------------------------------------------------------------------------------


def mixed_row(first: Row, second: Row, joiner: str = Mixing.joiner) -> Row:
    """The first clip's row with the words of both: captions joined, labels and speakers as ``dog+rain``."""
    return replace(
        first,
        caption=captions.join(first.caption or "", second.caption or "", joiner),
        label=_both(first.label, second.label),
        speaker=_both(first.speaker, second.speaker),
    )


def _both(first: str | None, second: str | None) -> str | None:
    """Both names, or one where they are equal or the other is missing."""
    return f"{first}{BOTH}{second}" if first and second and first != second else first or second
