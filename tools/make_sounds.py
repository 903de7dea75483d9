"""Make a small captioned set of sounds from a seed: sirens, bells, rain, clicks, birds, an engine, beeps and wind.

    python tools/make_sounds.py OUTPUT --count 600 --seconds 2 --sample-rate 16000 --seed 0

writes OUTPUT/sounds/*.flac and, once every sound is there, OUTPUT/manifest.jsonl. A clip is a function of (seed, index)
alone, so a larger set begins with the smaller one. Shapes: waveforms are [L] float64 until they are written; L samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from audiolm_kit.audio import Sound, write
from audiolm_kit.data.manifest import Row, write_manifest

Wave = NDArray[np.float64]

PEAK = (0.35, 0.85)
"""The range of a clip's highest sample."""

ROOM = 4e-3
"""Level of the faint noise under every clip: a recording is never digitally silent."""


class Clock(NamedTuple):
    """When a clip's samples are taken."""

    times: Wave
    sample_rate: int

    @property
    def seconds(self) -> float:
        return len(self.times) / self.sample_rate


Recipe = Callable[[Generator, Clock], Wave]


# --- building blocks --------------------------------------------------------------------------------------------------


def tone(frequency: Wave | float, clock: Clock, harmonics: tuple[float, ...] = (1.0,)) -> Wave:
    """A tone whose frequency in Hz may move, with the amplitudes of its harmonics; none above Nyquist sounds."""
    frequency = np.broadcast_to(np.asarray(frequency, dtype=np.float64), clock.times.shape)
    phase = 2 * np.pi * np.cumsum(frequency) / clock.sample_rate
    wave = np.zeros_like(clock.times)
    for number, amplitude in enumerate(harmonics, start=1):
        audible = number * frequency < 0.45 * clock.sample_rate
        wave += amplitude * audible * np.sin(number * phase)
    return wave


def coloured_noise(rng: Generator, clock: Clock, gain: Callable[[Wave], Wave]) -> Wave:
    """Gaussian noise of unit level whose spectrum follows ``gain`` (Hz -> amplitude)."""
    spectrum = np.fft.rfft(rng.standard_normal(len(clock.times)))
    frequencies: Wave = np.fft.rfftfreq(len(clock.times), 1 / clock.sample_rate).astype(np.float64)
    wave: Wave = np.fft.irfft(spectrum * gain(frequencies), n=len(clock.times))
    return wave / float(np.sqrt(np.mean(wave**2)) + 1e-12)


def band(low: float, high: float) -> Callable[[Wave], Wave]:
    """A band-pass response with slopes of 12 dB per octave."""
    return lambda hertz: 1 / ((1 + (hertz / high) ** 2) * (1 + (low / np.maximum(hertz, 1.0)) ** 2))


def since(clock: Clock, start: float) -> Wave:
    """Seconds since ``start``; before it, infinity, where every decay is zero."""
    elapsed = clock.times - start
    return np.where(elapsed >= 0, elapsed, np.inf)


def decay(elapsed: Wave, seconds: float, attack: float = 0.001) -> Wave:
    """An exponential decay by ``seconds`` per e-fold after a short linear attack; zero before it starts."""
    return np.exp(-elapsed / seconds) * np.minimum(elapsed / attack, 1.0)


def ringing(elapsed: Wave, frequency: float, seconds: float) -> Wave:
    """A struck resonance: a decaying sine; zero before it starts."""
    phase = np.where(np.isfinite(elapsed), 2 * np.pi * frequency * elapsed, 0.0)
    return decay(elapsed, seconds) * np.sin(phase)


def beats(rng: Generator, clock: Clock, per_second: float, jitter: float = 0.0) -> list[float]:
    """Onset times at a tempo from a random first beat on, each moved by up to ``jitter`` of a period."""
    period = 1 / per_second
    first = rng.uniform(0.0, 0.5) * period
    times = np.arange(first, clock.seconds - 0.02, period)
    return [float(time) for time in np.maximum(0, times + rng.uniform(-jitter, jitter, len(times)) * period)]


# --- sounds -----------------------------------------------------------------------------------------------------------

HORN = (1.0, 0.45, 0.35, 0.15, 0.1)


def siren(turns: Callable[[Generator, Wave], Wave]) -> Recipe:
    """A horn whose pitch follows ``turns`` ([L] in 0..1 -> height in 0..1) over a bit more than an octave."""

    def make(rng: Generator, clock: Clock) -> Wave:
        low, octaves = rng.uniform(380, 560), rng.uniform(1.0, 1.4)
        height = turns(rng, clock.times / clock.seconds)
        return tone(low * 2 ** (octaves * height), clock, HORN)

    return make


def rise(rng: Generator, progress: Wave) -> Wave:
    """From the bottom to the top once."""
    return progress


def fall(rng: Generator, progress: Wave) -> Wave:
    """From the top to the bottom once."""
    return 1 - progress


