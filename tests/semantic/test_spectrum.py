"""Log-mel frames are where their hops are; cepstra and deltas are what their formulas say; chords are their notes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiolm_kit.semantic.spectrum import COEFFICIENTS, Chroma, LogMel, at_peak, cepstra, deltas, semitones


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


# --- pitch classes


def chord(*pitches: int, sample_rate: int = 16000, level: float = 0.2) -> Tensor:
    """A second of sines, [1, L], of pitches as MIDI counts them."""
    clock = torch.arange(sample_rate) / sample_rate
    return level * sum(torch.sin(2 * torch.pi * 440 * 2 ** ((pitch - 69) / 12) * clock) for pitch in pitches)[None]


@pytest.mark.parametrize("pitch", [36, 45, 57, 69, 81, 93, 105, *range(60, 72)])
def test_a_note_is_its_pitch_class_in_every_octave(pitch: int) -> None:
    middle = Chroma(16000, 640)(chord(pitch))[0, 12, :12]
    assert int(middle.argmax()) == pitch % 12
    far = [(pitch + step) % 12 for step in range(2, 11)]
    assert float(middle[far].max()) < 0.5 * float(middle.max())


@pytest.mark.parametrize("pitches", [(60, 64, 67), (57, 60, 64), (48, 55, 63, 70), (55, 66, 74)])
def test_a_chord_is_its_notes_however_they_are_spread(pitches: tuple[int, ...]) -> None:
    middle = Chroma(16000, 640)(chord(*pitches))[0, 12, :12]
    assert set(middle.topk(len(pitches)).indices.tolist()) == {pitch % 12 for pitch in pitches}


def test_the_level_stands_apart_from_the_pitch_classes() -> None:
    chroma = Chroma(16000, 640)
    loud, soft = (chroma(chord(60, 64, 67, level=level))[0, 12] for level in (0.3, 0.1))
    torch.testing.assert_close(loud[:12].norm(), torch.tensor(1.0))
    assert float((loud[:12] - soft[:12]).norm()) < 0.15 and float(soft[12]) < 0.8 * float(loud[12])
    silence = chroma(torch.zeros(1, 16000))
    assert not silence.any()


def test_noise_that_is_hardly_there_is_no_chord() -> None:
    made = Chroma(16000, 640)(1e-4 * noise(1, 16000))[0]
    assert float(made[:, :12].norm(dim=1).max()) < 0.5


@pytest.mark.parametrize(("sample_rate", "fft_size"), [(16000, 4096), (8000, 2048), (44100, 16384), (200, 64)])
def test_semitones_weigh_the_bins_around_their_pitch(sample_rate: int, fft_size: int) -> None:
    weights = semitones(sample_rate, fft_size)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert bool((weights >= 0).all()) and 1 <= len(weights) <= 88
    bins = torch.arange(fft_size // 2 + 1) * sample_rate / fft_size
    wanted = 440 * 2 ** ((torch.arange(21, 21 + len(weights)) - 69) / 12)
    apart = (weights @ bins - wanted).abs()
    assert bool((apart < 0.02 * wanted).all())


def test_a_rate_below_all_pitches_is_refused() -> None:
    with pytest.raises(ValueError, match="sample_rate 50 has no pitches of a piano: give at least 60"):
        semitones(50, 64)
