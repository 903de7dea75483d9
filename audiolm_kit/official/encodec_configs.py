"""What EnCodec's settings are called by audiocraft and by transformers, and which Meta's own files stand for.

Settings for training alone (moving averages, the start of codebooks) are not taken over: ours are measured differently.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from audiolm_kit.codec.model import CodecConfig
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig

META_24KHZ = CodecConfig(
    sample_rate=24000, body="seanet", quantizer=QuantizerConfig(num_codebooks=32, codebook_size=1024, dim=128)
)
META_48KHZ = CodecConfig(
    sample_rate=48000,
    channels=2,
    body="seanet",
    seanet=SEANetConfig(causal=False, norm="time_group_norm"),
    quantizer=QuantizerConfig(num_codebooks=16, codebook_size=1024, dim=128),
    normalize=True,
    segment=1.0,
    overlap=0.01,
)
BANDWIDTHS = {META_24KHZ: (1.5, 3.0, 6.0, 12.0, 24.0), META_48KHZ: (3.0, 6.0, 12.0, 24.0)}
"""Kilobits a second that Meta's models are offered at; of others, all their codebooks are used."""

# What audiocraft's SEANet does where its settings say nothing, and of these what is the same in ours under our name.
AUDIOCRAFT_DEFAULTS: dict[str, Any] = {
    **{"channels": 1, "dimension": 128, "n_filters": 32, "n_residual_layers": 3, "ratios": (8, 5, 4, 2)},
    **{"activation": "ELU", "activation_params": {"alpha": 1.0}, "norm": "none", "norm_params": {}},
    **{"kernel_size": 7, "last_kernel_size": 7, "residual_kernel_size": 3, "dilation_base": 2, "causal": False},
    **{"pad_mode": "reflect", "true_skip": True, "compress": 2, "lstm": 0, "disable_norm_outer_blocks": 0},
    **{"trim_right_ratio": 1.0, "final_activation": None, "final_activation_params": None},
}
AUDIOCRAFT_NAMES = {
    **{"dim": "dimension", "filters": "n_filters", "residual_layers": "n_residual_layers", "kernel": "kernel_size"},
    **{"last_kernel": "last_kernel_size", "residual_kernel": "residual_kernel_size", "dilation_base": "dilation_base"},
    **{"causal": "causal", "norm": "norm", "pad_mode": "pad_mode", "compress": "compress", "lstm": "lstm"},
    **{"trim_right_ratio": "trim_right_ratio"},
}
DECODER_ONLY = ("trim_right_ratio", "final_activation", "final_activation_params")
TRANSFORMERS_NAMES = {
    **{"dim": "hidden_size", "filters": "num_filters", "residual_layers": "num_residual_layers"},
    **{"kernel": "kernel_size", "last_kernel": "last_kernel_size", "residual_kernel": "residual_kernel_size"},
    **{"dilation_base": "dilation_growth_rate", "causal": "use_causal_conv", "norm": "norm_type"},
    **{"pad_mode": "pad_mode", "compress": "compress", "lstm": "num_lstm_layers"},
    **{"trim_right_ratio": "trim_right_ratio"},
}


def transformers_config(theirs: Any) -> CodecConfig:
    """The architecture that a ``transformers.EncodecConfig`` describes.

    Raises:
        ValueError: ours has no such thing.
    """
    _refuse(
        "the EnCodec model of transformers",
        {
            f"codebook_dim is {theirs.codebook_dim}, hidden_size {theirs.hidden_size}": (
                theirs.codebook_dim != theirs.hidden_size
            ),
            "it has chunks (chunk_length_s), but no overlap": theirs.chunk_length_s and theirs.overlap is None,
            f"pad_mode is {theirs.pad_mode}": theirs.pad_mode not in ("reflect", "constant"),
        },
    )
    body = SEANetConfig(
        ratios=tuple(theirs.upsampling_ratios),
        shortcut="conv" if theirs.use_conv_shortcut else "identity",
        **{ours: getattr(theirs, name) for ours, name in TRANSFORMERS_NAMES.items()},
    )
    return CodecConfig(
        sample_rate=theirs.sampling_rate,
        channels=theirs.audio_channels,
        body="seanet",
        seanet=body,
        quantizer=QuantizerConfig(theirs.num_quantizers, theirs.codebook_size, theirs.hidden_size),
        normalize=theirs.normalize,
        segment=float(theirs.chunk_length_s or 0),
        overlap=float(theirs.overlap or 0) if theirs.chunk_length_s else 0.0,
    )


