"""audiocraft's compression models <-> our codec; against audiocraft itself where it is installed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.official.encodec import from_audiocraft, to_audiocraft
from audiolm_kit.official.encodec_configs import META_48KHZ, audiocraft_config

# A small one of the published kind, settings as they stand in xp.cfg, references among them.
SETTINGS: dict[str, Any] = {
    "sample_rate": 8000,
    "channels": 1,
    "compression_model": "encodec",
    "encodec": {
        **{"autoencoder": "seanet", "quantizer": "rvq", "sample_rate": "${sample_rate}", "channels": "${channels}"},
        **{"causal": False, "renormalize": False},
    },
    "seanet": {
        **{"dimension": 16, "channels": "${encodec.channels}", "causal": "${encodec.causal}", "n_filters": 8},
        **{"n_residual_layers": 1, "ratios": [4, 2], "activation": "ELU", "activation_params": {"alpha": 1.0}},
        **{"norm": "weight_norm", "norm_params": {}, "kernel_size": 7, "residual_kernel_size": 3},
        **{"last_kernel_size": 7, "dilation_base": 2, "pad_mode": "constant", "true_skip": True, "compress": 2},
        **{"lstm": 2, "disable_norm_outer_blocks": 0, "encoder": {}},
        "decoder": {"trim_right_ratio": 1.0, "final_activation": None, "final_activation_params": None},
    },
    "rvq": {
        **{"n_q": 4, "q_dropout": False, "bins": 32, "decay": 0.99, "kmeans_init": True, "kmeans_iters": 50},
        **{"threshold_ema_dead_code": 2, "orthogonal_reg_weight": 0.0, "orthogonal_reg_active_codes_only": False},
    },
    "no_quant": {},
}
OURS = CodecConfig(
    sample_rate=8000,
    body="seanet",
    seanet=SEANetConfig((4, 2), filters=8, dim=16, causal=False, pad_mode="constant", shortcut="identity"),
    quantizer=QuantizerConfig(num_codebooks=4, codebook_size=32, dim=16),
)
KINDS = {
    "as published": OURS,
    "causal, convolved shortcuts": replace(OURS, seanet=replace(OURS.seanet, causal=True, shortcut="conv")),
    "normalised stereo": replace(OURS, channels=2, normalize=True),
    "group norm, mirrored": replace(OURS, seanet=replace(OURS.seanet, norm="time_group_norm", pad_mode="reflect")),
    "cut on both sides": replace(OURS, seanet=replace(OURS.seanet, causal=True, trim_right_ratio=0.5, elu_alpha=0.7)),
}


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def a_codec(config: CodecConfig) -> NeuralCodec:
    """Random, with codebooks that have seen its latents."""
    torch.manual_seed(0)
    codec = NeuralCodec(config)
    with torch.no_grad():
        codec(noise(4, config.channels, 2000))
    return codec.eval()


def with_setting(path: str, value: Any) -> dict[str, Any]:
    """The settings with another value at ``section.name``; None takes it out."""
    changed = copy.deepcopy(SETTINGS)
    *sections, name = path.split(".")
    place = changed
    for section in sections:
        place = place[section]
    place[name] = value
    if value is None:
        del place[name]
    return changed


def test_settings_are_read_and_references_followed() -> None:
    assert audiocraft_config(SETTINGS) == OURS


def test_the_published_codecs_are_wide_and_look_both_ways() -> None:
    large = with_setting("seanet.n_filters", 64) | {"sample_rate": 32000}
    config = audiocraft_config(large | {"rvq": {"n_q": 4, "bins": 2048}})
    assert (config.sample_rate, config.seanet.filters, config.seanet.causal) == (32000, 64, False)
    assert config.quantizer.codebook_size == 2048


@pytest.mark.parametrize("name", KINDS)
def test_a_codec_goes_there_and_back_unchanged(name: str) -> None:
    codec = a_codec(KINDS[name])
    settings, state = to_audiocraft(codec)
    again = from_audiocraft(settings, state)
    assert again.config == codec.config and checkpoint.fingerprint(again) == checkpoint.fingerprint(codec)
    settings_again, state_again = to_audiocraft(again)
    assert settings_again == settings and state_again.keys() == state.keys()
    assert all(torch.equal(state_again[key], tensor) for key, tensor in state.items())
    assert "decoder.model.3.convtr.convtr.bias" in state and "quantizer.vq.layers.0._codebook.embed_avg" in state


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_codes_and_sound_are_audiocrafts(name: str) -> None:
    omegaconf = pytest.importorskip("omegaconf", reason="audiocraft is not installed")
    builders = pytest.importorskip("audiocraft.models.builders", reason="audiocraft is not installed")
    codec = a_codec(KINDS[name])
    settings, state = to_audiocraft(codec)
    theirs = builders.get_compression_model(omegaconf.OmegaConf.create(settings | {"device": "cpu"})).eval()
    theirs.load_state_dict(state)
    for length in (7, 400, 1003):
        audio = noise(2, codec.channels, length)
        their_codes, scale = theirs.encode(audio)
        codes, scales = codec.encode_scaled(audio)
        assert torch.equal(codes, their_codes) and (length < 400 or codes[:, 0].unique().numel() > 4)
        assert scale is None or torch.allclose(scale, scales)
        torch.testing.assert_close(codec.decode(codes, scales), theirs.decode(codes, scale), atol=1e-5, rtol=1e-5)
    assert (theirs.frame_rate, theirs.sample_rate) == (codec.frame_rate, codec.sample_rate)


# --- refusals -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("compression_model", "dac", "is a dac, wanted encodec"),
        ("rvq", None, "has no section rvq"),
        ("encodec.quantizer", "no_quant", "encodec.quantizer is no_quant"),
        ("seanet.channels", 2, "encodec.channels is 1, seanet.channels 2"),
        ("seanet.activation", "ReLU", "seanet.activation is ReLU"),
        ("seanet.norm", "none", "seanet.norm is none"),
        ("seanet.pad_mode", "replicate", "seanet.pad_mode is replicate"),
        ("seanet.disable_norm_outer_blocks", 2, "seanet.disable_norm_outer_blocks is 2"),
        ("seanet.decoder.final_activation", "Tanh", "seanet.final_activation is Tanh"),
        ("seanet.decoder.n_filters", 16, "encoder and decoder differ in n_filters"),
        ("seanet.gates", 1, r"settings that are not known \(gates\)"),
        ("sample_rate", None, r"refers to \$\{sample_rate\}, which it does not hold"),
        ("channels", "${encodec.channels}", r"refers to \$\{(encodec\.)?channels\}"),
    ],
)
def test_what_ours_cannot_be_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audiocraft_config(with_setting(path, value))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (META_48KHZ, "segment is 1.0"),
        (replace(OURS, channels=2, split_channels=True), "give the codec of one channel"),
        (replace(OURS, normalize=True, seanet=replace(OURS.seanet, causal=True)), "normalize is set and seanet.causal"),
        (replace(OURS, quantizer=replace(OURS.quantizer, beam=2)), "quantizer.beam is 2"),
    ],
)
def test_what_theirs_cannot_be_is_refused(config: CodecConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_audiocraft(NeuralCodec(config))


BREAKS: Mapping[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (lambda state: state.pop("encoder.model.0.conv.conv.bias"), "lacks .*: encoder.model.0.conv.conv.bias"),
    "extra": (lambda state: state.update(more=torch.zeros(1)), r"has unknown tensors \(1\): more"),
    "shape": (
        lambda state: state.update({"encoder.model.0.conv.conv.bias": torch.zeros(3)}),
        "has wrongly shaped tensors .*: encoder.model.0.conv.conv.bias",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_weights_that_do_not_fit_are_named(name: str) -> None:
    settings, state = to_audiocraft(a_codec(OURS))
    BREAKS[name][0](state)
    with pytest.raises(ValueError, match=BREAKS[name][1]):
        from_audiocraft(settings, state)
