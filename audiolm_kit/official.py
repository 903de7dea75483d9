"""Official EnCodec weights <-> our checkpoints: the only file that knows how theirs are laid out."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig

# (pattern, replacement) from encodec 0.1.1's names to ours; each name passes through the whole table.
OUR_NAMES = (
    (r"^(encoder|decoder)\.model\.(\d+)\.", r"\1.layers.\2."),
    (r"\.conv\.(conv|norm)\.", r".\1."),
    (r"\.convtr\.convtr\.", ".upsample."),
    (r"\.convtr\.norm\.", ".norm."),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.books.\1."),
    (r"^(quantizer\..*)\.embed_avg$", r"\1.embed_sum"),
)
# The same way back; ".norm." is left to `encodec_state`, since what it follows decides its name.
THEIR_NAMES = (
    (r"^(encoder|decoder)\.layers\.(\d+)\.", r"\1.model.\2."),
    (r"\.conv\.(?!norm\.)", ".conv.conv."),
    (r"\.upsample\.", ".convtr.convtr."),
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
    (r"^quantizer\.books\.(\d+)\.", r"quantizer.vq.layers.\1._codebook."),
    (r"^(quantizer\..*)\.embed_sum$", r"\1.embed_avg"),
)


def import_encodec() -> ModuleType:
    """The encodec package, also where torchaudio is missing or does not load.

    encodec imports torchaudio at its top but needs it only to read files and to resample, which we do ourselves. A
    stand-in serves for the time of the import alone: left behind, it would break ``transformers``, which looks for
    torchaudio too.

    Raises:
        ModuleNotFoundError: encodec itself is not installed.
    """
    if loaded := sys.modules.get("encodec"):
        return loaded
    try:
        with _some_torchaudio():
            return importlib.import_module("encodec")
    except ModuleNotFoundError as error:
        if error.name != "encodec":
            raise
        raise ModuleNotFoundError(
            "the encodec package is not installed: run `pip install --no-deps encodec`", name="encodec"
        ) from None


def codec_config(model: nn.Module) -> CodecConfig:
    """The options under which our `NeuralCodec` is the same network as an ``encodec.EncodecModel``.

    Raises:
        ValueError: the model does something around its network that ours does not, as the 48 kHz model does.
    """
    theirs: Any = model
    if theirs.normalize or theirs.segment is not None:
        raise ValueError(
            f"the EnCodec model {theirs.name} scales its input's loudness or cuts it into segments (normalize="
            f"{theirs.normalize}, segment={theirs.segment}), which is not supported: use one without, as encodec_24khz"
        )
    first = theirs.quantizer.vq.layers[0]
    if not isinstance(first.project_in, nn.Identity):
        raise ValueError(f"the EnCodec model {theirs.name} projects its latents before quantising: not supported")
    return CodecConfig(
        sample_rate=theirs.sample_rate,
        channels=theirs.channels,
        body="seanet",
        seanet=seanet_config(theirs.encoder, theirs.decoder),
        quantizer=QuantizerConfig(
            num_codebooks=theirs.quantizer.n_q,
            codebook_size=theirs.quantizer.bins,
            dim=theirs.quantizer.dimension,
            decay=theirs.quantizer.decay,
            kmeans_iterations=theirs.quantizer.kmeans_iters,
            revive_below=float(theirs.quantizer.threshold_ema_dead_code),
        ),
    )


def seanet_config(encoder: nn.Module, decoder: nn.Module) -> SEANetConfig:
    """The options of an ``encodec.modules.SEANetEncoder`` and its decoder, read off their layers."""
    theirs: Any = encoder
    mirror: Any = decoder
    layers, ends = list(theirs.model), (mirror.model[0], mirror.model[-1])
    if type(ends[1]).__name__ != "SConv1d" or not isinstance(layers[-2], nn.ELU):
        raise ValueError("the EnCodec model has a final activation, or others than ELU: not supported")
    if (ends[0].causal, ends[0].pad_mode) != (layers[0].causal, layers[0].pad_mode):
        raise ValueError("the EnCodec model's encoder and decoder differ in causality or padding: not supported")
    residuals = [layer for layer in layers if type(layer).__name__ == "SEANetResnetBlock"]
    upsampling = [layer for layer in mirror.model if type(layer).__name__ == "SConvTranspose1d"]
    dilations = [residual.block[1].conv.conv.dilation[0] for residual in residuals]
    narrowed = residuals[0].block[1].conv.conv if residuals else None
    return SEANetConfig(
        ratios=tuple(reversed(theirs.ratios)),
        filters=theirs.n_filters,
        dim=theirs.dimension,
        residual_layers=theirs.n_residual_layers,
        kernel=layers[0].conv.conv.kernel_size[0],
        last_kernel=layers[-1].conv.conv.kernel_size[0],
        residual_kernel=narrowed.kernel_size[0] if narrowed else 3,
        dilation_base=dilations[1] if theirs.n_residual_layers > 1 else 2,
        compress=narrowed.in_channels // narrowed.out_channels if narrowed else 2,
        lstm=next((layer.lstm.num_layers for layer in layers if type(layer).__name__ == "SLSTM"), 0),
        causal=layers[0].causal,
        norm=layers[0].conv.norm_type,
        pad_mode=layers[0].pad_mode,
        shortcut="identity" if residuals and isinstance(residuals[0].shortcut, nn.Identity) else "conv",
        trim_right_ratio=upsampling[0].trim_right_ratio,
        elu_alpha=layers[-2].alpha,
    )


def codec_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An EnCodec state dict under our names.

    Raises:
        ValueError: it holds something else.
    """
    foreign = [name for name in state if not re.match(r"(encoder|decoder)\.model\.|quantizer\.vq\.", name)]
    if foreign or not state:
        raise ValueError(
            f"no EnCodec weights, but {', '.join(foreign[:3]) or 'nothing at all'}: give the bare state dict of encodec"
        )
    return {_renamed(name, OUR_NAMES): tensor for name, tensor in state.items()}


