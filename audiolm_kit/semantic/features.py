"""Sound to frames of numbers that k-means can sort: of its spectrum, of our masked model, or of one of transformers.

Shapes: B batch, L samples, T frames, D dimensions.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from audiolm_kit.semantic.masked import MaskedConfig, MaskedModel
from audiolm_kit.semantic.spectrum import (
    COEFFICIENTS,
    PITCH_CLASSES,
    Chroma,
    LogMel,
    at_peak,
    cepstra,
    compressed,
    side_by_side,
    standardised,
)


@dataclass(frozen=True)
class FeatureConfig:
    """What a frame is made of."""

    kind: Literal["mel", "mfcc", "chroma", "masked", "ssl"] = "mfcc"
    """Log-mel bands; cepstra with deltas, HuBERT's first features; pitch classes, for music; our own masked model; a
    self-supervised model of transformers (HuBERT, WavLM, wav2vec 2, w2v-BERT 2.0)."""
    sample_rate: int = 16000
    """For masked and ssl that of the model, as is hop."""
    hop: int = 320
    """Samples of one frame."""
    num_mels: int = 40
    """Of mel, and of what the cepstra are made from."""
    peak: float = 0.9
    """Of mel, mfcc and chroma: every sound is scaled to this peak first, so that codes carry no level (0: left as it
    is). The models do this by themselves, each in its own way."""
    dynamic_range_db: float = 0.0
    """Of mel and mfcc: no band counts as more than this much softer than the loudest of the sound, so that noise behind
    it does not tell recordings apart (0: as soft as it is)."""
    standardised: bool = False
    """Of mel and mfcc: each sound's numbers less their mean and over their deviation in that sound, which takes the
    microphone and part of the voice out of them (cepstral mean and variance normalisation; Viikki and Laurila 1998)."""
    context: int = 0
    """Of mel and mfcc: as many frames on each side stand beside every frame; cepstra then come without deltas."""
    layer: int = 0
    """Of masked and ssl: 0 is what enters the first layer, n what leaves the n-th."""
    masked: MaskedConfig = field(default_factory=MaskedConfig)
    """The model of kind masked; its weights are these features'."""
    model: str = field(default="", compare=False)
    """Folder, or name on the Hugging Face hub, of kind ssl: where its weights lie, for they are not saved here."""
    fingerprint: str = ""
    """Of those weights; empty takes what is there."""

    def __post_init__(self) -> None:
        if self.kind not in ("mel", "mfcc", "chroma", "masked", "ssl"):
            raise ValueError(f"features are of kind {self.kind!r}: give one of mel, mfcc, chroma, masked, ssl")
        for name in ("sample_rate", "hop", "num_mels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of the features is {getattr(self, name)}: give a positive number")
        if self.kind == "mfcc" and self.num_mels < COEFFICIENTS:
            raise ValueError(f"num_mels is {self.num_mels}, {COEFFICIENTS} cepstral coefficients need as many at least")
        if not 0 <= self.peak <= 1:
            raise ValueError(f"peak of the features is {self.peak}, wanted 0 (leave levels alone) to 1 (full scale)")
        if not self.dynamic_range_db >= 0:  # nor NaN
            raise ValueError(f"dynamic_range_db is {self.dynamic_range_db}: give 0 (all) or decibels above it")
        if self.context < 0:
            raise ValueError(f"context of the features is {self.context}: give 0 (none) or more frames")
        if self.kind not in ("mel", "mfcc") and (self.standardised or self.context or self.dynamic_range_db):
            raise ValueError(f"frames of {self.kind} features stay as they are: leave standardised and such out")
        if self.kind == "masked":
            self._check_masked()
        if self.kind == "ssl" and not self.model:
            raise ValueError("features of kind ssl need a model: give its folder or its name on the hub")

    def _check_masked(self) -> None:
        given, wanted = (self.sample_rate, self.hop), (self.masked.sample_rate, self.masked.hop)
        if given != wanted:
            raise ValueError(f"features have sample rate and hop {given}, their masked model {wanted}: give those")
        if not 0 <= self.layer <= self.masked.layers:
            raise ValueError(f"layer is {self.layer}, the masked model has 0 (its input) to {self.masked.layers}")


