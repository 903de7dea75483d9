"""Who can be asked what a checkpoint computes: our own models, and the protocols that those of other packages keep too.

B batch, C channels, L samples, K codebooks, P prompt frames, T frames, V codebook size.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.opening import AnyCodec
from audiolm_kit.conditioning import TextConditioner, TextInput
from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.official.parts import Parts, conditioner_of

GUIDANCE = 3.0


class Encoded(NamedTuple):
    """What a codec makes of a sound."""

    codes: Tensor  # [B, K, T], segments one after the other
    scales: Tensor | None = None  # [B, segments]


class CodecWitness(Protocol):
    """A codec, whoever's."""

    def encode(self, audio: Tensor) -> Encoded:
        """Audio [B, C, L]."""
        ...

    def decode(self, encoded: Encoded) -> Tensor:
        """Audio [B, C, L], perhaps a little longer than it was."""
        ...


class ModelWitness(Protocol):
    """A language model, whoever's; contents of a ``TextInput`` are those of its own text encoder."""

    attends_padding: bool

    def read(self, texts: list[str]) -> TextInput:
        """Captions, by its own text encoder."""
        ...

    def logits(self, codes: Tensor, text: TextInput | None) -> Tensor:
        """Codes [B, K, T] -> [B, K, T, V], teacher forced."""
        ...

    def continue_(self, prompt: Tensor, num_frames: int, text: TextInput | None) -> Tensor:
        """Codes [B, K, P] -> [B, K, T], the likeliest ones under guidance."""
        ...


class Witness(NamedTuple):
    """All that a checkpoint computes."""

    by: str
    """Whose code runs."""
    codec: CodecWitness
    model: ModelWitness | None = None


class OurCodec:
    """A codec of ours, or one that stands behind our protocol."""

    def __init__(self, codec: AnyCodec) -> None:
        self._codec = codec

    def encode(self, audio: Tensor) -> Encoded:
        """As the protocol."""
        if not isinstance(self._codec, NeuralCodec):
            return Encoded(self._codec.encode(audio))
        codes, scales = self._codec.encode_scaled(audio)
        return Encoded(codes, scales if self._codec.config.normalize else None)

    def decode(self, encoded: Encoded) -> Tensor:
        """As the protocol."""
        if not isinstance(self._codec, NeuralCodec) or encoded.scales is None:
            return self._codec.decode(encoded.codes)
        return self._codec.decode(encoded.codes, encoded.scales)


class OurModel:
    """A language model of ours; what reads its captions is loaded when it is asked for."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._conditioner: TextConditioner | None = None
        self.attends_padding = parts.lm.config.transformer.attend_padding

    def read(self, texts: list[str]) -> TextInput:
        """As the protocol.

        Raises:
            FileNotFoundError: there is no such T5.
            ValueError: the model reads no captions, or not such.
        """
        self._conditioner = self._conditioner or conditioner_of(self._parts)
        if self._conditioner is None:
            raise ValueError("the model reads no captions")
        return self._conditioner.prepare(texts)

    @torch.no_grad()
    def logits(self, codes: Tensor, text: TextInput | None) -> Tensor:
        """As the protocol."""
        lm = self._parts.lm
        logits: Tensor = lm(codes, None if text is None else lm.condition(text))
        return logits

    @torch.no_grad()
    def continue_(self, prompt: Tensor, num_frames: int, text: TextInput | None) -> Tensor:
        """As the protocol."""
        lm = self._parts.lm
        sampling = Sampling(temperature=0.0, guidance_scale=GUIDANCE)
        return generate(lm, prompt, num_frames, sampling, None if text is None else lm.condition(text))


def ours(made: Parts | AnyCodec) -> Witness:
    """Our own code on what was read."""
    if isinstance(made, Parts):
        return Witness("audiolm_kit", OurCodec(made.codec), OurModel(made))
    return Witness("audiolm_kit", OurCodec(made))
