"""Folded SEANets against their layers: the same at every length and in every cut; training knows nothing of them."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch
from torch import Tensor, nn

from audiolm_kit.codec import seanet
from audiolm_kit.codec.folded import Flow, Kept, Memory
from audiolm_kit.codec.seanet import SEANetConfig, SEANetDecoder, SEANetEncoder

CAUSAL = SEANetConfig(ratios=(4, 3, 2), filters=4, dim=6)


def with_options(**options: object) -> SEANetConfig:
    return dataclasses.replace(CAUSAL, **options)  # type: ignore[arg-type]


CONFIGS = {
    "causal": CAUSAL,
    "causal with zeros": with_options(pad_mode="constant"),
    "causal deep": with_options(residual_layers=3, dilation_base=3, lstm=1, compress=4),
    "identity": with_options(shortcut="identity", lstm=0),
    "cut on both sides": with_options(trim_right_ratio=0.5),
    "cut on the left": with_options(trim_right_ratio=0.0),
    "both ways": with_options(causal=False),
    "both ways with zeros": with_options(causal=False, pad_mode="constant"),
    "both ways deep": with_options(causal=False, residual_layers=2, residual_kernel=5),
    "no residuals": with_options(residual_layers=0, kernel=5, last_kernel=3),
    "ratios of one": with_options(ratios=(1, 5, 1)),
    "weak elu": with_options(elu_alpha=0.5),
    "wide": with_options(ratios=(2, 3), filters=64),
}
EVERY = pytest.mark.parametrize("name", CONFIGS)


def bodies(config: SEANetConfig, channels: int = 1) -> tuple[SEANetEncoder, SEANetDecoder]:
    """In evaluation mode, with known weights."""
    torch.manual_seed(0)
    return SEANetEncoder(config, channels).eval(), SEANetDecoder(config, channels).eval()


def noise(*shape: int) -> Tensor:
    """The same noise each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def in_pieces(flow: Flow, frames: Tensor, size: int) -> Tensor:
    """All that comes of frames [B, W, n] that are pushed so many at a time, after a first piece of the fewest."""
    start = max(flow.needed(1), size)
    pieces = [frames[..., :start], *frames[..., start:].split(size, -1)]
    made = [flow.push(piece, last=False) for piece in pieces]
    return torch.cat([*made, flow.push(frames[..., :0], last=True)], -1)


# --- the same as the layers ---------------------------------------------------


@EVERY
@torch.no_grad()
def test_folded_layers_equal_the_layers_at_every_length(name: str) -> None:
    encoder, decoder = (body.double() for body in bodies(CONFIGS[name], channels=2))
    hop = encoder.config.hop
    for frames in (1, 2, 6, 7, 8, 9, 20):
        for more in (0, 1, hop - 1):
            audio = noise(2, 2, frames * hop + more).double()
            torch.testing.assert_close(encoder(audio), encoder.layers(audio), atol=1e-12, rtol=1e-9)
        latents = noise(2, 6, frames).double()
        torch.testing.assert_close(decoder(latents), decoder.layers(latents), atol=1e-12, rtol=1e-9)


@EVERY
@torch.no_grad()
def test_any_cut_equals_the_whole(name: str) -> None:
    encoder, decoder = (body.double() for body in bodies(CONFIGS[name]))
    for body, given in ((encoder, noise(1, 1, 20 * encoder.config.hop + 5)), (decoder, noise(1, 6, 20))):
        wanted = body.layers(given.double())
        for size in (1, 3, 7, 50, 1000):
            torch.testing.assert_close(in_pieces(body.flow(), given.double(), size), wanted, atol=1e-12, rtol=1e-9)
            torch.testing.assert_close(body.flow().whole(given.double(), size), wanted, atol=1e-12, rtol=1e-9)


