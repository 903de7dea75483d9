"""AudioGen: captions to sound, and sound to its continuation, by one codec and one token language model.

B batch, C channels, L samples, K codebooks, P prompt frames.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiolm_kit import __version__, checkpoint, hub
from audiolm_kit.audio import Sound
from audiolm_kit.codec.opening import AnyCodec, open_codec
from audiolm_kit.conditioning import Context, TextConditioner, text_files, text_folders
from audiolm_kit.evaluation.contrastive import SCORER, ContrastiveScorer
from audiolm_kit.evaluation.perceptual import Scorer
from audiolm_kit.inference.candidates import Choice, best_of_items, judge_of
from audiolm_kit.inference.items import (
    Item,
    Text,
    batches,
    groups,
    length_of,
    lengths_of,
    listed,
    negatives_of,
    samples_of,
    seeds_of,
    whole_frames,
    windows_of,
)
from audiolm_kit.inference.precision import Dtype, Precision, told
from audiolm_kit.inference.prompts import prompted
from audiolm_kit.inference.streaming import Request, Row, Section, Windows, chunks, codes, regrouped, sound
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.packed import How
from audiolm_kit.lm.quantize import refuse_quantized
from audiolm_kit.lm.sampling import Sampling

KIND = "AudioGen"


class AudioGen:
    """Text to sound as in Kreuk et al. 2022 (AudioGen) and, with a delay pattern, as in its released models.

    Usage:

        model = AudioGen.load("build/hello/lm")
        [sound] = model.generate(["a high bell rings"], seconds=2, seed=1)
        [longer] = model.continue_([sound], seconds=4)
        audio.write("bell.wav", longer)
        for chunk in model.stream("heavy rain falls", seconds=60, window=2):
            play(chunk.samples)
    """

    def __init__(
        self,
        codec: AnyCodec,
        lm: StreamLM,
        conditioner: TextConditioner | None = None,
        scorer: ContrastiveScorer | None = None,
    ) -> None:
        """Put together what belongs together; a scorer chooses among ``candidates`` where no other is named."""
        wanted = (codec.num_codebooks, codec.codebook_size)
        if (lm.config.num_codebooks, lm.config.codebook_size) != wanted:
            raise ValueError(
                f"the model is for {lm.config.num_codebooks} codebooks of {lm.config.codebook_size}, the codec has "
                f"{wanted[0]} of {wanted[1]}: put those together that were trained together"
            )
        if (lm.config.text.kind == "none") != (conditioner is None):
            raise ValueError(f"the model reads text of kind {lm.config.text.kind!r}: give the conditioner of that kind")
        if scorer is not None and (conditioner is None or scorer.folder is None):
            what = "reads no text" if conditioner is None else "would copy its folder, and it has none"
            raise ValueError(f"the model cannot bring a scorer: it {what}; give it to generate")
        self.codec, self.lm, self.conditioner, self.scorer = codec.eval(), lm.eval(), conditioner, scorer
        self.fingerprints = checkpoint.bundle_fingerprints(
            {"codec": codec, "lm": lm}, text_files(conditioner), self._folders
        )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "cpu",
        *,
        dtype: Dtype | None = "float32",
        quantize: How | None = None,
        compile: bool = False,
        frozen: bool = False,
    ) -> AudioGen:
        """Open a checkpoint folder that `fit` exported or `import` made, or one of the hub by name, ``owner/model``.

        Args:
            dtype: of the language model; None is the fastest that is safe on the device. The codec stays in float32.
            quantize: the language model's matrices as whole numbers, int8 or int4, rounded while it is opened.
            compile: the step of each frame, which takes a while at first; for GPUs.
            frozen: nothing will be learned any more: on a CPU, float32 matrices are laid out for making sound.

        Raises:
            FileNotFoundError: the folder or a part of it is missing.
            ValueError: it is no AudioGen checkpoint, it is cut off, or its parts do not belong together; or another
                dtype or quantize than these.
        """
        precision = Precision(dtype, quantize, compile, frozen)
        folder = hub.checkpoint(folder)
        checkpoint.read_kind(folder, KIND)
        codec = open_codec(folder / "codec").to(device)
        lm = checkpoint.load(StreamLM, folder / "lm")
        text = lm.config.text
        conditioner = TextConditioner.load(text, folder) if text.kind != "none" else None
        brings = (folder / SCORER).is_dir()
        model = cls(codec, lm, conditioner, ContrastiveScorer.load(folder / SCORER, device) if brings else None)
        checkpoint.check_bundle(folder, KIND, model.fingerprints)  # of the weights as they are stored
        precision.put(lm, device)
        return model

    def save(self, folder: str | Path) -> None:
        """Write the checkpoint folder that ``load`` opens, whole or not at all; an earlier one there is replaced.

        Raises:
            FileNotFoundError: the T5 that the checkpoint brought was moved or deleted since.
            ValueError: the folder holds something else, or the model is quantised.
        """
        refuse_quantized(self.lm)
        parts, texts = {"codec": self.codec, "lm": self.lm}, self.conditioner
        checkpoint.save_bundle(folder, KIND, parts, text_files(texts), folders=self._folders)

    @property
    def _folders(self) -> dict[str, Path]:
        """What its checkpoint holds beside its parts, copied whole: a T5, a scorer."""
        brought = self.scorer.folder if self.scorer is not None else None
        return text_folders(self.conditioner) | ({} if brought is None else {SCORER: brought})

    @property
    def sample_rate(self) -> int:
        """Of the sounds that come out, in hertz."""
        return self.codec.sample_rate

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.lm.embedding.weight.device

    def generate(
        self,
        texts: Sequence[Text],
        seconds: float | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008  frozen
        seed: int | Sequence[int] = 0,
        *,
        negative: str | Sequence[str] = "",
        window: float | None = None,
        overlap: float | None = None,
        candidates: int = 1,
        scorer: Scorer | str | None = None,
    ) -> list[Sound]:
        """One sound for each text; an empty text leaves it to the model.

        Args:
            texts: what is to be heard. Lines in the place of a text, ``["0-4: rain", "4-8: rain and a dog"]``, are a
                timeline: one sound whose text changes at those times (``inference.timeline``).
            seconds: the length of each sound; None for timelines that say it themselves.
            seed: item i is drawn with ``seed + i``, or with its own of as many seeds. An item depends on its text and
                seed alone, not on its neighbours.
            negative: what is not to be heard: guidance leads from there to the text; one for all, or one for each.
            window: seconds that are made at once; a longer sound is made window after window, of which the first is
                what it would be alone. None makes all at once, however long.
            overlap: seconds at the end of a window that the next one begins with; None for 0.3 of a window or, where a
                timeline changes without windows, for 1 s. It belongs to the window's seconds.
            candidates: how many are made for each text; the best of them is kept, see ``best_of``.
            scorer: what judges them: "self" the model itself (``MutualInformation``), or the name or folder of a CLAP,
                or any function of sounds and texts (``Scorer``). None is the scorer that the model brings.

        Raises:
            ValueError: no text, no positive length, a text for a model without text, too few seeds or negatives, an
                overlap that leaves a window nothing to make, or candidates without a scorer.
        """
        if scorer is not None or candidates != 1:
            choices = self.best_of(
                texts,
                seconds,
                sampling,
                seed,
                candidates=candidates,
                scorer=scorer,
                negative=negative,
                window=window,
                overlap=overlap,
            )
            return [choice.sound for choice in choices]
        items = self._items(texts, seconds, seed, negative)
        return self._made(items, sampling, windows_of(window, overlap, texts, self.codec.frame_rate))

    def best_of(
        self,
        texts: Sequence[Text],
        seconds: float | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008  frozen
        seed: int | Sequence[int] = 0,
        *,
        candidates: int,
        scorer: Scorer | str | None = None,
        negative: str | Sequence[str] = "",
        window: float | None = None,
        overlap: float | None = None,
    ) -> list[Choice]:
        """For each text the candidate with the highest score, with its seed and the scores of all.

        The first candidate is what ``generate`` makes; each can be made again from its seed.

        Args:
            texts: as in ``generate``, and so is what is not named here; a timeline, which is no one text, is refused.
            candidates: how many are made for each text.

        Raises:
            ValueError: as ``generate`` and ``candidates.best_of``.
        """
        items = self._items(texts, seconds, seed, negative)
        windows = windows_of(window, overlap, texts, self.codec.frame_rate)
        judge = judge_of(self, scorer, candidates)
        return best_of_items(lambda some: self._made(some, sampling, windows), items, candidates, judge)

    def continue_(
        self,
        prompts: Sequence[Sound],
        seconds: float | Sequence[float],
        texts: Sequence[Text] | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008  frozen
        seed: int | Sequence[int] = 0,
        *,
        negative: str | Sequence[str] = "",
        window: float | None = None,
        overlap: float | None = None,
    ) -> list[Sound]:
        """Each prompt through the codec and on, ``seconds`` in all, as loud as the prompt is.

        Args:
            prompts: of any sample rate and number of channels; what does not fill a frame at their end is left out.
            seconds: the length of the whole, the prompt included; one for all, or one for each.
            texts: one for each prompt, or None to leave it to the prompts; a timeline counts from the prompt's start.
            seed: as in ``generate``, and so are negative, window and overlap. The first window begins with the prompt
                or, if that fills it, with as much of the prompt's end as the overlap is.

        Raises:
            ValueError: a prompt that is shorter than a frame, not shorter than the request, or holds NaN; texts of
                another number than the prompts; and as in ``generate``.
        """
        prompts = listed(prompts, "prompts", "Sound")
        texts = [""] * len(prompts) if texts is None else listed(texts, "texts", "caption")
        if len(texts) != len(prompts):
            raise ValueError(f"{len(texts)} texts for {len(prompts)} prompts: give one for each, or none")
        seeds, negatives = seeds_of(seed, len(prompts)), negatives_of(negative, len(prompts))
        lengths = lengths_of(seconds, len(prompts), self.sample_rate)
        items = [
            Item(text, own, length, without, whole_frames(prompt, self.codec, length))
            for prompt, text, own, length, without in zip(prompts, texts, seeds, lengths, negatives, strict=True)
        ]
        return self._made(items, sampling, windows_of(window, overlap, texts, self.codec.frame_rate))

    def stream(
        self,
        text: Text,
        seconds: float | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008  frozen
        seed: int = 0,
        *,
        negative: str = "",
        prompt: Sound | None = None,
        window: float | None = None,
        overlap: float | None = None,
        chunk: float | None = None,
    ) -> Iterator[Sound]:
        """The sound of ``generate`` or, with a prompt, of ``continue_``, in chunks, each as soon as it is final.

        Put one behind the other they are that sound, bit for bit, however it is cut.

        Args:
            text: what is to be heard.
            seconds: the length of the whole. None is what a timeline says; a caption, or a timeline whose last line is
                open, then has no end, as all have with ``math.inf``, and needs windows.
            chunk: seconds of each chunk, the last one's aside; None gives out what there is as soon as it is there.

        Raises:
            ValueError: as in ``generate`` and ``continue_``; an endless sound without windows, or a codec that can only
                decode whole sounds. All of that is said before the first chunk is asked for.
        """
        endless = seconds == math.inf or (seconds is None and length_of(text) is None)
        length = None if endless else self._num_samples(seconds, text)
        windows = windows_of(window, overlap, [text], self.codec.frame_rate)
        if endless and windows.size is None:
            raise ValueError("a sound without an end is made window after window: give window, or seconds")
        sampling.check_codebooks(self.codec.num_codebooks)
        given = None if prompt is None else whole_frames(prompt, self.codec, length)
        [own] = seeds_of(seed, 1)
        request, gain = self._request([Item(text, own, length, negative, given)], sampling, windows)
        pieces = chunks(self.codec, codes(self.lm, request), gain, length)
        if chunk is not None:
            pieces = regrouped(pieces, samples_of(chunk, self.sample_rate, "chunk"))
        return (Sound(piece[0], self.sample_rate) for piece in pieces)

    def sidecar(
        self,
        text: Text,
        seconds: float,
        sampling: Sampling,
        seed: int,
        prompt: str = "",
        *,
        negative: str = "",
        window: float | None = None,
        overlap: float | None = None,
        scores: Sequence[float] = (),
        scorer: str = "",
    ) -> dict[str, Any]:
        """How a sound was made, to be written beside it: all that it takes to make it again.

        Args:
            text: a caption, or the lines of a timeline.
            seed: the chosen candidate's own, where there were several.
            scores: those of all candidates, if they were judged, and by what.
        """
        judged = {"scorer": scorer, "score": max(scores), "scores": list(scores)} if scores else {}
        return {
            "text": text if isinstance(text, str) else list(text),
            "negative": negative,
            "prompt": prompt,
            "seconds": seconds,
            "window": window,
            "overlap": overlap,
            "seed": seed,
            **judged,
            "sampling": dataclasses.asdict(sampling),
            **told(self.lm),
            "fingerprints": self.fingerprints,
            "sample_rate": self.sample_rate,
            "version": __version__,
        }

    @torch.no_grad()
    def context(self, texts: list[str]) -> Context | None:
        """What the captions mean to the model; None where all are empty, so that guidance costs nothing."""
        if not any(text.strip() for text in texts):
            return None
        if self.conditioner is None:
            raise ValueError("this model was trained without captions: leave the text out")
        return self.lm.condition(self.conditioner.prepare(texts, self.device))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _items(
        self, texts: Sequence[Text], seconds: float | None, seed: int | Sequence[int], negative: str | Sequence[str]
    ) -> list[Item]:
        """One for each text."""
        texts = listed(texts, "texts", "caption")
        seeds, negatives = seeds_of(seed, len(texts)), negatives_of(negative, len(texts))
        lengths = [self._num_samples(seconds, text) for text in texts]
        return [Item(*each) for each in zip(texts, seeds, lengths, negatives, strict=True)]

    def _made(self, items: list[Item], sampling: Sampling, windows: Windows) -> list[Sound]:
        """The sounds of finite items, in their order."""
        made: dict[int, Sound] = {}
        free = [item.free(sampling, windows) for item in items]
        for places in batches([item.shape(*self._grid) for item in items], free):
            request, gain = self._request([items[i] for i in places], sampling, windows)
            found, frames = torch.cat(list(codes(self.lm, request)), dim=-1), [row.frames for row in request.rows]
            for count, rows in groups(frames or [found.shape[-1]] * len(places)):
                audio = sound(self.codec, [found[rows, :, :count]], gain[rows])
                for row, samples in zip(rows, audio, strict=True):
                    made[places[row]] = Sound(samples[:, : items[places[row]].length], self.sample_rate)
        return [made[i] for i in range(len(items))]

    def _request(self, items: list[Item], sampling: Sampling, windows: Windows) -> tuple[Request, Tensor]:
        """Items that ``batches`` has put together as the loop takes them, and the gain of each, ``[B, 1, 1]``."""
        prompt, frames, gain = prompted(self.codec, [item.prompt for item in items], self.device)
        negative = self._negative([item.negative for item in items])
        sections = [item.sections(*self._grid) for item in items]
        shapes = [Row(*each) for each in zip(frames, (own[-1][0] for own in sections), strict=True)]
        sides = zip(*sections, strict=True)
        spans = [Section(each[0][0], self.context([text for _, text in each]), negative) for each in sides]
        seeds = [item.seed for item in items]
        return Request(prompt, spans, sampling, seeds, windows, shapes if len(set(shapes)) > 1 else ()), gain

    def _negative(self, texts: list[str]) -> Context | None:
        """As ``context``, and one row where all are the same."""
        return self.context(texts[:1] if len(set(texts)) == 1 else texts)

    @property
    def _grid(self) -> tuple[int, int]:
        """Samples of a frame and of a second."""
        return self.codec.hop, self.sample_rate

    def _num_samples(self, seconds: float | None, text: Text) -> int:
        """The length of a sound, L."""
        return samples_of(length_of(text) if seconds is None else seconds, self.sample_rate)
