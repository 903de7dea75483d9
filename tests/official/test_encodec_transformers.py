"""EnCodec of transformers <-> our codec: the same codes and sound in both ways, and folders that are not taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.official.encodec import from_transformers, from_transformers_model, to_transformers
from audiolm_kit.official.encodec_configs import META_24KHZ, META_48KHZ, transformers_settings

transformers = pytest.importorskip("transformers")

SMALL = {
    **{"upsampling_ratios": [4, 2], "num_filters": 8, "hidden_size": 16, "codebook_size": 32, "sampling_rate": 8000},
    **{"target_bandwidths": [5.0, 20.0]},
}
# As the published 24, 48 and 32 kHz models are configured, in small, and what their options can be beside.
CONFIGS: dict[str, dict[str, Any]] = {
    "24 kHz": {},
    "48 kHz": {
        **{"audio_channels": 2, "normalize": True, "chunk_length_s": 0.05, "overlap": 0.01},
        **{"norm_type": "time_group_norm", "use_causal_conv": False},
    },
    "32 kHz": {"use_causal_conv": False, "use_conv_shortcut": False, "pad_mode": "constant"},
    "deep": {"num_residual_layers": 2, "dilation_growth_rate": 3, "compress": 4, "trim_right_ratio": 0.5},
    "narrow": {"num_lstm_layers": 1, "kernel_size": 5, "last_kernel_size": 3, "residual_kernel_size": 5},
}
OURS = CodecConfig(
    sample_rate=8000,
    body="seanet",
    seanet=SEANetConfig(ratios=(4, 2), filters=4, dim=8),
    quantizer=QuantizerConfig(num_codebooks=3, codebook_size=16, dim=8),
)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def theirs(**options: Any) -> Any:
    """Their model with random weights and codebooks that lie among its latents."""
    torch.manual_seed(0)
    model = transformers.EncodecModel(transformers.EncodecConfig(**SMALL | options)).eval()
    with torch.no_grad():
        latents = model.encoder(noise(1, model.config.audio_channels, 2000))[0]
        for index, layer in enumerate(model.quantizer.layers):
            entries = noise(32, 16, seed=index) * latents.std(1) / (index + 1)
            layer.codebook.embed.copy_(entries if index else entries + latents.mean(1))
            layer.codebook.embed_avg.copy_(layer.codebook.embed * 2)
            layer.codebook.cluster_size.fill_(2)
    return model


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: theirs(**options) for name, options in CONFIGS.items()}


def assert_alike(model: Any, codec: NeuralCodec, length: int) -> None:
    """The same codes, scales and sound for two sounds of some length."""
    audio = noise(2, codec.channels, length)
    with torch.no_grad():
        frames, scales, padded = model.encode(audio, bandwidth=model.config.target_bandwidths[-1], return_dict=False)
        sound = model.decode(frames, scales, last_frame_pad_length=padded, return_dict=False)[0]
    their_codes = torch.cat(list(frames), -1)[..., : frames.shape[0] * frames.shape[-1] - padded]
    codes, ours = codec.encode_scaled(audio)
    assert torch.equal(codes, their_codes) and codes[:, 0].unique().numel() > 4
    if codec.config.normalize:
        torch.testing.assert_close(ours, torch.cat(scales, -1))
    torch.testing.assert_close(codec.decode(codes, ours), sound, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("length", [400, 796, 1050])
def test_codes_and_sound_are_theirs(models: dict[str, Any], name: str, length: int) -> None:
    assert_alike(models[name], from_transformers_model(models[name]), length)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_goes_there_and_back_unchanged(models: dict[str, Any], name: str, tmp_path: Path) -> None:
    models[name].save_pretrained(tmp_path / "theirs")
    codec = from_transformers(tmp_path / "theirs")
    assert not codec.training and codec.config == from_transformers_model(models[name]).config
    back = to_transformers(codec)
    assert_alike(back, codec, 796)
    assert back.config.num_quantizers == codec.num_codebooks
    state, wanted = back.state_dict(), models[name].state_dict()
    assert state.keys() == wanted.keys() and all(torch.equal(state[key], wanted[key]) for key in wanted)
    back.save_pretrained(tmp_path / "back")
    again = from_transformers(tmp_path / "back")
    assert checkpoint.fingerprint(again) == checkpoint.fingerprint(codec)


def test_older_spellings_and_pickles_are_read(models: dict[str, Any], tmp_path: Path) -> None:
    model = models["24 kHz"]
    model.save_pretrained(tmp_path)
    state = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    found = from_transformers(tmp_path)
    assert checkpoint.fingerprint(found) == checkpoint.fingerprint(from_transformers_model(model))


@pytest.mark.parametrize("num_codebooks", [1, 3, 4, 7, 9])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_a_codec_of_ours_has_all_its_codebooks_there(num_codebooks: int, rate: int) -> None:
    quantizer = replace(OURS.quantizer, num_codebooks=num_codebooks)
    settings = transformers_settings(replace(OURS, sample_rate=rate, quantizer=quantizer))
    config = transformers.EncodecConfig(**settings)
    assert config.num_quantizers == num_codebooks and len(config.target_bandwidths) == 1


def test_published_models_are_offered_at_their_bandwidths() -> None:
    assert transformers_settings(META_24KHZ)["target_bandwidths"] == [1.5, 3, 6, 12, 24]
    assert transformers_settings(META_48KHZ)["target_bandwidths"] == [3, 6, 12, 24]
    for config in (META_24KHZ, META_48KHZ):
        assert transformers.EncodecConfig(**transformers_settings(config)).num_quantizers == (
            config.quantizer.num_codebooks
        )


def test_an_exported_codec_shares_no_memory_with_ours() -> None:
    codec = NeuralCodec(OURS).eval()
    before = checkpoint.fingerprint(codec)
    with torch.no_grad():
        for tensor in to_transformers(codec).state_dict().values():
            tensor.zero_()
    assert checkpoint.fingerprint(codec) == before


# --- refusals -----------------------------------------------------------------

BREAKS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (
        lambda state: state.pop("quantizer.layers.1.codebook.embed"),
        r"lacks tensors \(1\): quantizer.layers.1.codebook.embed",
    ),
    "extra": (lambda state: state.update(more=torch.zeros(1)), r"has unknown tensors \(1\): more"),
    "shape": (
        lambda state: state.update({"encoder.layers.0.conv.bias": torch.zeros(3)}),
        r"has wrongly shaped tensors \(1\): encoder.layers.0.conv.bias",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_weights_that_do_not_fit_are_named(models: dict[str, Any], name: str, tmp_path: Path) -> None:
    models["32 kHz"].save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    BREAKS[name][0](state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=BREAKS[name][1]):
        from_transformers(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebook_dim": 8}, "codebook_dim is 8, hidden_size 16; that is not supported"),
        ({"chunk_length_s": 1.0}, "but no overlap"),
        ({"pad_mode": "replicate"}, "pad_mode is replicate"),
        ({"norm_type": "batch"}, "does not describe an EnCodec"),
        ({"norm_type": "time_group_norm"}, "time_group_norm looks at all of time"),
        ({"model_type": "dac"}, "describes a dac, wanted encodec"),
    ],
)
def test_what_ours_cannot_be_is_refused(
    models: dict[str, Any], change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    models["24 kHz"].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        from_transformers(tmp_path)


def test_a_folder_without_a_config_or_weights_is_refused(models: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give a folder of transformers' EncodecModel"):
        from_transformers(tmp_path)
    models["24 kHz"].config.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no model.safetensors"):
        from_transformers(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"body": "convnext", "quantizer": replace(OURS.quantizer, dim=64)}, "body is convnext, and theirs is seanet"),
        ({"peak": 0.5}, "peak is 0.5"),
        ({"channels": 2, "split_channels": True}, "give the codec of one channel"),
        ({"seanet": replace(OURS.seanet, lstm=0)}, "seanet.lstm is 0"),
        ({"seanet": replace(OURS.seanet, elu_alpha=0.5)}, "elu_alpha is 0.5"),
        ({"quantizer": replace(OURS.quantizer, codebook_size=12)}, "codebook_size is 12, no power of 2"),
        ({"quantizer": replace(OURS.quantizer, beam=2)}, "quantizer.beam is 2"),
    ],
)
def test_what_theirs_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"EncodecModel cannot be this codec: .*{message}"):
        to_transformers(NeuralCodec(replace(OURS, **change)))
