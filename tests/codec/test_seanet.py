"""Laws of the SEANet body: frame counts, causality, lengths, refusals."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from audiolm_kit.codec.seanet import Recurrence, SEANetConfig, SEANetDecoder, SEANetEncoder, padded

CAUSAL = SEANetConfig(ratios=(4, 3, 2), filters=4, dim=6, pad_mode="constant")
BOTH_WAYS = dataclasses.replace(CAUSAL, causal=False)
GROUP_NORM = dataclasses.replace(BOTH_WAYS, norm="time_group_norm", pad_mode="reflect")


def noise(*shape: int) -> Tensor:
    """The same noise each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def encoder(config: SEANetConfig, channels: int = 1) -> SEANetEncoder:
    """An encoder with known weights."""
    torch.manual_seed(0)
    return SEANetEncoder(config, channels)


def decoder(config: SEANetConfig, channels: int = 1) -> SEANetDecoder:
    """A decoder with known weights."""
    torch.manual_seed(0)
    return SEANetDecoder(config, channels)


@pytest.mark.parametrize("config", [CAUSAL, BOTH_WAYS, GROUP_NORM])
@pytest.mark.parametrize("length", [1, 5, 23, 24, 25, 240, 251])
def test_encoder_gives_a_frame_per_begun_hop(config: SEANetConfig, length: int) -> None:
    assert encoder(config, 2)(noise(2, 2, length)).shape == (2, 6, -(-length // 24))


@pytest.mark.parametrize("config", [CAUSAL, BOTH_WAYS, GROUP_NORM, dataclasses.replace(CAUSAL, trim_right_ratio=0.5)])
@pytest.mark.parametrize("num_frames", [1, 2, 11])
def test_decoder_gives_a_hop_per_frame(config: SEANetConfig, num_frames: int) -> None:
    assert decoder(config, 2)(noise(3, 6, num_frames)).shape == (3, 2, 24 * num_frames)


@pytest.mark.parametrize("shortcut", ["conv", "identity"])
def test_causal_encoder_hears_no_later_sample(shortcut: str) -> None:
    model = encoder(dataclasses.replace(CAUSAL, shortcut=shortcut, residual_layers=2))
    audio = noise(1, 1, 480)
    changed = audio.clone()
    changed[..., 240:] += 1
    before, after = model(audio), model(changed)
    assert torch.equal(before[..., :10], after[..., :10])
    assert not torch.allclose(before[..., 10], after[..., 10])


def test_causal_decoder_hears_no_later_frame() -> None:
    model, latents = decoder(CAUSAL), noise(1, 6, 20)
    changed = latents.clone()
    changed[..., 10:] += 1
    before, after = model(latents), model(changed)
    assert torch.equal(before[..., :240], after[..., :240])
    assert not torch.allclose(before[..., 240:], after[..., 240:])


@pytest.mark.parametrize(
    ("options", "context"),
    [
        ({}, (9, 0)),
        ({"residual_layers": 2}, (10, 0)),
        ({"trim_right_ratio": 0.5}, (8, 1)),
        ({"trim_right_ratio": 0.0}, (7, 2)),
        ({"causal": False}, (5, 5)),
        ({"causal": False, "ratios": (2, 3)}, (5, 5)),
        ({"ratios": (8, 5, 4, 2)}, (8, 0)),
        ({"ratios": (8, 5, 4, 2), "causal": False}, (4, 4)),
    ],
)
def test_the_context_is_what_a_frame_of_sound_depends_on(options: dict[str, object], context: tuple[int, int]) -> None:
    model = decoder(dataclasses.replace(CAUSAL, lstm=0, **options)).double()  # type: ignore[arg-type]
    latents, at, hop = noise(1, 6, 40).double().requires_grad_(), 20, model.config.hop
    model(latents)[..., at * hop : (at + 1) * hop].sum().backward()
    assert latents.grad is not None
    reached = latents.grad.abs().sum(1)[0].nonzero().flatten()
    assert (at - int(reached.min()), int(reached.max()) - at) == model.context == context


def test_an_lstm_leaves_the_context_of_the_layers_around_it() -> None:
    assert decoder(dataclasses.replace(CAUSAL, lstm=2)).context == decoder(dataclasses.replace(CAUSAL, lstm=0)).context


def test_a_decoder_that_averages_over_time_has_no_stages() -> None:
    with pytest.raises(ValueError, match="time_group_norm averages over the whole sound"):
        decoder(GROUP_NORM).stages()


@pytest.mark.parametrize("config", [CAUSAL, BOTH_WAYS])
def test_the_stages_one_after_the_other_are_the_decoder(config: SEANetConfig) -> None:
    model, frames = decoder(config), noise(2, 6, 9)
    wanted = model(frames)
    for stage in model.stages():
        length = frames.shape[-1]
        frames, _ = stage.network(frames, None)
        assert frames.shape[-1] == length * stage.hop
    assert torch.equal(frames, wanted)


def test_a_recurrence_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    lstm, frames = Recurrence(4, 2), noise(2, 4, 10)
    first, state = lstm.carried(frames[..., :3], None)
    rest, _ = lstm.carried(frames[..., 3:], state)
    torch.testing.assert_close(torch.cat([first, rest], -1), lstm(frames), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(lstm(frames[..., 3:]), rest)


def test_mirrored_borders_read_ahead_only_at_the_start() -> None:
    model = encoder(dataclasses.replace(CAUSAL, pad_mode="reflect"))
    audio = noise(1, 1, 480)
    late, early = audio.clone(), audio.clone()
    late[..., 240:] += 1
    early[..., 3] += 1
    assert torch.equal(model(audio)[..., :10], model(late)[..., :10])
    assert not torch.equal(model.layers[0](audio)[..., 0], model.layers[0](early)[..., 0])


def test_non_causal_encoder_hears_later_samples() -> None:
    model, audio = encoder(BOTH_WAYS), noise(1, 1, 480)
    changed = audio.clone()
    changed[..., 240:] += 1
    assert not torch.allclose(model(audio)[..., 9], model(changed)[..., 9])


def test_a_mirror_longer_than_the_sound_is_filled_with_zeros() -> None:
    two = torch.tensor([[[1.0, 2.0]]])
    assert padded(two, 3, 0, "reflect").tolist() == [[[0.0, 0.0, 2.0, 1.0, 2.0]]]
    assert padded(two, 1, 1, "reflect").tolist() == [[[2.0, 1.0, 2.0, 1.0]]]
    assert padded(two, 2, 1, "constant").tolist() == [[[0.0, 0.0, 1.0, 2.0, 0.0]]]


@pytest.mark.parametrize("config", [CAUSAL, GROUP_NORM])
def test_gradient_reaches_every_weight(config: SEANetConfig) -> None:
    both = torch.nn.Sequential(encoder(config), decoder(config))
    both(noise(2, 1, 480)).square().mean().backward()
    for name, weight in both.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name


def test_default_network_has_encodecs_size() -> None:
    config = SEANetConfig()
    assert config.hop == 320
    assert sum(weight.numel() for weight in SEANetEncoder(config).parameters()) == 7_425_792
    assert sum(weight.numel() for weight in SEANetDecoder(config).parameters()) == 7_426_018


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": ()}, "ratios"),
        ({"ratios": (4, 0)}, "ratios"),
        ({"causal": True, "norm": "time_group_norm"}, "time_group_norm"),
        ({"causal": False, "trim_right_ratio": 0.5}, "trim_right_ratio"),
        ({"trim_right_ratio": 1.5}, "trim_right_ratio"),
        ({"compress": 64}, "compress"),
    ],
)
def test_config_refuses_networks_that_cannot_work(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SEANetConfig(**options)  # type: ignore[arg-type]
