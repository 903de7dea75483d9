"""What is asked of AudioLM: recordings as what they say and how they sound, to be continued or said anew.

C channels, L samples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from audiolm_kit.audio import Sound, fit
from audiolm_kit.inference.items import whole_frames
from audiolm_kit.inference.semantics import Track, track_of
from audiolm_kit.inference.streaming import Row
from audiolm_kit.protocols import AudioTokenizer, Codec

TOGETHER = 0.5
"""Recordings to be said anew differ in length: each is made to a multiple of these seconds and cut, so that those of
like lengths go side by side. It depends on a recording's own length alone."""


class Utterance(NamedTuple):
    """One sound that is asked for."""

    seed: int
    length: int | None
    """Samples, the prompt's included; None: without end."""
    track: Track = Track.empty()
    """What it is known to say."""
    prompt: Tensor | None = None
    """``[C, L]`` in whole frames."""
    spoken: bool = False
    """The track says all there is to say."""

    @property
    def lead(self) -> int:
        """Samples of the prompt."""
        return 0 if self.prompt is None else self.prompt.shape[1]

    def num_frames(self, codec: Codec) -> int | None:
        """Frames that it has."""
        return None if self.length is None else -(-self.length // codec.hop)

    def frames_made(self, codec: Codec) -> int | None:
        """Frames that are made for it, see ``TOGETHER``."""
        frames = self.num_frames(codec)
        if frames is None or not self.spoken:
            return frames
        step = max(1, round(TOGETHER * codec.frame_rate))
        return -(-frames // step) * step

    def row(self, codec: Codec) -> Row:
        """Frames of its prompt, and all that are made."""
        return Row(self.lead // codec.hop, self.frames_made(codec))


class Listener(NamedTuple):
    """Both tokenizers, and where they compute."""

    semantic: AudioTokenizer
    codec: Codec
    device: torch.device

    def prompted(self, prompt: Sound, length: int | None, seed: int) -> Utterance:
        """To go on from a prompt, ``length`` samples in all.

        Raises:
            ValueError: as ``items.whole_frames``.
        """
        samples = whole_frames(prompt, self.codec, length)
        seconds = samples.shape[1] / self.codec.sample_rate
        return Utterance(seed, length, track_of(self.semantic, prompt, self.device, seconds), samples)

    def retold(self, sound: Sound, voice: Sound | None, seed: int) -> Utterance:
        """To say what a recording says, behind what the voice has said.

        Raises:
            ValueError: no sound, or a voice that is shorter than a frame.
        """
        track = track_of(self.semantic, sound, self.device)
        length = fit(sound, self.codec.sample_rate, self.codec.channels).samples.shape[1]
        if voice is None:
            return Utterance(seed, length, track, spoken=True)
        before = self.prompted(voice, None, seed)
        both = before.track.joined(track, before.lead / self.codec.sample_rate)
        return before._replace(length=before.lead + length, track=both, spoken=True)
