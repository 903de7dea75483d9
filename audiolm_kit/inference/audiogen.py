"""AudioGen: captions to sound, and sound to its continuation, by one codec and one token language model.

B batch, C channels, L samples, K codebooks, T frames, P prompt frames.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from audiolm_kit import __version__, audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.conditioning import TEXT_MODEL, Context, TextConditioner, text_files
from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.sampling import Sampling

KIND = "AudioGen"
BATCH = 32
"""Items that are generated at once; what comes out does not depend on it."""
SILENCE = 1e-4
"""A root mean square below this (-80 dBFS) says nothing about loudness."""

T = TypeVar("T")


class AudioGen:
    """Text to sound as in Kreuk et al. 2022 (AudioGen) and, with a delay pattern, as in its released models.

    Usage::

        model = AudioGen.load("build/hello/lm")
        [sound] = model.generate(["a high bell rings"], seconds=2, seed=1)
        [longer] = model.continue_([sound], seconds=4)
        audio.write("bell.wav", longer)
    """

    def __init__(self, codec: NeuralCodec, lm: StreamLM, conditioner: TextConditioner | None = None) -> None:
        wanted = (codec.num_codebooks, codec.codebook_size)
        if (lm.config.num_codebooks, lm.config.codebook_size) != wanted:
            raise ValueError(
                f"the model is for {lm.config.num_codebooks} codebooks of {lm.config.codebook_size}, the codec has "
                f"{wanted[0]} of {wanted[1]}: put those together that were trained together"
            )
        if (lm.config.text.kind == "none") != (conditioner is None):
            raise ValueError(f"the model reads text of kind {lm.config.text.kind!r}: give the conditioner of that kind")
        self.codec, self.lm, self.conditioner = codec.eval(), lm.eval(), conditioner
        self.fingerprints = checkpoint.bundle_fingerprints({"codec": codec, "lm": lm}, text_files(conditioner))

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> AudioGen:
        """Open a checkpoint folder that `audiolm-kit fit` has exported.

        Raises:
            FileNotFoundError: the folder or a part of it is missing.
            ValueError: it is no AudioGen checkpoint, it is cut off, or its parts do not belong together.
        """
        folder = Path(folder)
        checkpoint.read_kind(folder, KIND)
        codec = checkpoint.load(NeuralCodec, folder / "codec").to(device)
        lm = checkpoint.load(StreamLM, folder / "lm").to(device)
        text = lm.config.text
        conditioner = TextConditioner.load(text, folder / TEXT_MODEL) if text.kind != "none" else None
        model = cls(codec, lm, conditioner)
        checkpoint.check_bundle(folder, KIND, model.fingerprints)
        return model

    def save(self, folder: str | Path) -> None:
        """Write the checkpoint folder that ``load`` opens, whole or not at all; an earlier one there is replaced.

        Raises:
            ValueError: the folder holds something else.
        """
        checkpoint.save_bundle(folder, KIND, {"codec": self.codec, "lm": self.lm}, text_files(self.conditioner))

    @property
    def sample_rate(self) -> int:
        """Of the sounds that come out, in hertz."""
        return self.codec.sample_rate

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.lm.heads.weight.device

    def generate(
        self,
        texts: Sequence[str],
        seconds: float,
        sampling: Sampling = Sampling(),  # noqa: B008  frozen
        seed: int | Sequence[int] = 0,
    ) -> list[Sound]:
        """One sound for each text; an empty text leaves it to the model.

        Args:
            texts: what is to be heard.
            seconds: the length of each sound.
            seed: item i is drawn with ``seed + i``, or with its own of as many seeds. An item depends on its text and
                seed alone, not on its neighbours.

        Raises:
            ValueError: no text, no positive length, a text for a model without text, or too few seeds.
        """
        texts = _listed(texts, "texts", "caption")
        prompt = torch.zeros(len(texts), self.codec.num_codebooks, 0, dtype=torch.long)
        length, seeds = self._num_samples(seconds), _seeds(seed, len(texts))
        sounds = []
        for first in range(0, len(texts), BATCH):
            rows = slice(first, first + BATCH)
            codes = self._codes(prompt[rows], texts[rows], self._num_frames(length), sampling, seeds[rows])
            sounds += [Sound(samples[:, :length], self.sample_rate) for samples in self._decode(codes)]
        return sounds

    def continue_(
        self,
        prompts: Sequence[Sound],
        seconds: float,
        texts: Sequence[str] | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008  frozen
        seed: int | Sequence[int] = 0,
    ) -> list[Sound]:
        """Each prompt through the codec and on, ``seconds`` in all, as loud as the prompt is.

        Args:
            prompts: of any sample rate and number of channels; what does not fill a frame at their end is left out.
            seconds: the length of the whole, the prompt included.
            texts: one for each prompt, or None to leave it to the prompts.
            seed: as in ``generate``.

        Raises:
            ValueError: a prompt that is shorter than a frame, not shorter than the request, or holds NaN; texts of
                another number than the prompts; and as in ``generate``.
        """
        prompts = _listed(prompts, "prompts", "Sound")
        texts = [""] * len(prompts) if texts is None else _listed(texts, "texts", "caption")
        if len(texts) != len(prompts):
            raise ValueError(f"{len(texts)} texts for {len(prompts)} prompts: give one for each, or none")
        length, seeds = self._num_samples(seconds), _seeds(seed, len(prompts))
        fitted = [self._whole_frames(prompt, length) for prompt in prompts]
        made: dict[int, Sound] = {}
        for places in _alike([samples.shape[1] for samples in fitted]):
            codes = self.codec.encode(torch.stack([fitted[i] for i in places]).to(self.device))
            own_texts, own_seeds = [texts[i] for i in places], [seeds[i] for i in places]
            codes = self._codes(codes, own_texts, self._num_frames(length), sampling, own_seeds)
            for i, samples in zip(places, self._decode(codes), strict=True):
                made[i] = Sound(_as_loud(samples, fitted[i])[:, :length], self.sample_rate)
        return [made[i] for i in range(len(prompts))]

    def sidecar(self, text: str, seconds: float, sampling: Sampling, seed: int, prompt: str = "") -> dict[str, Any]:
        """How a sound was made, to be written beside it: all that it takes to make it again."""
        return {
            "text": text,
            "prompt": prompt,
            "seconds": seconds,
            "seed": seed,
            "sampling": dataclasses.asdict(sampling),
            "fingerprints": self.fingerprints,
            "sample_rate": self.sample_rate,
            "version": __version__,
        }

    # --- inside -------------------------------------------------------------------------------------------------------

    def _codes(self, prompt: Tensor, texts: list[str], num_frames: int, sampling: Sampling, seeds: list[int]) -> Tensor:
        """Continue codes [B, K, P] -> [B, K, T], one batch."""
        return generate(self.lm, prompt.to(self.device), num_frames, sampling, self._context(texts), seeds=seeds)

    @torch.no_grad()
    def _context(self, texts: list[str]) -> Context | None:
        """What the captions mean to the model; None where all are empty, so that guidance costs nothing."""
        if not any(text.strip() for text in texts):
            return None
        if self.conditioner is None:
            raise ValueError("this model was trained without captions: leave the text out")
        return self.lm.condition(self.conditioner.prepare(texts, self.device))

    def _decode(self, codes: Tensor) -> Tensor:
        """Codes [B, K, T] -> audio [B, C, T * hop] on the CPU."""
        return self.codec.decode(codes).float().cpu().clamp(-1, 1)

    def _num_samples(self, seconds: float) -> int:
        """The length that was asked for, L."""
        if not 0 < seconds < float("inf"):
            raise ValueError(f"seconds is {seconds}: ask for a positive number")
        return max(1, round(seconds * self.sample_rate))

    def _num_frames(self, num_samples: int) -> int:
        """The frames that reach that far; in whole numbers, where rounding cannot add one."""
        return -(-num_samples // self.codec.hop)

    def _whole_frames(self, prompt: Sound, num_samples: int) -> Tensor:
        """A prompt as the codec takes it, [C, L].

        A frame that the prompt does not fill would be filled up with silence, and that continued as a pause.
        """
        audio.checked(prompt.samples, "the prompt")
        samples = audio.fit(prompt, self.sample_rate, self.codec.channels).samples
        length, frame = samples.shape[1], self.codec.hop
        given, one, wanted = (f"{count / self.sample_rate:.3f} s" for count in (length, frame, num_samples))
        if length < frame:
            raise ValueError(f"the prompt is {given} long, a frame of the codec {one}: give at least one frame")
        if length >= num_samples:
            raise ValueError(f"the prompt is {given} long, {wanted} were asked for in all: ask for more seconds")
        return samples[:, : length - length % frame]


def _listed(items: Sequence[T], name: str, kind: str) -> list[T]:
    """The items as a list; a lone one, which is a sequence too (of letters, of fields), is refused."""
    if isinstance(items, (str, Sound)) or len(items) == 0:
        given = "empty" if len(items) == 0 else f"a single {kind}"
        raise ValueError(f"{name} is {given}: give a list of at least one {kind}")
    return list(items)


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
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


def _alike(lengths: list[int]) -> Iterator[list[int]]:
    """The places of equal lengths, a batch at a time: prompts are never padded to one another's length."""
    groups: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        groups.setdefault(length, []).append(place)
    for group in groups.values():
        for first in range(0, len(group), BATCH):
            yield group[first : first + BATCH]


def _as_loud(made: Tensor, prompt: Tensor) -> Tensor:
    """Scale a continuation [C, L] so that its beginning is as loud as the prompt; never past full scale.

    A silent prompt has no loudness to follow.
    """
    wanted = prompt.square().mean().sqrt()
    if wanted < SILENCE:
        return made
    beginning = made[:, : prompt.shape[1]].square().mean().sqrt()
    loudest = made.abs().max()
    return made * torch.minimum(wanted / beginning.clamp_min(SILENCE), 1 / loudest.clamp_min(SILENCE))