def transformers_settings(config: CodecConfig) -> dict[str, Any]:
    """The arguments of the ``transformers.EncodecConfig`` that describes our codec.

    Raises:
        ValueError: theirs has no such thing.
    """
    body, books = config.seanet, config.quantizer
    _refuse(
        "transformers' EncodecModel cannot be this codec",
        {
            **_only_ours(config),
            "seanet.lstm is 0": body.lstm == 0,
            f"seanet.elu_alpha is {body.elu_alpha}": body.elu_alpha != 1,
            f"quantizer.codebook_size is {books.codebook_size}, no power of 2": books.codebook_size.bit_count() != 1,
        },
    )
    return {
        **{name: getattr(body, ours) for ours, name in TRANSFORMERS_NAMES.items()},
        "upsampling_ratios": list(body.ratios),
        "use_conv_shortcut": body.shortcut == "conv",
        "sampling_rate": config.sample_rate,
        "audio_channels": config.channels,
        "normalize": config.normalize,
        "chunk_length_s": config.segment or None,
        "overlap": config.overlap if config.segment else None,
        "codebook_size": books.codebook_size,
        "codebook_dim": books.dim,
        "target_bandwidths": _bandwidths(config),
    }


def audiocraft_config(settings: Mapping[str, Any]) -> CodecConfig:
    """The architecture that the ``xp.cfg`` of an audiocraft compression model describes.

    References such as ``${sample_rate}``, which its YAML still holds, are followed.

    Raises:
        ValueError: it describes something else, or what ours has not.
    """
    kind = _value(settings, settings.get("compression_model"))
    if kind != "encodec":
        raise ValueError(f"the audiocraft compression model is a {kind}, wanted encodec: other codecs are not read")
    outer, books = _section(settings, "encodec"), _section(settings, "rvq")
    body = _audiocraft_body(_section(settings, "seanet"))
    _refuse(
        "the audiocraft compression model",
        {
            f"encodec.autoencoder is {outer.get('autoencoder')}": outer.get("autoencoder") != "seanet",
            f"encodec.quantizer is {outer.get('quantizer')}": outer.get("quantizer") != "rvq",
            f"encodec.channels is {outer.get('channels')}, seanet.channels {body['channels']}": (
                outer.get("channels") != body["channels"]
            ),
            f"encodec.sample_rate is {outer.get('sample_rate')}": not isinstance(outer.get("sample_rate"), int),
        },
    )
    return CodecConfig(
        sample_rate=outer["sample_rate"],
        channels=body["channels"],
        body="seanet",
        seanet=SEANetConfig(
            ratios=tuple(body["ratios"]),
            shortcut="identity" if body["true_skip"] else "conv",
            elu_alpha=body["activation_params"].get("alpha", 1.0),
            **{ours: body[name] for ours, name in AUDIOCRAFT_NAMES.items()},
        ),
        quantizer=QuantizerConfig(books.get("n_q", 8), books.get("bins", 1024), body["dimension"]),
        normalize=bool(outer.get("renormalize", False)),
    )


def audiocraft_settings(config: CodecConfig) -> dict[str, Any]:
    """The ``xp.cfg`` of our codec as an audiocraft compression model.

    Raises:
        ValueError: theirs has no such thing.
    """
    body, books = config.seanet, config.quantizer
    _refuse(
        "audiocraft's EncodecModel cannot be this codec",
        {
            **_only_ours(config),
            f"segment is {config.segment}": config.segment,
            "normalize is set and seanet.causal too": config.normalize and body.causal,
        },
    )
    network = AUDIOCRAFT_DEFAULTS | {name: getattr(body, ours) for ours, name in AUDIOCRAFT_NAMES.items()}
    network |= {"channels": config.channels, "ratios": list(body.ratios), "true_skip": body.shortcut == "identity"}
    network |= {"activation_params": {"alpha": body.elu_alpha}}
    sound = {"sample_rate": config.sample_rate, "channels": config.channels}
    return {
        **sound,
        "compression_model": "encodec",
        "encodec": {
            **{"autoencoder": "seanet", "quantizer": "rvq", **sound},
            **{"causal": body.causal, "renormalize": config.normalize},
        },
        "seanet": {
            **{name: value for name, value in network.items() if name not in DECODER_ONLY},
            "decoder": {name: network[name] for name in DECODER_ONLY},
            "encoder": {},
        },
        "rvq": {
            **{"n_q": books.num_codebooks, "q_dropout": False, "bins": books.codebook_size, "decay": books.decay},
            **{"kmeans_init": True, "kmeans_iters": books.kmeans_iterations, "threshold_ema_dead_code": 2},
            **{"orthogonal_reg_weight": 0.0, "orthogonal_reg_active_codes_only": False},
        },
        "no_quant": {},
    }