class FrameFeatures(nn.Module):
    """Audio to frames, always the same: nothing here is trained, and training mode changes nothing.

    Usage: ``FrameFeatures(FeatureConfig("mfcc"))(audio)``, or by name: ``fit.features_from``.
    """

    def __init__(self, config: FeatureConfig, ssl: FrozenSSL | None = None) -> None:
        """Make the front end; for kind ssl take its model, or load it.

        Raises:
            FileNotFoundError: There is no such model.
            ValueError: It is another one than ``config.fingerprint`` names, or does not fit the rest of the config.
        """
        super().__init__()
        # In a tuple, and no module: its weights lie elsewhere, and no checkpoint of ours holds them.
        self._ssl: tuple[FrozenSSL] | None = None
        if config.kind == "masked":
            self.masked = MaskedModel(config.masked)
        elif config.kind == "ssl":
            model = FrozenSSL(config.model, config.layer) if ssl is None else ssl
            config = _agreed(config, model)
            self._ssl = (model,)
        elif config.kind == "chroma":
            self.chroma = Chroma(config.sample_rate, config.hop)
        else:
            self.mel = LogMel(config.sample_rate, config.hop, config.num_mels)
        self.config = config
        self.requires_grad_(False).eval()

    @classmethod
    def of_masked(cls, model: MaskedModel, layer: int) -> FrameFeatures:
        """What leaves a layer of a masked model (0: what enters the first); layers above it are left out.

        Raises:
            ValueError: There is no such layer.
        """
        own = model.config
        if not 0 <= layer <= own.layers:
            raise ValueError(f"layer is {layer}, this model has 0 (its input) to {own.layers}")
        kept = model.cut(max(1, layer))
        features = cls(
            FeatureConfig("masked", sample_rate=own.sample_rate, hop=own.hop, layer=layer, masked=kept.config)
        )
        features.masked.load_state_dict(kept.state_dict())
        return features

    @classmethod
    def of_ssl(cls, name: str, layer: int) -> FrameFeatures:
        """What leaves a layer of a model of transformers (0: what enters the first), at the rates that it has.

        Raises:
            FileNotFoundError: There is no such model.
            ValueError: There is no such layer.
        """
        model = FrozenSSL(name, layer)
        return cls(FeatureConfig("ssl", model.sample_rate, model.hop, layer=layer, model=name), model)

    @property
    def dim(self) -> int:
        """D."""
        if self.config.kind == "masked":
            return self.config.masked.dim
        if self._ssl is not None:
            return self._ssl[0].dim
        if self.config.kind == "chroma":
            return PITCH_CLASSES + 1
        context = self.config.context
        if self.config.kind == "mel":
            return (2 * context + 1) * self.config.num_mels
        return (2 * context + 1 if context else 3) * COEFFICIENTS

    def train(self, mode: bool = True) -> FrameFeatures:
        """Stay in evaluation mode: a tokenizer gives one answer."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        """``[B, L] -> [B, T, D]`` float32, T = ceil(L / hop), whatever precision runs around it.

        Raises:
            ValueError: Other axes, or no samples.
        """
        if audio.dim() != 2 or audio.numel() == 0:
            raise ValueError(f"audio is of shape {list(audio.shape)}, wanted [B, L] with at least one sample")
        with torch.autocast(audio.device.type, enabled=False):
            audio = audio.float()
            if self._ssl is not None:
                return self._ssl[0](audio)
            if self.config.kind == "masked":
                return self.masked.hidden(audio, self.config.layer)
            levelled = at_peak(audio, self.config.peak)
            if self.config.kind == "chroma":
                made: Tensor = self.chroma(levelled)
                return made
            return self._of_spectrum(self.mel(levelled))

    def _of_spectrum(self, log_mel: Tensor) -> Tensor:
        """``[B, T, M] -> [B, T, D]``."""
        config = self.config
        bands = compressed(log_mel, config.dynamic_range_db) if config.dynamic_range_db else log_mel
        frames = bands if config.kind == "mel" else cepstra(bands)
        if config.standardised:
            frames = standardised(frames, log_mel)
        if config.context:
            plain = frames if config.kind == "mel" else frames[:, :, :COEFFICIENTS]
            frames = side_by_side(plain, config.context)
        return frames


# --- models of transformers -------------------------------------------------------------------------------------------

SSL_KINDS = ("hubert", "wavlm", "wav2vec2", "wav2vec2-bert")
FBANK = "input_features"
"""What w2v-BERT reads: pairs of filter-bank frames of 400 samples, 160 apart. The others read samples."""
CONFIG_FIELDS = (
    "hidden_act feat_extract_norm feat_extract_activation conv_stride do_stable_layer_norm num_attention_heads "
    "layer_norm_eps feat_proj_layer_norm num_conv_pos_embedding_groups num_buckets max_bucket_distance "
    "position_embeddings_type rotary_embedding_base left_max_position_embeddings right_max_position_embeddings"
).split()
EXTRACTOR_FIELDS = ("do_normalize", "sampling_rate", "num_mel_bins", "stride")
"""With the shapes of the weights, all of a model's two configs that decides what its layers compute."""
UNUSED = "masked_spec_embed"
"""Used in training alone; where files lack it, it is drawn anew each time."""


