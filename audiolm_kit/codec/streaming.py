"""Codes in as they come, audio out as soon as it is final: decoding at constant memory, the same however it is cut.

A sound goes through the decoder in pieces whose borders depend on their position alone, so that pushing frames one by
one runs the very same computations as pushing them all. Each stage keeps the frames that later pieces still depend on.
B batch, C channels, K codebooks, D latent width, T frames, n frames of one push, m samples that come out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from audiolm_kit.codec.foreign import ForeignCodec
from audiolm_kit.codec.opening import AnyCodec
from audiolm_kit.codec.stage import Stage, State, context, first_piece

FIRST = 0.04
"""Seconds of the first pieces: short, so that sound begins soon."""
LONGEST = 1.0
"""Seconds of the longest pieces: long, so that the stages' borders, which are computed twice, weigh little."""


class StreamingDecoder:
    """Codes in as they come, audio out as soon as it is final; the same samples however the codes are cut into pieces.

    The samples are those of ``codec.decode`` up to rounding (1e-4 of full scale in fp32). What comes out lags by
    ``look_ahead`` frames and by those that do not fill a piece yet: the first pieces are 40 ms long, later ones half of
    what came before them, up to a second. So codes that come 1.5 times as fast as they are heard keep a listener
    supplied, and the whole needs the memory of about a second.

    Usage::

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
        self._windows = [_Window(stage) for stage in stages]
        self.look_ahead = context(stages)[1]
        """Frames that must be known beyond those that are decoded."""
        self._start = first_piece(stages)
        self._taken = 0
        self._waiting: Tensor | None = None
        self._finished = False

    @property
    def held(self) -> int:
        """Numbers in memory: codes that wait for their piece, and all that later samples still depend on."""
        kept = [self._waiting, *(window.held for window in self._windows)]
        return sum(tensor.numel() for tensor in kept if tensor is not None)

    @torch.no_grad()
    def push(self, codes: Tensor) -> Tensor:
        """The next codes [B, K', n] of the first K' <= K codebooks -> the audio that is now final [B, C, m], m >= 0.

        Raises:
            ValueError: after ``finish``; as ``codec.decode``; or another batch or number of codebooks than before.
        """
        self._check_open()
        self.codec.check(codes)
        waiting = codes[..., :0] if self._waiting is None else self._waiting
        if codes.shape[:2] != waiting.shape[:2]:
            raise ValueError(
                f"codes are of shape {list(codes.shape)}, wanted {[*waiting.shape[:2], 'n']} as those before: "
                "decode another batch with another StreamingDecoder"
            )
        waiting = torch.cat([waiting, codes], -1)
        audio: list[Tensor] = []
        while (size := self._next_piece()) <= waiting.shape[-1]:
            audio += self._decode(waiting[..., :size])
            waiting = waiting[..., size:]
        self._waiting = waiting.clone()  # a view would keep all codes of a long push in memory
        return self._joined(audio)

    @torch.no_grad()
    def finish(self) -> Tensor:
        """What is left, [B, C, m]; nothing can be pushed afterwards. Without any push it is [0, C, 0].

        Raises:
            ValueError: it has been called before.
        """
        self._check_open()
        self._finished = True
        return self._joined([] if self._waiting is None else self._decode(self._waiting, last=True))

    def _check_open(self) -> None:
        if self._finished:
            raise ValueError("this StreamingDecoder is finished: make another one for another sound")

    def _next_piece(self) -> int:
        """Frames of the next piece: a function of how many were taken before it."""
        first, longest = (max(1, math.ceil(seconds * self.codec.frame_rate)) for seconds in (FIRST, LONGEST))
        if not self._taken:
            return max(self._start, self.look_ahead + first)
        return min(max((self._taken - self.look_ahead) // 2, first), longest)

    def _decode(self, codes: Tensor, last: bool = False) -> list[Tensor]:
        """A piece [B, K, n] through all stages: [B, C, m], or nothing where nothing is final yet."""
        self._taken += codes.shape[-1]
        frames = self.codec.latents(codes) if codes.shape[-1] else None
        with _repeatable(codes.device):
            for window in self._windows:
                frames = window.push(frames, last)
        return [] if frames is None else [self.codec.with_channels(frames) * self.codec.level]

    def _joined(self, audio: list[Tensor]) -> Tensor:
        """Pieces one after the other, [B, C, m]; m is 0 where there are none."""
        batch = 0 if self._waiting is None else len(self._waiting)
        nothing = next(self.codec.parameters()).new_zeros(batch, self.codec.channels, 0)
        return torch.cat(audio or [nothing], -1)


def _stages(codec: AnyCodec) -> list[Stage]:
    if isinstance(codec, ForeignCodec):
        return codec.stages()
    if codec.config.segments is not None:  # how a sound was cut is known at its end only
        raise ValueError(
            f"a codec of segments ({codec.config.segment} s) cannot decode piece by piece: decode all codes at once"
        )
    return codec.decoder.stages()


class _Window:
    """One stage at work: the frames that it still needs, and its state."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.held: Tensor | None = None
        self.state: State = None

    def push(self, new: Tensor | None, last: bool) -> Tensor | None:
        """The next inputs [B, W, n] -> the outputs that they make final [B, W', m], or None."""
        given = [each for each in (self.held, new) if each is not None]
        if not given:
            return None
        stage, frames, made = self.stage, torch.cat(given, -1), None
        out = 0 if self.held is None else max(0, self.held.shape[-1] * stage.hop - stage.late)
        final = frames.shape[-1] * stage.hop - (0 if last else stage.late)
        if final > out:
            made, self.state = stage.network(frames, self.state)
            made = made[..., out:final]
        self.held = frames[..., max(0, frames.shape[-1] - stage.kept) :].clone()
        return made


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


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """cuDNN chooses algorithms that give the same bits each time; elsewhere they all do."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
