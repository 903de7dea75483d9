"""Codes in as they come and audio out, or audio in and codes out: at constant memory, the same however it is cut.

A sound goes through the network in pieces whose borders depend on their position alone, so that pushing frames one by
one runs the very same computations as pushing them all. Each stage keeps the frames that later pieces still depend on.
B batch, C channels, K codebooks, D latent width, T frames, n frames of one push, m samples that come out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from einops import rearrange
from torch import Tensor

from audiolm_kit.codec.foreign import ForeignCodec
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.opening import AnyCodec
from audiolm_kit.codec.passage import Folded, Joined, Part, Window, numbers, through
from audiolm_kit.codec.seanet import SEANetDecoder, SEANetEncoder, can_fold
from audiolm_kit.codec.stage import Stage, context, first_piece

FIRST = 0.04
"""Seconds of the first pieces: short, so that sound begins soon."""
MANY = 1000
"""Frames, so many that a mirrored beginning no longer counts among what they need."""
LONGEST = 1.0
"""Seconds of the longest pieces: long, so that the stages' borders, which are computed twice, weigh little."""


class _Stream(ABC):
    """What both ways share: a queue in front of parts that remember, and an end."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts
        self._waiting: Tensor | None = None
        self._finished = False

    @property
    def held(self) -> int:
        """Numbers in memory: what waits for its piece, and all that later pieces still depend on."""
        return numbers(self._waiting) + sum(part.held for part in self._parts)

    @torch.no_grad()
    def finish(self) -> Tensor:
        """What is left, [B, ..., m]; nothing can be pushed afterwards. Without any push it is [0, ..., 0].

        Raises:
            ValueError: it has been called before.
        """
        self._check_open()
        self._finished = True
        return self._joined([] if self._waiting is None else self._made(self._waiting, last=True))

    def _check_open(self) -> None:
        if self._finished:
            raise ValueError(f"this {type(self).__name__} is finished: make another one for another sound")

    def _taken_in(self, given: Tensor) -> Tensor:
        """What waits, and ``given`` [B, ..., n] behind it, as far as both fill pieces: what has come out of those."""
        waiting = given if self._waiting is None else torch.cat([self._waiting, given], -1)
        made: list[Tensor] = []
        while (size := self._next_piece()) <= waiting.shape[-1]:
            made += self._made(waiting[..., :size])
            waiting = waiting[..., size:]
        self._waiting = waiting.clone()  # a view would keep all of a long push in memory
        return self._joined(made)

    def _joined(self, made: list[Tensor]) -> Tensor:
        """Pieces one after the other, [B, ..., m]; m is 0 where there are none."""
        return torch.cat(made or [self._nothing(0 if self._waiting is None else len(self._waiting))], -1)

    @abstractmethod
    def _next_piece(self) -> int:
        """How much the next piece is of: a function of what was taken before it."""

    @abstractmethod
    def _made(self, piece: Tensor, last: bool = False) -> list[Tensor]:
        """A piece through all parts, or nothing where nothing is final yet."""

    @abstractmethod
    def _nothing(self, batch: int) -> Tensor:
        """What comes out of nothing, [B, ..., 0]."""


class StreamingDecoder(_Stream):
    """Codes in as they come, audio out as soon as it is final; the same samples however the codes are cut into pieces.

    The samples are those of ``codec.decode`` up to rounding (1e-4 of full scale in fp32). What comes out lags by
    ``look_ahead`` frames and by those that do not fill a piece yet: the first pieces are 40 ms long, later ones half of
    what came before them, up to a second. So codes that come 1.5 times as fast as they are heard keep a listener
    supplied, and the whole needs the memory of about a second.

    Usage:

        decoder = StreamingDecoder(codec)
        for frame in steps:                     # [B, K] each
            play(decoder.push(frame[..., None]))
        play(decoder.finish())

    Raises:
        ValueError: the codec can only decode whole sounds (SEANet with time_group_norm, a codec of segments, or a
            Mimi that is not causal).
    """

    def __init__(self, codec: AnyCodec) -> None:
        self.codec = codec
        stages = _stages(codec)
        self._start = first_piece(stages)
        parts: list[Part] = [Window(stage) for stage in stages]
        if isinstance(codec, NeuralCodec) and isinstance(codec.decoder, SEANetDecoder) and can_fold(codec.decoder):
            folded = Folded(codec.decoder)
            self._start, parts = max(self._start, folded.start), [folded]
        super().__init__(parts)
        self.look_ahead = context(stages)[1]
        """Frames that must be known beyond those that are decoded."""
        self._taken = 0

    @torch.no_grad()
    def push(self, codes: Tensor) -> Tensor:
        """The next codes [B, K', n] of the first K' <= K codebooks -> the audio that is now final [B, C, m], m >= 0.

        Raises:
            ValueError: after ``finish``; as ``codec.decode``; or another batch or number of codebooks than before.
        """
        self._check_open()
        self.codec.check(codes)
        if self._waiting is not None and codes.shape[:2] != self._waiting.shape[:2]:
            raise ValueError(
                f"codes are of shape {list(codes.shape)}, wanted {[*self._waiting.shape[:2], 'n']} as those before: "
                "decode another batch with another StreamingDecoder"
            )
        return self._taken_in(codes)

    def _next_piece(self) -> int:
        """Frames of the next piece: a function of how many were taken before it."""
        first, longest = (max(1, math.ceil(seconds * self.codec.frame_rate)) for seconds in (FIRST, LONGEST))
        if not self._taken:
            return max(self._start, self.look_ahead + first)
        return min(max((self._taken - self.look_ahead) // 2, first), longest)

    def _made(self, codes: Tensor, last: bool = False) -> list[Tensor]:
        """A piece [B, K, n] through all stages: [B, C, m], or nothing where nothing is final yet."""
        self._taken += codes.shape[-1]
        frames = self.codec.latents(codes) if codes.shape[-1] else None
        frames = through(self._parts, frames, last, codes.device)
        return [] if frames is None else [self.codec.with_channels(frames) * self.codec.level]

    def _nothing(self, batch: int) -> Tensor:
        return next(self.codec.parameters()).new_zeros(batch, self.codec.channels, 0)


class StreamingEncoder(_Stream):
    """Audio in as it comes, codes out as soon as they are final; the same codes however the audio is cut into pieces.

    They are those of ``codec.encode``, but where two entries are equally near up to rounding. What comes out lags by
    ``look_ahead`` samples and by those that do not fill a piece yet. Besides, a network that mirrors the beginning of
    a sound must know some of it before its first code (see `SEANetConfig.pad_mode`). Memory is that of a piece.

    Usage:

        encoder = StreamingEncoder(codec)
        for samples in microphone:              # [B, C, n] each, of any n
            send(encoder.push(samples))
        send(encoder.finish())

    Raises:
        ValueError: the codec can only encode whole sounds (one that scales them by their peak or loudness or cuts them
            into segments, SEANet with time_group_norm, codecs of transformers), or ``num_codebooks`` is out of range.
    """

    def __init__(self, codec: AnyCodec, num_codebooks: int | None = None, seconds: float = FIRST) -> None:
        """
        Args:
            num_codebooks: how many codes a frame is given; None for all.
            seconds: of the pieces that audio is encoded in; longer ones lag more and take less work.
        """
        self.codec = _without_scales(codec)
        one = next(self.codec.parameters()).new_zeros(1, self.codec.channels, 1)
        self._count = self.codec.checked(one, num_codebooks)
        parts, self.look_ahead, start = _encoding(self.codec)
        super().__init__(parts)
        frame = self.codec.config.frame
        self._size = max(1, math.ceil(seconds * self.codec.frame_rate)) * frame
        self._start = max(self._size, -(-start // frame) * frame)
        self._begun = False

    @torch.no_grad()
    def push(self, audio: Tensor) -> Tensor:
        """The next samples [B, C, n], n >= 0 -> the codes that are now final [B, K', m], m >= 0.

        Raises:
            ValueError: after ``finish``, another number of channels than the codec's, or another batch than before.
        """
        self._check_open()
        wanted = ["B" if self._waiting is None else len(self._waiting), self.codec.channels, "n"]
        if audio.dim() != 3 or audio.shape[1] != wanted[1] or wanted[0] not in ("B", len(audio)):
            raise ValueError(
                f"audio is of shape {list(audio.shape)}, wanted {wanted}: encode another batch with another "
                "StreamingEncoder"
            )
        return self._taken_in(audio)

    def _next_piece(self) -> int:
        """Samples of the next piece."""
        return self._size if self._begun else self._start

    def _made(self, audio: Tensor, last: bool = False) -> list[Tensor]:
        """A piece [B, C, n], whole frames but for the last, through all parts: [B, K', m], or nothing."""
        self._begun = True
        given = self.codec.body_input(audio) if audio.shape[-1] else None
        latents = through(self._parts, given, last, audio.device)
        return [] if latents is None else [self.codec.codes(latents, self._count)]

    def _nothing(self, batch: int) -> Tensor:
        device = next(self.codec.parameters()).device
        return torch.zeros(batch, self._count, 0, dtype=torch.long, device=device)


def _without_scales(codec: AnyCodec) -> NeuralCodec:
    """The codec, if what it makes of a sound's beginning does not depend on the end."""
    if isinstance(codec, ForeignCodec):
        raise ValueError(f"a {codec.config.kind} of transformers cannot encode piece by piece: encode the whole sound")
    about = codec.config
    if about.segments is not None:
        raise ValueError(
            f"a codec of segments ({about.segment} s) cannot encode piece by piece: encode the whole sound"
        )
    if about.peak or about.normalize:
        by = f"to a peak of {about.peak}" if about.peak else "by its loudness"
        raise ValueError(f"a codec that scales each sound {by} has to hear all of it first: encode the whole sound")
    return codec


def _encoding(codec: NeuralCodec) -> tuple[list[Part], int, int]:
    """An encoder's parts, the samples that it looks ahead, and those that a first piece must have."""
    encoder = codec.encoder
    if isinstance(encoder, SEANetEncoder):
        folded = Folded(encoder)
        return [folded], folded.flow.needed(MANY) - MANY * codec.config.frame, folded.start
    stages, hop = encoder.stages(), encoder.config.hop
    parts: list[Part] = [Joined(lambda audio: rearrange(audio, "b c (s n) -> b (c n) s", n=hop), hop)]
    parts += [Window(stage) for stage in stages]
    parts.append(Joined(encoder.leaves, encoder.config.frames_per_code))
    return parts, context(stages)[1] * hop, 1


def _stages(codec: AnyCodec) -> list[Stage]:
    if isinstance(codec, ForeignCodec):
        return codec.stages()
    if codec.config.segments is not None:  # how a sound was cut is known at its end only
        raise ValueError(
            f"a codec of segments ({codec.config.segment} s) cannot decode piece by piece: decode all codes at once"
        )
    return codec.decoder.stages()


def decode(codec: AnyCodec, codes: Tensor) -> Tensor:
    """Codes [B, K', T] -> audio [B, C, T * hop], bit-equal to any streaming of them through a `StreamingDecoder`.

    No frames give no samples. A codec that can only decode whole sounds does so, and wants at least one frame.

    Raises:
        ValueError: as ``codec.decode``.
    """
    if not codec.can_stream:
        return codec.decode(codes)
    decoder = StreamingDecoder(codec)
    return torch.cat([decoder.push(codes), decoder.finish()], -1)
