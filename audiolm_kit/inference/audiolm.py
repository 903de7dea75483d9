"""AudioLM: sound without text, by semantic codes for what is said and acoustic codes for how it sounds.

B batch, C channels, L samples, K codebooks, P prompt frames, T frames.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiolm_kit import __version__, checkpoint, hub
from audiolm_kit.audio import Sound
from audiolm_kit.codec.opening import AnyCodec, open_codec
from audiolm_kit.inference.assembly import check_stages, gather, read_stages
from audiolm_kit.inference.chain import Chain, Request, Stages, StageSampling
from audiolm_kit.inference.items import batches, lengths_of, listed, samples_of, seeds_of, windows_of
from audiolm_kit.inference.precision import Dtype, Precision, told
from audiolm_kit.inference.prompts import prompted
from audiolm_kit.inference.semantics import likelihoods, track_of
from audiolm_kit.inference.streaming import Windows, chunks, regrouped, sound
from audiolm_kit.inference.utterances import Listener, Utterance
from audiolm_kit.lm.packed import How
from audiolm_kit.lm.quantize import refuse_quantized
from audiolm_kit.semantic.tokenizer import SemanticTokenizer

KIND = "AudioLM"


class AudioLM:
    """Language modelling of sound as in Borsos et al. 2022 (arXiv:2209.03143).

    Usage:

        model = AudioLM.assemble(["runs/semantic", "runs/coarse", "runs/fine"])
        model.save("build/audiolm")
        [longer] = model.continue_([audio.read("prompt.wav")], seconds=10)
        [another_voice] = model.resynthesize([audio.read("prompt.wav")])
        for chunk in model.stream(None, seconds=math.inf):
            play(chunk.samples)
    """

    def __init__(self, semantic: SemanticTokenizer, codec: AnyCodec, stages: Stages) -> None:
        check_stages(stages, semantic, codec)
        self.semantic, self.codec = semantic.eval(), codec.eval()
        self.stages = {name: (stage, lm.eval()) for name, (stage, lm) in stages.items()}
        self.chain = Chain(self.stages, codec.frame_rate, semantic.frame_rate)
        self.fingerprints = checkpoint.bundle_fingerprints(self._parts, {})

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
    ) -> AudioLM:
        """Open a checkpoint folder that ``save`` has written, or one of the hub by its name, ``owner/model``.

        Args:
            dtype: of all stages; None is the fastest that is safe on the device. The tokenizers stay in float32.
            quantize: the matrices of all stages as whole numbers, int8 or int4, rounded while they are opened.
            compile: the step of each frame, which takes a while at first; for GPUs.
            frozen: nothing will be learned any more: on a CPU, float32 matrices are laid out for making sound.

        Raises:
            FileNotFoundError: the folder or a part of it is missing.
            ValueError: it is no AudioLM checkpoint, it is cut off, or its parts do not belong together; or another
                dtype or quantize than these.
        """
        precision = Precision(dtype, quantize, compile, frozen)
        folder = hub.checkpoint(folder)
        checkpoint.read_kind(folder, KIND)
        semantic = checkpoint.load(SemanticTokenizer, folder / "semantic").to(device)
        codec = open_codec(folder / "codec").to(device)
        model = cls(semantic, codec, read_stages(folder, KIND))
        checkpoint.check_bundle(folder, KIND, model.fingerprints)  # of the weights as they are stored
        for _, lm in model.stages.values():
            precision.put(lm, device)
        return model

    @classmethod
    def assemble(cls, folders: Sequence[str | Path], device: str = "cpu") -> AudioLM:
        """One model from the checkpoint folders of its stages, as `audiolm-kit fit` exports them, in any order.

        Semantic, coarse and fine; semantic and acoustic; or semantic and coarse, whose sound is that of the coarse
        codebooks alone.

        Raises:
            FileNotFoundError: a folder or a part of it is missing.
            ValueError: stages of different tokenizers, or another set of them; the folders are named.
        """
        return cls(*gather(folders, device))

    def save(self, folder: str | Path) -> None:
        """Write the checkpoint folder that ``load`` opens, whole or not at all; an earlier one there is replaced.

        Raises:
            ValueError: the folder holds something else, or a stage is quantised.
        """
        for _, lm in self.stages.values():
            refuse_quantized(lm)
        about = {"stages": {name: dataclasses.asdict(stage) for name, (stage, _) in self.stages.items()}}
        checkpoint.save_bundle(folder, KIND, self._parts, {}, about)

    @property
    def sample_rate(self) -> int:
        """Of the sounds that come out, in hertz."""
        return self.codec.sample_rate

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.stages["semantic"][1].embedding.weight.device

    def generate(
        self,
        count: int,
        seconds: float,
        sampling: StageSampling = StageSampling(),  # noqa: B008  frozen
        seed: int | Sequence[int] = 0,
        *,
        window: float | None = None,
        overlap: float | None = None,
    ) -> list[Sound]:
        """``count`` sounds of nothing but the model.

        Args:
            count: how many.
            seconds: the length of each.
            seed: item i is drawn with ``seed + i``, or with its own of as many seeds; it depends on that alone.
            window: seconds of acoustic codes that are made at once; None for those that the coarse (or acoustic) stage
                was trained on. A longer sound is made window after window.
            overlap: seconds at the end of a window that the next one begins with, of its own; None for 0.3 of a window.

        Raises:
            ValueError: no sound, no positive length, too few seeds, or an overlap that leaves a window nothing to make.
        """
        if count < 1:
            raise ValueError(f"count is {count}: ask for at least 1 sound")
        length = samples_of(seconds, self.sample_rate)
        items = [Utterance(own, length) for own in seeds_of(seed, count)]
        return self._made(items, sampling, self._windows(window, overlap))

    def continue_(
        self,
        prompts: Sequence[Sound],
        seconds: float | Sequence[float],
        sampling: StageSampling = StageSampling(),  # noqa: B008  frozen
        seed: int | Sequence[int] = 0,
        *,
        window: float | None = None,
        overlap: float | None = None,
    ) -> list[Sound]:
        """Each prompt through the codec and on, in its own voice, ``seconds`` in all, as loud as the prompt is.

        Args:
            prompts: of any length, sample rate and number of channels; what does not fill a frame of the codec at their
                end is left out.
            seconds: the length of the whole, the prompt included; one for all, or one for each.
            seed: as in ``generate``, and so are window and overlap. The first window begins with the prompt or, if that
                fills it, with as much of the prompt's end as the overlap is.

        Raises:
            ValueError: a prompt that is shorter than a frame, not shorter than the request, or holds NaN; and as in
                ``generate``.
        """
        prompts = listed(prompts, "prompts", "Sound")
        seeds, lengths = seeds_of(seed, len(prompts)), lengths_of(seconds, len(prompts), self.sample_rate)
        items = [self._listener.prompted(*each) for each in zip(prompts, lengths, seeds, strict=True)]
        return self._made(items, sampling, self._windows(window, overlap))

    def resynthesize(
        self,
        sounds: Sequence[Sound],
        sampling: StageSampling = StageSampling(),  # noqa: B008  frozen
        seed: int | Sequence[int] = 0,
        *,
        voices: Sequence[Sound] | None = None,
        window: float | None = None,
        overlap: float | None = None,
    ) -> list[Sound]:
        """The same said anew: semantic codes of each recording, all acoustic ones made; as long as the recording.

        The paper's acoustic generation: what stays is what semantic codes hold, what changes is what they do not, the
        voice above all. Level is among the latter, so it is the model's own.

        Args:
            sounds: of any length, sample rate and number of channels.
            voices: a recording for each, in whose voice and level it is said; None leaves the voice to the seed.
            seed: as in ``generate``, and so are window and overlap.

        Raises:
            ValueError: no sounds, or what is none; voices of another number; and as in ``generate``.
        """
        sounds = listed(sounds, "sounds", "Sound")
        if voices is not None and len(voices) != len(sounds):
            raise ValueError(f"{len(voices)} voices for {len(sounds)} sounds: give one for each, or none")
        own_voices = [None] * len(sounds) if voices is None else listed(voices, "voices", "Sound")
        seeds = seeds_of(seed, len(sounds))
        items = [self._listener.retold(*each) for each in zip(sounds, own_voices, seeds, strict=True)]
        made = self._made(items, sampling, self._windows(window, overlap))
        pairs = zip(made, items, strict=True)
        return [Sound(each.samples[:, item.lead :], each.sample_rate) for each, item in pairs]

    def stream(
        self,
        prompt: Sound | None,
        seconds: float,
        sampling: StageSampling = StageSampling(),  # noqa: B008  frozen
        seed: int = 0,
        *,
        window: float | None = None,
        overlap: float | None = None,
        chunk: float | None = None,
    ) -> Iterator[Sound]:
        """The sound of ``continue_`` or, without a prompt, of ``generate``, in chunks, each as soon as it is final.

        Put one behind the other they are that sound, bit for bit. Sound comes a part of a window at a time: a shorter
        window begins sooner.

        Args:
            prompt: what to continue; None for nothing.
            seconds: the length of the whole; ``math.inf`` has no end, and memory does not grow with it.
            chunk: seconds of each chunk, the last one's aside; None gives out what there is as soon as it is there.

        Raises:
            ValueError: as in ``generate`` and ``continue_``; or a codec that can only decode whole sounds. All of that
                is said before the first chunk is asked for.
        """
        length = None if seconds == math.inf else samples_of(seconds, self.sample_rate)
        [own] = seeds_of(seed, 1)
        item = Utterance(own, length) if prompt is None else self._listener.prompted(prompt, length, own)
        request, gain = self._request([item], sampling, self._windows(window, overlap))
        pieces = chunks(self.codec, self.chain.codes(request), gain, length)
        if chunk is not None:
            pieces = regrouped(pieces, samples_of(chunk, self.sample_rate, "chunk"))
        return (Sound(piece[0], self.sample_rate) for piece in pieces)

    def log_likelihood(self, sounds: Sequence[Sound], normalise: bool = False) -> list[float]:
        """How likely the semantic stage finds each recording, in nats: the sum over its semantic codes.

        Repeats are left out if the stage knows none. A recording longer than the stage's pieces is read piece after
        piece, see ``semantics.likelihoods``.

        Args:
            normalise: divide by the number of codes, so that recordings of different lengths can be compared.
        """
        tracks = [track_of(self.semantic, each, self.device) for each in listed(sounds, "sounds", "Sound")]
        stage, lm = self.stages["semantic"]
        found = likelihoods(lm, stage, tracks)
        return [each.per_code if normalise else each.nats for each in found]

    def steps_for(
        self, seconds: float, prompt: float = 0.0, *, window: float | None = None, overlap: float | None = None
    ) -> dict[str, int]:
        """How many decoding steps each stage takes for a sound of ``seconds``, of which ``prompt`` are given.

        A step reads one position of the sequence: K codebooks flattened take K steps a frame, delayed ones about 1.
        """
        num_frames = -(-samples_of(seconds, self.sample_rate) // self.codec.hop)
        known = int(prompt * self.codec.frame_rate + 1e-6)
        return self.chain.steps(known, num_frames, self._windows(window, overlap))

    def sidecar(
        self,
        seconds: float,
        sampling: StageSampling,
        seed: int,
        prompt: str = "",
        *,
        semantics_of: str = "",
        voice: str = "",
        window: float | None = None,
        overlap: float | None = None,
    ) -> dict[str, Any]:
        """How a sound was made, to be written beside it: all that it takes to make it again.

        Args:
            prompt: the name of what it continues, if anything.
            semantics_of: the name of what was said anew, if anything, and of the voice that it was said in.
        """
        return {
            "prompt": prompt,
            "semantics_of": semantics_of,
            "voice": voice,
            "seconds": seconds,
            "window": window,
            "overlap": overlap,
            "seed": seed,
            "sampling": {name: dataclasses.asdict(getattr(sampling, name)) for name in self.stages},
            **told(self.stages["semantic"][1]),
            "fingerprints": self.fingerprints,
            "sample_rate": self.sample_rate,
            "version": __version__,
        }

    # --- inside -------------------------------------------------------------------------------------------------------

    @property
    def _parts(self) -> dict[str, nn.Module]:
        """What a checkpoint folder holds, by where it stands there."""
        lms = {f"stages/{name}": lm for name, (_, lm) in self.stages.items()}
        return {"semantic": self.semantic, "codec": self.codec, **lms}

    def _windows(self, window: float | None, overlap: float | None) -> Windows:
        """In frames; those of the stage's own training where nothing is said."""
        own = self.stages[self.chain.first][0].seconds
        return windows_of(own if window is None else window, overlap, [], self.codec.frame_rate)

    @property
    def _listener(self) -> Listener:
        return Listener(self.semantic, self.codec, self.device)

    def _made(self, items: list[Utterance], sampling: StageSampling, windows: Windows) -> list[Sound]:
        """The sounds of finite items, in their order."""
        made: dict[int, Sound] = {}
        shapes = [item.row(self.codec) for item in items]
        for places in batches(shapes, [self.chain.at_once(row, windows) for row in shapes]):
            request, gain = self._request([items[i] for i in places], sampling, windows)
            rows = zip(*self.chain.blocks(request), strict=True)
            for i, blocks, own in zip(places, rows, gain, strict=True):  # one by one, as each has its own end
                codes = torch.cat(blocks, dim=-1)[None, :, : items[i].num_frames(self.codec)]
                made[i] = Sound(sound(self.codec, [codes], own[None])[0, :, : items[i].length], self.sample_rate)
        return [made[i] for i in range(len(items))]

    def _request(self, items: list[Utterance], sampling: StageSampling, windows: Windows) -> tuple[Request, Tensor]:
        """Items that ``batches`` has put together as the chain takes them, and the gain of each, ``[B, 1, 1]``."""
        for name, (_, lm) in self.stages.items():
            getattr(sampling, name).check_codebooks(lm.config.num_codebooks)
        prompts = [item.prompt for item in items]
        prompt, _, gain = prompted(self.codec, prompts, self.device, self.chain.num_codebooks)
        tracks, seeds = [item.track for item in items], [item.seed for item in items]
        rows = [item.row(self.codec) for item in items]
        return Request(tracks, prompt, rows, seeds, sampling, windows, items[0].spoken), gain