def _audiocraft_body(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of encoder and decoder, which must agree."""
    halves = [settings.pop(half, None) or {} for half in ("encoder", "decoder")]
    encoder, decoder = ({**AUDIOCRAFT_DEFAULTS, **settings, **half} for half in halves)
    unlike = sorted(name for name in encoder if name not in DECODER_ONLY and encoder[name] != decoder.get(name))
    unknown = sorted({*encoder, *decoder} - AUDIOCRAFT_DEFAULTS.keys())
    names = ("activation", "norm", "norm_params", "pad_mode", "disable_norm_outer_blocks", "final_activation")
    given = {name: decoder[name] for name in names}
    expected: dict[str, tuple[object, ...]] = {
        **{"activation": ("ELU",), "norm": ("weight_norm", "time_group_norm"), "norm_params": ({}, None)},
        **{"pad_mode": ("reflect", "constant"), "disable_norm_outer_blocks": (0,), "final_activation": (None,)},
    }
    _refuse(
        "the audiocraft compression model",
        {
            f"seanet has settings that are not known ({', '.join(unknown)})": unknown,
            f"encoder and decoder differ in {', '.join(unlike)}": unlike,
            **{f"seanet.{name} is {given[name]}": given[name] not in expected[name] for name in names},
        },
    )
    return {**decoder, "activation_params": decoder["activation_params"] or {}}


def _section(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A section of audiocraft's settings, its references followed."""
    section = settings.get(name)
    if not isinstance(section, Mapping):
        raise ValueError(f"xp.cfg of the audiocraft compression model has no section {name}: is it another model's?")
    return {key: _value(settings, each) for key, each in section.items()}


def _value(settings: Mapping[str, Any], value: Any, depth: int = 0) -> Any:
    """A value of the settings; ``${a.b}`` stands for the one at a.b."""
    if isinstance(value, Mapping):
        return {key: _value(settings, each, depth) for key, each in value.items()}
    reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if reference is None:
        return value
    found: Any = settings
    for part in reference[1].split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if found is None or depth > 8:
        raise ValueError(f"xp.cfg of the audiocraft compression model refers to {value}, which it does not hold")
    return _value(settings, found, depth + 1)


def _only_ours(config: CodecConfig) -> dict[str, bool]:
    """What no EnCodec model of others has."""
    return {
        f"body is {config.body}, and theirs is seanet": config.body != "seanet",
        f"peak is {config.peak}": bool(config.peak),
        "split_channels is set (give the codec of one channel)": config.split_channels,
        f"quantizer.beam is {config.quantizer.beam}, and theirs takes the nearest entry": config.quantizer.beam != 1,
    }


def _refuse(subject: str, faults: Mapping[str, object]) -> None:
    for fault, holds in faults.items():
        if holds:
            raise ValueError(f"{subject}: {fault}; that is not supported")


def _bandwidths(config: CodecConfig) -> list[float]:
    """Kilobits a second such that ``EncodecConfig.num_quantizers`` is our number of codebooks."""
    if config in BANDWIDTHS:
        return list(BANDWIDTHS[config])
    bits = math.ceil(config.sample_rate / config.frame) * int(math.log2(config.quantizer.codebook_size))
    bandwidth = config.quantizer.num_codebooks * bits / 1000
    if int(1000 * bandwidth // bits) < config.quantizer.num_codebooks:  # a hair less by rounding
        bandwidth = math.nextafter(bandwidth, math.inf)
    return [bandwidth]