def wail(rng: Generator, progress: Wave) -> Wave:
    """Up and down three to five times."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * (rng.uniform(3.0, 5.0) * progress + rng.uniform()))


BELL_PARTIALS = (
    (0.5, 0.35, 1.0),
    (1.0, 1.0, 0.8),
    (1.19, 0.6, 0.6),
    (1.56, 0.4, 0.45),
    (2.0, 0.7, 0.4),
    (2.74, 0.35, 0.25),
)
"""Ratio to the strike note, amplitude, relative ringing time: hum, prime, minor third, fifth, nominal, one above."""


def bell(low: float, high: float, seconds: float) -> Recipe:
    """One or two strikes of a bell with a strike note between ``low`` and ``high`` Hz and inharmonic partials."""

    def make(rng: Generator, clock: Clock) -> Wave:
        note, ring = rng.uniform(low, high), seconds * rng.uniform(0.8, 1.25)
        strikes = [rng.uniform(0.02, 0.2)] + [rng.uniform(0.45, 0.6) * clock.seconds] * int(rng.integers(0, 2))
        wave = np.zeros_like(clock.times)
        for strike in strikes:
            elapsed = since(clock, strike)
            for ratio, amplitude, share in BELL_PARTIALS:
                if ratio * note < 0.45 * clock.sample_rate:
                    wave += amplitude * rng.uniform(0.7, 1.3) * ringing(elapsed, ratio * note, share * ring)
        return wave

    return make


def rain(drops_per_second: tuple[float, float], hiss: float, lowest: float) -> Recipe:
    """A hiss with separate drops on it: few on little hiss is light rain, drops drowned in hiss are heavy rain."""

    def make(rng: Generator, clock: Clock) -> Wave:
        wave = hiss * rng.uniform(0.75, 1.25) * coloured_noise(rng, clock, band(lowest, 7000))
        for _ in range(rng.poisson(rng.uniform(*drops_per_second) * clock.seconds)):
            elapsed = since(clock, rng.uniform(0, clock.seconds))
            wave += rng.uniform(0.3, 1.0) * ringing(elapsed, rng.uniform(2000, 4500), rng.uniform(0.004, 0.010))
        return wave

    return make


def clicks(slowest: float, fastest: float) -> Recipe:
    """Dry wooden clicks at a steady tempo between ``slowest`` and ``fastest`` per second."""

    def make(rng: Generator, clock: Clock) -> Wave:
        wood, wave = rng.uniform(900, 1500), np.zeros_like(clock.times)
        for beat in beats(rng, clock, rng.uniform(slowest, fastest), jitter=0.02):
            elapsed = since(clock, beat)
            snap = coloured_noise(rng, clock, band(800, 6000)) * decay(elapsed, 0.003)
            wave += rng.uniform(0.8, 1.0) * (0.5 * snap + ringing(elapsed, wood, 0.008))
        return wave

    return make


def bird(rng: Generator, clock: Clock) -> Wave:
    """Short whistles around 3-5 kHz that swoop down or up, three to six a second."""
    top, swoop = rng.uniform(3200, 4800), rng.choice([-0.5, 0.5])
    length, wave = rng.uniform(0.07, 0.12), np.zeros_like(clock.times)
    for beat in beats(rng, clock, rng.uniform(3.0, 5.5), jitter=0.08):
        inside = np.clip((clock.times - beat) / length, 0.0, 1.0)
        pitch = top * rng.uniform(0.93, 1.07) * 2 ** (swoop * inside)
        wave += np.sin(np.pi * inside) ** 2 * tone(pitch, clock, (1.0, 0.08))
    return wave


def engine(rng: Generator, clock: Clock) -> Wave:
    """A low throb of many harmonics that wavers a little, over a rumble."""
    firing = rng.uniform(45, 80)
    wavering = firing * (1 + 0.03 * np.sin(2 * np.pi * rng.uniform(0.4, 1.2) * clock.times + rng.uniform(0, 2 * np.pi)))
    throb = tone(wavering, clock, tuple(1 / number for number in range(1, 13)))
    return throb + 0.25 * coloured_noise(rng, clock, band(40, 300))


def beeps(rng: Generator, clock: Clock) -> Wave:
    """The same pure note on and off, two to three and a half times a second."""
    period, note = 1 / rng.uniform(2.0, 3.5), rng.uniform(900, 1300)
    position = np.mod(clock.times + rng.uniform(0, period), period) / period
    gate = np.clip(np.minimum(position, 0.5 - position) * period / 0.005, 0.0, 1.0)
    return gate * tone(note, clock)


def wind(rng: Generator, clock: Clock) -> Wave:
    """Low noise that swells and sinks, its colour rising with its strength."""
    speed, phase = rng.uniform(0.5, 1.0), rng.uniform(0, 2 * np.pi)
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * speed * clock.times + phase)
    calm, gust = coloured_noise(rng, clock, band(80, 250)), coloured_noise(rng, clock, band(350, 700))
    return (0.3 + 0.7 * swell) * ((1 - swell) * calm + swell * gust)


@dataclass(frozen=True)
class Kind:
    """One class of sounds."""

    label: str
    captions: tuple[str, ...]
    make: Recipe


KINDS = (
    Kind("rising_siren", ("a siren rises", "a rising siren", "a siren goes up"), siren(rise)),
    Kind("falling_siren", ("a siren falls", "a falling siren", "a siren goes down"), siren(fall)),
    Kind("wailing_siren", ("a siren wails", "a wailing siren", "a siren goes up and down"), siren(wail)),
    Kind("high_bell", ("a high bell rings", "a small bright bell", "a high bell is struck"), bell(900, 1250, 0.45)),
    Kind("low_bell", ("a low bell rings", "a big deep bell", "a low bell is struck"), bell(220, 320, 0.7)),
    Kind("light_rain", ("light rain falls", "a few drops of rain", "light rain"), rain((10, 18), 0.015, 1500)),
    Kind("heavy_rain", ("heavy rain falls", "a downpour of rain", "heavy rain"), rain((30, 50), 0.65, 1000)),
    Kind("slow_clicks", ("slow clicks", "something clicks slowly", "a slow steady clicking"), clicks(1.8, 2.6)),
    Kind("fast_clicks", ("fast clicks", "something clicks quickly", "a fast steady clicking"), clicks(8.0, 12.0)),
    Kind("bird", ("a bird chirps", "a small bird sings", "a chirping bird"), bird),
    Kind("engine", ("an engine hums", "a low engine runs", "a humming engine"), engine),
    Kind("beeps", ("an alarm beeps", "a beeping alarm", "short beeps"), beeps),
    Kind("wind", ("wind blows", "a gusty wind", "the wind howls"), wind),
)


# --- clips ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SoundSet:
    """What to make."""

    count: int
    seconds: float = 2.0
    sample_rate: int = 16000
    seed: int = 0
    suffix: str = ".flac"

    def __post_init__(self) -> None:
        if self.count < 1 or not 0.5 <= self.seconds <= 600 or self.sample_rate < 8000 or self.seed < 0:
            raise ValueError(
                f"count {self.count}, seconds {self.seconds}, sample rate {self.sample_rate}, seed {self.seed} given: "
                "take a count of 1 or more, 0.5 to 600 s, at least 8000 Hz and a seed of 0 or more"
            )


class Clip(NamedTuple):
    """One sound and what is known of it."""

    sound: Sound
    label: str
    caption: str
    split: str


def make_clip(index: int, wanted: SoundSet) -> Clip:
    """The clip at ``index`` of the set: kinds take turns, one clip in eight is for validation, in every kind."""
    turn, place = divmod(index, len(KINDS))
    kind = KINDS[place]
    rng = np.random.default_rng([wanted.seed, index])
    caption = kind.captions[turn % len(kind.captions)]
    clock = Clock(np.arange(round(wanted.seconds * wanted.sample_rate)) / wanted.sample_rate, wanted.sample_rate)
    wave = kind.make(rng, clock)
    # The ends are faded over 5 ms: a siren cut off in mid-swing would click.
    edge = np.minimum(clock.times, clock.times[::-1]) / 0.005
    wave = wave * np.clip(edge, 0.0, 1.0)
    wave = wave * rng.uniform(*PEAK) / np.abs(wave).max() + ROOM * rng.standard_normal(len(wave))
    sound = Sound(torch.from_numpy(wave).float()[None], wanted.sample_rate)
    return Clip(sound, kind.label, caption, "valid" if (turn + place) % 8 == 7 else "train")


def make_set(folder: Path, wanted: SoundSet) -> Path:
    """Write the sounds, then the manifest that names them; the manifest's path."""
    (folder / "sounds").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(wanted.count):
        clip = make_clip(index, wanted)
        path = folder / "sounds" / f"{index:05d}_{clip.label}{wanted.suffix}"
        write(path, clip.sound)
        duration = clip.sound.samples.shape[-1] / wanted.sample_rate
        rows.append(Row(str(path.resolve()), duration, caption=clip.caption, label=clip.label, split=clip.split))
    manifest = folder / "manifest.jsonl"
    write_manifest(manifest, rows)
    return manifest


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and make the set."""
    parser = argparse.ArgumentParser(
        description="Make a small captioned set of sounds from a seed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("output", type=Path, help="folder for sounds/ and manifest.jsonl")
    parser.add_argument("--count", type=int, default=600, help="number of clips")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a clip")
    parser.add_argument("--sample-rate", type=int, default=16000, help="in Hz")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another set")
    parser.add_argument("--format", choices=("flac", "wav"), default="flac", help="of the sound files")
    options = parser.parse_args(arguments)
    try:
        wanted = SoundSet(options.count, options.seconds, options.sample_rate, options.seed, f".{options.format}")
        manifest = make_set(options.output, wanted)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{wanted.count} sounds of {len(KINDS)} kinds: {manifest}")


if __name__ == "__main__":
    main()
