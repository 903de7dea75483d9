"""EnCodec in every layout <-> our codec: Meta's package and files, audiocraft, transformers.

The same codes and the same sound. Their names and settings stand in `encodec_names` and `encodec_configs`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.official.encodec_configs import (
    META_24KHZ,
    META_48KHZ,
    audiocraft_config,
    audiocraft_settings,
    transformers_config,
    transformers_settings,
)
from audiolm_kit.official.encodec_names import (
    ENCODEC,
    TRANSFORMERS,
    encodec_state,
    filled,
    refuse_others,
    transformers_state,
)
from audiolm_kit.official.pickles import read_pickle
from audiolm_kit.official.weights import read_state

if TYPE_CHECKING:
    from transformers import EncodecModel


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
        ValueError: the model does something that ours does not.
    """
    theirs: Any = model
    first = theirs.quantizer.vq.layers[0]
    if not isinstance(first.project_in, nn.Identity):
        raise ValueError(f"the EnCodec model {theirs.name} projects its latents before quantising: not supported")
    return CodecConfig(
        sample_rate=theirs.sample_rate,
        channels=theirs.channels,
        body="seanet",
        seanet=seanet_config(theirs.encoder, theirs.decoder),
        quantizer=QuantizerConfig(theirs.quantizer.n_q, theirs.quantizer.bins, theirs.quantizer.dimension),
        normalize=theirs.normalize,
        segment=theirs.segment or 0.0,
        overlap=theirs.overlap if theirs.segment else 0.0,
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


def from_encodec(model: nn.Module) -> NeuralCodec:
    """Our codec with the weights of an ``encodec.EncodecModel``: same codes, same sound.

    Raises:
        ValueError: see `codec_config`.
    """
    codec = filled(codec_config(model), model.state_dict(), ENCODEC, "the EnCodec model")
    return codec.train(model.training)


def from_meta_file(path: str | Path, unsafe: bool = False) -> NeuralCodec:
    """The codec in a file of Meta's, ``encodec_24khz-*.th`` or ``encodec_48khz-*.th``: the weights tell which.

    Args:
        unsafe: see `read_pickle`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not safe or not whole, or holds the weights of something else.
    """
    state = read_pickle(path, unsafe)
    try:
        refuse_others(state)
    except ValueError as error:
        raise ValueError(f"{path} holds {error}") from None
    # The one normalises inside its network, the other its weights.
    config = META_48KHZ if any(".norm." in name for name in state) else META_24KHZ
    return filled(config, state, ENCODEC, str(path))


def from_audiocraft(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> NeuralCodec:
    """Our codec for a compression model of audiocraft.

    Args:
        config: its ``xp.cfg`` as plain values; references such as ``${sample_rate}`` may stand in it.
        state: its ``best_state``.

    Raises:
        ValueError: it is nothing that ours can be, or weights and config are not of one model.
    """
    return filled(audiocraft_config(config), state, ENCODEC, "the audiocraft compression model")


def to_audiocraft(codec: NeuralCodec) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The ``xp.cfg`` and the state dict of our codec as a compression model of audiocraft.

    Raises:
        ValueError: audiocraft has no such codec.
    """
    return audiocraft_settings(codec.config), encodec_state(_weights(codec))


def from_transformers(folder: str | Path, unsafe: bool = False) -> NeuralCodec:
    """The codec in a folder of transformers' ``EncodecModel``.

    Args:
        unsafe: see `read_pickle`; safetensors come first.

    Raises:
        FileNotFoundError: the folder or a file of it is missing.
        ValueError: it holds something else, or what ours cannot be, or weights that do not fit its config.
    """
    from transformers import EncodecConfig

    folder = Path(folder)
    path = folder / checkpoint.CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: give a folder of transformers' EncodecModel")
    if (kind := checkpoint.read_json(path).get("model_type")) != "encodec":
        raise ValueError(f"{path} describes a {kind}, wanted encodec: give a folder of transformers' EncodecModel")
    try:
        settings = EncodecConfig.from_pretrained(folder)
    except Exception as error:  # of many kinds, from version to version
        cause = str(error).strip().split("\n", 1)[0]
        raise ValueError(f"{path} does not describe an EnCodec ({cause}): copy it again") from None
    return filled(transformers_config(settings), read_state(folder, unsafe), TRANSFORMERS, str(folder))


def from_transformers_model(model: EncodecModel) -> NeuralCodec:
    """Our codec with the weights of transformers' ``EncodecModel``: same codes, same sound.

    Raises:
        ValueError: the model does something that ours does not.
    """
    config = transformers_config(model.config)
    return filled(config, model.state_dict(), TRANSFORMERS, "the EnCodec model").train(model.training)


def to_transformers(codec: NeuralCodec) -> EncodecModel:
    """transformers' ``EncodecModel`` with the weights of our codec, in evaluation mode.

    Unless asked for a bandwidth, it encodes with all codebooks; only as Meta's own models, which are offered at
    several, with the fewest.

    Raises:
        ValueError: transformers has no such codec.
    """
    from transformers import EncodecConfig, EncodecModel

    model = EncodecModel(EncodecConfig(**transformers_settings(codec.config)))
    model.load_state_dict(transformers_state(_weights(codec)))
    return model.eval()


def _weights(codec: NeuralCodec) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in codec.state_dict().items()}


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
