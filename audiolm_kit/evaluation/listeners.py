"""Models of transformers as judges: AST and its like, CLAP, EnCodec, voices by x-vectors, recognisers of speech.

Shapes: N sounds, W windows, C classes, D width, L samples, T frames.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.evaluation.contrastive import ContrastiveScorer
from audiolm_kit.evaluation.embedding import FrameEmbedder, Pool, digest
from audiolm_kit.evaluation.perceptual import ClapScorer, opened, speech_recogniser, windows

CLASSIFIER, VOICE, CODEC = "AutoModelForAudioClassification", "AutoModelForAudioXVector", "AutoModel"
AST = ("audio-spectrogram-transformer",)
VOICES = ("wavlm", "wav2vec2", "unispeech-sat", "data2vec-audio")
SHORTEST = 1.0
"""Seconds that a voice is heard for at least: what is shorter is said again."""
VOLATILE = ("processor_class", "feature_extractor_type", "return_attention_mask")  # no answer depends on them


class Tagger:
    """A classifier of sounds, as AST on AudioSet's classes (Gong et al. 2021, arXiv:2104.01778).

    A sound that is longer than the model hears at once is cut into windows, evenly spaced; the mean of theirs counts.
    """

    def __init__(self, name: str, device: str = "cpu", embeds: bool = False) -> None:
        """Load from a folder or the hub.

        Args:
            embeds: Give what the model makes of a sound before it names it, in the place of probabilities.
        """
        model, self._extractor = opened(name, CLASSIFIER, AST, "AST")
        self.fingerprint = digest("ast", embeds, weights_of(model, self._extractor))
        self._model: Any = model.to(device)
        self.name, self.device, self._embeds = name, torch.device(device), embeds

    @torch.no_grad()
    def __call__(self, sounds: Sequence[Sound]) -> Tensor:
        """Probabilities [N, C], a softmax of the logits; or embeddings [N, D]. On the CPU."""
        return torch.stack([self._of(sound) for sound in sounds])

    def _of(self, sound: Sound) -> Tensor:
        rate = self._extractor.sampling_rate
        samples = audio.fit(sound, rate, 1).samples[0]
        parts = windows(samples, self._extractor.max_length * rate // 100)  # frames are 10 ms apart
        raw = [torch.nn.functional.pad(part, (0, max(0, rate // 20 - len(part)))).numpy() for part in parts]
        inputs = self._extractor(raw, sampling_rate=rate, return_tensors="pt")["input_values"].to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            if self._embeds:
                found = self._model.audio_spectrogram_transformer(inputs).pooler_output
            else:
                found = self._model(inputs).logits.double().softmax(-1)
        return torch.as_tensor(found).mean(0).cpu()


class Clap(ClapScorer):
    """CLAP as a judge."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        super().__init__(name, device)
        self.fingerprint = digest("clap", weights_of(self._model, self._extractor))


def clap(name: str, device: str = "cpu") -> Clap | ContrastiveScorer:
    """The CLAP of a folder or of the hub; of a folder also a small one that a ContrastiveTask trained."""
    return ContrastiveScorer.load(name, device) if ContrastiveScorer.lies_in(name) else Clap(name, device)


@dataclass(frozen=True)
class SoundsOf:
    """The half of a CLAP that hears."""

    clap: Clap | ContrastiveScorer

    @property
    def name(self) -> str:
        return self.clap.name

    @property
    def fingerprint(self) -> str:
        return self.clap.fingerprint

    def __call__(self, sounds: Sequence[Sound]) -> Tensor:
        """[N, D]."""
        return self.clap.embed_sounds(sounds)


def encodec(name: str, device: str = "cpu", pool: Pool = "mean") -> FrameEmbedder:
    """The latents of an EnCodec before they are quantised."""
    model, extractor = opened(name, CODEC, ("encodec",), "EnCodec")
    fingerprint = digest("encodec", pool, weights_of(model, extractor))
    encoder, scaled = model.encoder.to(device), bool(model.config.normalize)

    def frames(samples: Tensor) -> Tensor:
        """[C, L] -> [T, D]."""
        if scaled:
            samples = samples / (samples.mean(0).square().mean().sqrt() + 1e-8)
        return torch.as_tensor(encoder(samples[None].to(device))[0].T)

    return FrameEmbedder(name, fingerprint, frames, extractor.sampling_rate, extractor.feature_size, pool)


class Voice:
    """Whose voice it is: x-vectors of a model that was trained to tell speakers apart, as WavLM (arXiv:2110.13900)."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        model, self._extractor = opened(name, VOICE, VOICES, "model of voices")
        self.fingerprint = digest("voice", weights_of(model, self._extractor))
        self._model: Any = model.to(device)
        self.name, self.device = name, torch.device(device)

    @torch.no_grad()
    def __call__(self, sounds: Sequence[Sound]) -> Tensor:
        """Unit vectors [N, D] on the CPU; a sound below ``SHORTEST`` is repeated until it is so long."""
        return torch.stack([self._of(sound) for sound in sounds])

    def _of(self, sound: Sound) -> Tensor:
        rate = self._extractor.sampling_rate
        samples = audio.fit(sound, rate, 1).samples[0]
        samples = samples.repeat(max(1, -(-round(SHORTEST * rate) // len(samples))))
        inputs = self._extractor([samples.numpy()], sampling_rate=rate, return_tensors="pt")["input_values"]
        with torch.autocast(self.device.type, enabled=False):
            found = self._model(inputs.to(self.device)).embeddings[0]
        return torch.nn.functional.normalize(torch.as_tensor(found), dim=-1).cpu()


class Recogniser:
    """What is said, written down by a pipeline of transformers: Whisper, wav2vec 2 with CTC and others."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        self._pipeline = speech_recogniser(name, device)
        preparation = self._pipeline.feature_extractor
        words = json.dumps(self._pipeline.tokenizer.get_vocab(), sort_keys=True)
        self.fingerprint = digest("recogniser", weights_of(self._pipeline.model, preparation), words)
        self.name, self._rate = name, int(preparation.sampling_rate)

    def __call__(self, sounds: Sequence[Sound]) -> list[str]:
        """One text for each sound."""
        fitted = [audio.fit(sound, self._rate, 1).samples[0].numpy() for sound in sounds]
        return [str(self._pipeline({"raw": raw, "sampling_rate": self._rate})["text"]) for raw in fitted]


def weights_of(model: Any, preparation: Any) -> str:
    """16 hex digits of a model's weights, as they compute, and of how sounds are prepared for it."""
    told = {key: value for key, value in preparation.to_dict().items() if key not in VOLATILE and key[:1] != "_"}
    found = hashlib.sha256(json.dumps([model.config.model_type, told], sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.endswith("masked_spec_embed"):  # of training alone; where files lack it, it is drawn anew
            continue
        found.update(f"{name} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
