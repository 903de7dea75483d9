"""AudioGen: captions to sound, and sound to its continuation, by one codec and one token language model.

B batch, C channels, L samples, K codebooks, T frames, P prompt frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiolm_kit import __version__, audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.conditioning import Context, TextConditioner
from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.sampling import Sampling

KIND = "AudioGen"
TEXT_MODEL = "text.model"
BATCH = 32
"""Items that are generated at once; what comes out does not depend on it."""


class AudioGen:
    """Text to sound as in Kreuk et al. 2022 (AudioGen) and, with a delay pattern, as in its released models.

    Usage::

        model = AudioGen.load("build/hello/lm")
        [sound] = model.generate(["a high bell rings"], seconds=2, seed=1)
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
        self.fingerprints = {"codec": checkpoint.fingerprint(codec), "lm": checkpoint.fingerprint(lm)}

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> AudioGen:
        """Open a checkpoint folder that `audiolm-kit fit` has exported.

        Raises:
            FileNotFoundError: the folder or a part of it is missing.
            ValueError: it is no AudioGen checkpoint, it is cut off, or its parts do not belong together.
        """
        folder = Path(folder)
        about = checkpoint.read_kind(folder, KIND)
        codec = checkpoint.load(NeuralCodec, folder / "codec").to(device)
        lm = checkpoint.load(StreamLM, folder / "lm").to(device)
        text = lm.config.text
        conditioner = TextConditioner.load(text, folder / TEXT_MODEL) if text.kind != "none" else None
        model = cls(codec, lm, conditioner)
        for part, expected in about.get("fingerprints", {}).items():
            if model.fingerprints.get(part) != expected:
                raise ValueError(
                    f"{folder / part} is not what the checkpoint was made of (fingerprint {model.fingerprints.get(part)}, "
                    f"wanted {expected}): copy the whole folder again"
                )
        return model

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
            seconds: of each sound, to the next whole frame of the codec.
            seed: item i is drawn with ``seed + i``, or with its own of as many seeds. An item depends on its text and
                seed alone, not on its neighbours.

        Raises:
            ValueError: no text, not a positive length, texts for a model without text, or too few seeds.
        """
        if not texts or isinstance(texts, str):
            raise ValueError(f"texts are {texts!r}: give a list of at least one caption")
        prompt = torch.zeros(len(texts), self.codec.num_codebooks, 0, dtype=torch.long)
        codes = self._continue_codes(prompt, list(texts), self._num_frames(seconds), sampling, seed)
        return [self._cut(Sound(decoded, self.sample_rate), seconds) for decoded in self._decode(codes)]

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
            prompts: any sample rate and channels; what does not fill a whole frame at the end is left out.
            seconds: of the whole, the prompt included.
            texts: one for each prompt, or None to leave it to the prompts.
            seed: as in ``generate``.

        Raises:
            ValueError: an empty or silent-free prompt that is no sound (NaN), one shorter than a frame or longer than
                the request, or as many texts as there are not prompts.
        """
        if not prompts or isinstance(prompts, Sound):
            raise ValueError("prompts: give a list of at least one Sound")
        texts = [""] * len(prompts) if texts is None else list(texts)
        if len(texts) != len(prompts):
            raise ValueError(f"{len(texts)} texts for {len(prompts)} prompts: give one for each, or none")
        seeds = _seeds(seed, len(prompts))
        made: dict[int, Sound] = {}
        fitted = [self._whole_frames(prompt, seconds) for prompt in prompts]
        for places in _alike([sound.samples.shape[1] for sound in fitted]):
            prompt = self.codec.encode(torch.stack([fitted[i].samples for i in places]).to(self.device)).cpu()
            chosen = [texts[i] for i in places], self._num_frames(seconds), sampling, [seeds[i] for i in places]
            for i, decoded in zip(places, self._decode(self._continue_codes(prompt, *chosen)), strict=True):
                made[i] = self._cut(_as_loud(Sound(decoded, self.sample_rate), fitted[i]), seconds)
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

    def _continue_codes(
        self, prompt: Tensor, texts: list[str], num_frames: int, sampling: Sampling, seed: int | Sequence[int]
    ) -> Tensor:
        """Codes [B, K, P] -> [B, K, T], in batches."""
        seeds = _seeds(seed, len(texts))
        parts = []
        for first in range(0, len(texts), BATCH):
            rows = slice(first, first + BATCH)
            given, context = prompt[rows].to(self.device), self._context(texts[rows])
            parts.append(generate(self.lm, given, num_frames, sampling, context, seeds=seeds[rows]))
        return torch.cat(parts)

    @torch.no_grad()
    def _context(self, texts: list[str]) -> Context | None:
        """What the captions mean to the model; None where all are empty, so that guidance costs nothing."""
        if not any(text.strip() for text in texts):
            return None
        if self.conditioner is None:
            raise ValueError("this model was trained without captions: leave the text out")
        return self.lm.condition(self.conditioner.prepare(texts, self.device))

    def _decode(self, codes: Tensor) -> list[Tensor]:
        """Codes [B, K, T] -> B sounds [C, L], in batches, on the CPU."""
        parts = [self.codec.decode(each.to(self.device)).float().cpu() for each in codes.split(BATCH)]
        return list(torch.cat(parts).clamp(-1, 1))

    def _num_frames(self, seconds: float) -> int:
        """How many frames reach that far."""
        if not 0 < seconds < float("inf"):
            raise ValueError(f"seconds is {seconds}: ask for a positive number")
        return max(1, -int(-seconds * self.codec.frame_rate // 1))

    def _cut(self, sound: Sound, seconds: float) -> Sound:
        """Without what the last frame has beyond the request."""
        return sound._replace(samples=sound.samples[:, : max(1, round(seconds * self.sample_rate))])

    def _whole_frames(self, prompt: Sound, seconds: float) -> Sound:
        """A prompt as the codec takes it: a silence that fills up its last frame would be continued as a pause."""
        sound = audio.fit(prompt, self.codec.sample_rate, self.codec.channels)
        frames = sound.samples.shape[1] // self.codec.hop
        length = sound.samples.shape[1] / self.sample_rate
        if not frames:
            raise ValueError(f"the prompt is {length:.3f} s long: give at least one frame, {1 / self.codec.frame_rate:.3f} s")
        if frames >= self._num_frames(seconds):
            raise ValueError(f"the prompt is {length:.2f} s long, {seconds} s in all were asked for: ask for more seconds")
        return Sound(sound.samples[:, : frames * self.codec.hop], sound.sample_rate)


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """One seed for each item."""
    if isinstance(seed, int):
        return [seed + i for i in range(count)]
    if len(seed) != count:
        raise ValueError(f"{len(seed)} seeds for {count} items: give one for each, or a single one")
    return list(seed)


def _alike(lengths: list[int]) -> list[list[int]]:
    """The places of equal lengths: prompts are batched with prompts of their length, never padded."""
    groups: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        groups.setdefault(length, []).append(place)
    return list(groups.values())


def _as_loud(made: Sound, prompt: Sound) -> Sound:
    """Scale a continuation so that its beginning is as loud as the prompt it begins with; never past full scale."""
    beginning = made.samples[:, : prompt.samples.shape[1]].square().mean().sqrt()
    gain = prompt.samples.square().mean().sqrt() / beginning.clamp_min(1e-4)
    loudest = made.samples.abs().max().clamp_min(1e-4)
    return made._replace(samples=made.samples * torch.minimum(gain, 1 / loudest))