class FrozenSSL:
    """A self-supervised model of speech that is only read: no module of ours holds its weights, no checkpoint."""

    def __init__(self, name: str, layer: int) -> None:
        """Load from a folder or the hub, and keep the layers up to ``layer``."""
        self.name, self.layer = name, layer
        self._model, self._extractor = _loaded(name)
        config = self._model.config
        if not 0 <= layer <= config.num_hidden_layers:
            raise ValueError(f"layer is {layer}, {name} has 0 (what enters the first) to {config.num_hidden_layers}")
        self.dim: int = config.hidden_size
        self.sample_rate: int = self._extractor.sampling_rate
        self.fingerprint = _fingerprint(self._model, self._extractor)
        # One more than is needed: what the topmost layer gives may be normed once more.
        self._model.encoder.layers = self._model.encoder.layers[: layer + 1]

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenSSL:
        """A copy of what holds it shares it: nothing ever changes it, and it may be large."""
        return self

    @property
    def hop(self) -> int:
        """Samples of one frame."""
        return 160 * self._extractor.stride if self._reads_bank else math.prod(self._model.config.conv_stride)

    def reach(self, frames: int) -> int:
        """The samples that so many frames look at."""
        if self._reads_bank:
            return (self._extractor.stride * frames - 1) * 160 + 400
        config = self._model.config
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            frames = (frames - 1) * stride + kernel
        return frames

    @torch.no_grad()
    def __call__(self, audio: Tensor) -> Tensor:
        """``[B, L] -> [B, T, D]``: the model's ``hidden_states[layer]``, each item normalised by itself.

        Its frames look ahead, so without more sound there would be one too few: the sound's end is mirrored, which
        neither adds an edge nor a silence that would shift the means of a short sound.
        """
        frames = -(-audio.shape[1] // self.hop)
        longer = mirrored(audio, max(self.reach(frames), audio.shape[1])).cpu().numpy()
        prepared = self._extractor(list(longer), sampling_rate=self.sample_rate, return_tensors="pt")
        inputs = prepared[self._model.main_input_name].float().to(audio.device)
        states = self._model.to(audio.device)(inputs, output_hidden_states=True).hidden_states[self.layer]
        return states[:, :frames].float()

    @property
    def _reads_bank(self) -> bool:
        return self._model.main_input_name == FBANK


def mirrored(audio: Tensor, length: int) -> Tensor:
    """``[B, L]`` to ``[B, length]``, going on backwards from its end, and forwards again where that is not enough."""
    places = torch.arange(length, device=audio.device) % (2 * audio.shape[1])
    return audio[:, torch.minimum(places, 2 * audio.shape[1] - 1 - places)]


def _loaded(name: str) -> tuple[Any, Any]:
    """Model and feature extractor, from a folder or the hub, in single precision and evaluation mode."""
    import transformers

    library: Any = transformers
    try:
        config = library.AutoConfig.from_pretrained(name)
        if config.model_type not in SSL_KINDS:  # others would need another front end
            raise ValueError(f"it is of type {config.model_type}, wanted one of {', '.join(SSL_KINDS)}")
        extractor = library.AutoFeatureExtractor.from_pretrained(name)
        model, report = library.AutoModel.from_pretrained(name, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        cause = str(error).split("\n", 1)[0]
        raise FileNotFoundError(
            f"no model of speech at {name!r} ({cause}): give a folder or a name on the hub"
        ) from None
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(UNUSED))
    if missing:  # transformers would make them up
        raise ValueError(f"the model at {name!r} lacks {len(missing)} weights, as {missing[0]}: fetch it again")
    return model.float().eval().requires_grad_(False), extractor


def _fingerprint(model: Any, extractor: Any) -> str:
    """16 hex digits that change with any weight and with what the configs make of them, wherever the files lie.

    Weights are hashed as they compute, so one model is one in safetensors and in a pickle, in half and in single
    precision where nothing is lost.
    """
    about = {name: getattr(model.config, name, None) for name in CONFIG_FIELDS}
    about |= {name: getattr(extractor, name, None) for name in EXTRACTOR_FIELDS}
    digest = hashlib.sha256(json.dumps([model.config.model_type, about], sort_keys=True, default=list).encode())
    weights = {_stable(name): tensor for name, tensor in model.state_dict().items() if not name.endswith(UNUSED)}
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _stable(name: str) -> str:
    """A weight's name; normed weights have another in each generation of torch."""
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for newer, older in old.items():
        name = name.replace(newer, older)
    return name


def _agreed(config: FeatureConfig, model: FrozenSSL) -> FeatureConfig:
    """The config with the model's fingerprint; what the model contradicts is refused."""
    if config.fingerprint and config.fingerprint != model.fingerprint:
        raise ValueError(
            f"{config.model} is not the model these features are of (fingerprint {model.fingerprint}, wanted "
            f"{config.fingerprint}): set features.model in their config.json to the folder or name of that model"
        )
    given, wanted = (config.sample_rate, config.hop), (model.sample_rate, model.hop)
    if given != wanted:
        raise ValueError(f"features have sample rate and hop {given}, {config.model} has {wanted}: give those")
    return replace(config, fingerprint=model.fingerprint)
