"""Log-mel frames are where their hops are; cepstra and deltas are what their formulas say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiolm_kit.semantic.spectrum import COEFFICIENTS, LogMel, at_peak, cepstra, deltas


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [1, 79, 80, 81, 800, 839])
def test_a_frame_for_every_begun_hop(length: int) -> None:
    assert LogMel(4000, 80, 20)(noise(2, length)).shape == (2, -(-length // 80), 20)


def test_a_click_is_loudest_in_the_frame_it_falls_into() -> None:
    mel = LogMel(4000, 80, 20)
    for frame in (0, 3, 9):
        audio = torch.zeros(1, 800)
        audio[0, frame * 80 + 40] = 1.0
        assert int(mel(audio).sum(-1).argmax()) == frame


@pytest.mark.parametrize(("sample_rate", "hop", "fft_size"), [(16000, 320, 512), (8000, 160, 256), (16000, 640, 1024)])
def test_the_window_holds_25_ms_and_a_hop(sample_rate: int, hop: int, fft_size: int) -> None:
    assert LogMel(sample_rate, hop, 20).fft_size == fft_size


def test_it_has_nothing_to_save() -> None:
    assert LogMel(4000, 80, 20).state_dict() == {}


def test_what_comes_later_leaves_earlier_frames_alone() -> None:
    mel, audio = LogMel(4000, 80, 20), noise(1, 800)
    longer = torch.cat([audio, torch.zeros(1, 400)], dim=1)
    torch.testing.assert_close(mel(longer)[:, :9], mel(audio)[:, :9])


def test_the_peak_takes_the_level_out_and_silence_at_the_end_changes_nothing() -> None:
    audio = noise(3, 500)
    quieter = audio * torch.tensor([[0.5], [0.1], [1.0]])
    torch.testing.assert_close(at_peak(quieter, 0.9), at_peak(audio, 0.9))
    assert at_peak(audio, 0.9).abs().amax(1) == pytest.approx([0.9] * 3)
    padded = torch.cat([audio, torch.zeros(3, 300)], dim=1)
    assert torch.equal(at_peak(padded, 0.9)[:, :500], at_peak(audio, 0.9))
    assert torch.equal(at_peak(audio, 0.0), audio)
    assert torch.equal(at_peak(torch.zeros(1, 10), 0.9), torch.zeros(1, 10))


def test_deltas_are_the_slope_of_a_line() -> None:
    line = torch.arange(10.0)[None, :, None] * torch.tensor([3.0, -1.0])
    torch.testing.assert_close(deltas(line)[:, 2:-2], torch.tensor([3.0, -1.0]).expand(1, 6, 2))
    assert bool((deltas(torch.ones(1, 1, 4)) == 0).all())


def test_cepstra_are_an_orthonormal_cosine_transform() -> None:
    frames = noise(2, 7, COEFFICIENTS)  # as many bands as coefficients: nothing is lost
    found = cepstra(frames)
    assert found.shape == (2, 7, 3 * COEFFICIENTS)
    torch.testing.assert_close(found[..., :COEFFICIENTS].square().sum(-1), frames.square().sum(-1))
    flat = cepstra(torch.ones(1, 3, 40))[0, 0]
    assert float(flat[0]) == pytest.approx(40**0.5) and float(flat[1:].abs().max()) < 1e-5
    torch.testing.assert_close(found[..., 13:26], deltas(found[..., :13]))
    torch.testing.assert_close(found[..., 26:], deltas(found[..., 13:26]))