@EVERY
@torch.no_grad()
def test_in_full_precision_the_sound_is_the_same_up_to_rounding(name: str) -> None:
    encoder, decoder = bodies(CONFIGS[name])
    audio, latents = noise(1, 1, 50 * encoder.config.hop + 1), noise(1, 6, 50)
    torch.testing.assert_close(encoder(audio), encoder.layers(audio), atol=1e-5, rtol=0)
    torch.testing.assert_close(decoder(latents), decoder.layers(latents), atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_lstm_goes_on_step_by_step_or_at_once() -> None:
    torch.manual_seed(0)
    memory, frames = Memory(nn.LSTM(4, 4, 2).double()), noise(60, 4).double()
    wanted = memory.lstm(frames[:, None])[0][:, 0] + frames
    kept: Kept = None
    for begin, end in ((0, 3), (3, 3), (3, 40), (40, 41), (41, 60)):
        made, kept = memory.push(frames[begin:end], kept, end == 60)
        torch.testing.assert_close(made, wanted[begin:end])


@pytest.mark.parametrize("name", ["causal with zeros", "both ways with zeros"])
@torch.no_grad()
def test_the_fewest_samples_that_make_a_frame_do_and_one_less_does_not(name: str) -> None:
    encoder, _ = bodies(CONFIGS[name])
    least = encoder.flow().needed(1)
    assert encoder.flow().push(noise(1, 1, least), last=False).shape[-1] == 1
    assert encoder.flow().push(noise(1, 1, least - 1), last=False).shape[-1] == 0


@torch.no_grad()
def test_a_sound_of_a_batch_is_what_it_is_alone() -> None:
    encoder, decoder = bodies(CAUSAL)
    audio, latents = noise(3, 1, 500), noise(3, 6, 20)
    torch.testing.assert_close(encoder(audio)[1:2], encoder(audio[1:2]), atol=1e-6, rtol=0)
    torch.testing.assert_close(decoder(latents)[1:2], decoder(latents[1:2]), atol=1e-6, rtol=0)
    flow = encoder.flow()
    assert torch.equal(flow.push(audio, last=True)[1:2], encoder.flow().push(audio[1:2], last=True))
    assert encoder(audio[:0]).shape == (0, 6, 21)


# --- where they are used ------------------------------------------------------


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sounds that have gone through folded layers."""
    seen: list[int] = []
    one = Flow._one

    def counted(self: Flow, frames: Tensor, kept: list[Kept], last: bool) -> Tensor:
        seen.append(len(frames))
        return one(self, frames, kept, last)

    monkeypatch.setattr(Flow, "_one", counted)
    return seen


def test_inference_is_folded_and_training_is_not(runs: list[int]) -> None:
    encoder, audio = bodies(CAUSAL)[0], noise(1, 1, 480)
    with torch.no_grad():
        encoder(audio)
        assert runs
    runs.clear()
    assert torch.equal(encoder(audio), encoder.layers(audio)) and not runs
    with torch.no_grad():
        assert torch.equal(encoder.train()(audio), encoder.layers(audio)) and not runs
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(encoder.eval()(audio), encoder.layers(audio)) and not runs
        assert encoder.bfloat16()(audio.bfloat16()).dtype == torch.bfloat16 and not runs


def test_gradients_are_those_of_the_layers_also_after_inference() -> None:
    encoder, audio = bodies(CAUSAL)[0].train(), noise(1, 1, 480)
    encoder.layers(audio).square().sum().backward()
    wanted = [weight.grad.clone() for weight in encoder.parameters() if weight.grad is not None]
    encoder.zero_grad()
    with torch.no_grad():
        encoder.eval()(audio)
    encoder.train()(audio).square().sum().backward()
    found = [weight.grad for weight in encoder.parameters() if weight.grad is not None]
    assert len(found) == len(list(encoder.parameters()))
    assert all(torch.equal(*each) for each in zip(found, wanted, strict=True))


def test_long_sounds_go_through_in_pieces(runs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seanet, "PIECE", 240)
    encoder, decoder = bodies(CAUSAL)
    with torch.no_grad():
        assert encoder(noise(1, 1, 2400)).shape == (1, 6, 100)
        assert max(runs) == 240
        runs.clear()
        assert decoder(noise(1, 6, 100)).shape == (1, 1, 2400)
        assert sum(runs) > 100 and min(runs) == 10


@torch.no_grad()
def test_changed_weights_are_folded_anew() -> None:
    encoder, audio = bodies(CAUSAL)[0], noise(1, 1, 480)
    before = encoder(audio)
    first = next(encoder.parameters())
    first.mul_(2)
    changed = encoder(audio)
    assert not torch.allclose(changed, before)
    torch.testing.assert_close(changed, encoder.layers(audio), atol=1e-5, rtol=0)
    state = {name: weight / 2 for name, weight in encoder.state_dict().items()}
    encoder.load_state_dict(state)
    torch.testing.assert_close(encoder(audio), encoder.layers(audio), atol=1e-5, rtol=0)
    encoder.train()
    first.data.mul_(3)  # of which torch keeps no count
    torch.testing.assert_close(encoder.eval()(audio), encoder.layers(audio), atol=1e-5, rtol=0)
    encoder.double()
    torch.testing.assert_close(encoder(audio.double()), encoder.layers(audio.double()))


@torch.no_grad()
def test_a_network_that_has_run_is_saved_and_copied_as_before() -> None:
    encoder, audio = bodies(CAUSAL)[0], noise(1, 1, 480)
    names, size = list(encoder.state_dict()), len(pickle.dumps(encoder.state_dict()))
    made = encoder(audio)
    assert list(encoder.state_dict()) == names and len(pickle.dumps(encoder.state_dict())) == size
    assert torch.equal(copy.deepcopy(encoder)(audio), made)
    assert len(seanet._FOLDED) >= 1
    known = len(seanet._FOLDED)
    del encoder
    assert len(seanet._FOLDED) < known  # nothing is left of a network that is gone


def test_what_averages_over_time_is_not_folded(runs: list[int]) -> None:
    encoder, audio = bodies(with_options(causal=False, norm="time_group_norm"))[0], noise(1, 1, 480)
    with torch.no_grad():
        assert torch.equal(encoder(audio), encoder.layers(audio)) and not runs
    with pytest.raises(ValueError, match="time_group_norm averages over the whole sound"):
        encoder.flow()
