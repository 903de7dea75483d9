"""A model's own judgement of how well a sound fits a text, for the best of several takes without any other model.

N pairs of a sound and a text, K codebooks, T frames.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from audiolm_kit.audio import Sound
from audiolm_kit.codec.opening import AnyCodec
from audiolm_kit.conditioning import Context, TextConditioner
from audiolm_kit.inference.items import BATCH, whole_frames
from audiolm_kit.lm.model import StreamLM

PIECE = 1500
"""Frames that are read at once, so that memory does not grow with a sound's length."""


class Captioned(Protocol):
    """What judges: an ``AudioGen``."""

    codec: AnyCodec
    lm: StreamLM
    conditioner: TextConditioner | None

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def context(self, texts: list[str]) -> Context | None:
        """What captions mean to it."""


class MutualInformation:
    """How much likelier a sound's codes are with its text than without, in nats a code.

    That is the pointwise mutual information of sound and text under the model. Li et al. 2016 (arXiv:1510.03055) rank
    by it in the place of the likelihood, which prefers what is dull. It asks of a model what guidance asks: to have
    been trained without captions now and then (``context_dropout``). Sounds go through the codec once more, so any
    recording can be judged.

    Usage: ``MutualInformation(model)([sound], ["a dog barks"])``.
    """

    def __init__(self, model: Captioned) -> None:
        """Raises ValueError where the model reads no text."""
        if model.conditioner is None:
            raise ValueError("this model was trained without captions, and cannot judge by them: give another scorer")
        self._model = model

    @torch.no_grad()
    def __call__(self, sounds: list[Sound], texts: list[str]) -> Tensor:
        """The gain of each pair, [N] float32 on the CPU; it does not depend on the others (up to rounding).

        Raises:
            ValueError: not one text for each sound, an empty text, or a sound that is shorter than a frame or holds
                NaN.
        """
        if len(sounds) != len(texts):
            raise ValueError(f"{len(sounds)} sounds for {len(texts)} texts: give one text for each sound")
        if not all(text.strip() for text in texts):
            raise ValueError("a text to score by is empty: give a caption for each sound")
        whole = [whole_frames(sound, self._model.codec, None) for sound in sounds]
        scores = torch.zeros(len(sounds))
        for length in sorted({samples.shape[1] for samples in whole}):
            places = [place for place, samples in enumerate(whole) if samples.shape[1] == length]
            for first in range(0, len(places), BATCH):
                those = places[first : first + BATCH]
                scores[those] = self._gain(torch.stack([whole[i] for i in those]), [texts[i] for i in those])
        return scores

    def _gain(self, samples: Tensor, texts: list[str]) -> Tensor:
        """Of sounds of one length [N, C, L], whole frames."""
        model = self._model
        codes = model.codec.encode(samples.to(model.device))
        context = model.context(texts)
        gain = torch.zeros(len(codes), dtype=torch.double, device=codes.device)
        for piece in codes.split(PIECE, dim=-1):
            heard = torch.ones_like(piece[:, 0], dtype=torch.bool)
            gain += model.lm.log_likelihood(piece, heard, context) - model.lm.log_likelihood(piece, heard)
        return (gain / codes[0].numel()).float().cpu()