def encodec_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a SEANet `NeuralCodec` under EnCodec's names; the inverse of `codec_state`."""
    renamed = {}
    for name, tensor in state.items():
        after_upsampling = name.replace(".norm.", ".upsample.") in state
        name = name.replace(".norm.", ".convtr.norm." if after_upsampling else ".conv.norm.")
        renamed[_renamed(name, THEIR_NAMES)] = tensor
    return renamed


def from_encodec(model: nn.Module) -> NeuralCodec:
    """Our codec with the weights of an ``encodec.EncodecModel``: same codes, same sound.

    Raises:
        ValueError: see `codec_config`.
    """
    codec = NeuralCodec(codec_config(model))
    codec.load_state_dict(codec_state(model.state_dict()))
    return codec.train(model.training)


class _MissingTorchaudio(ModuleType):
    """Stands where torchaudio should be and says so when it is used."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"torchaudio.{name} is not there: torchaudio is not installed or does not load")


@contextmanager
def _some_torchaudio() -> Iterator[None]:
    """torchaudio itself while the block runs, or a stand-in that is gone afterwards."""
    before = _torchaudio_modules()
    try:
        importlib.import_module("torchaudio")
    except (
        Exception
    ) as error:  # a wheel built for another torch dies of an OSError, a RuntimeError, an AttributeError, ...
        if not isinstance(error, ModuleNotFoundError):
            warnings.warn(f"torchaudio is installed but does not load ({error}): encodec goes without", stacklevel=4)
        sys.modules["torchaudio"] = _MissingTorchaudio("torchaudio")
        try:
            yield
        finally:
            # What a failed import leaves behind goes as well.
            for name in _torchaudio_modules():
                del sys.modules[name]
            sys.modules.update(before)
    else:
        yield


def _torchaudio_modules() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchaudio"}


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name
