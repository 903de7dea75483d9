"""Sound files and waveforms."""

from __future__ import annotations

import errno
import math
import os
import warnings
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiolm_kit import audio
from audiolm_kit.audio import Sound

RATE = 16000


def noise(channels: int = 1, length: int = RATE, seed: int = 0) -> torch.Tensor:
    return torch.rand(channels, length, generator=torch.Generator().manual_seed(seed)) - 0.5


def tone(hertz: float, seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> Sound:
    time = torch.arange(round(seconds * rate)) / rate
    return Sound((0.5 * torch.sin(2 * math.pi * hertz * time)).repeat(channels, 1), rate)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_sixteen_bit_sounds_survive_reading_and_writing_bit_for_bit(tmp_path: Path, suffix: str, channels: int) -> None:
    samples = torch.randint(-32768, 32768, (channels, 5000), generator=torch.Generator().manual_seed(1)) / 32768
    audio.write(tmp_path / f"a.{suffix}", Sound(samples, 22050))
    sound = audio.read(tmp_path / f"a.{suffix}")
    assert sound.sample_rate == 22050
    assert sound.samples.dtype == torch.float32
    assert torch.equal(sound.samples, samples)


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_formats_keep_length_channels_and_sound(tmp_path: Path, suffix: str, channels: int) -> None:
    given = tone(440, channels=channels)
    audio.write(tmp_path / f"a.{suffix}", given)
    sound = audio.read(tmp_path / f"a.{suffix}")
    assert sound.sample_rate == RATE
    assert sound.samples.shape == given.samples.shape
    assert correlation(sound.samples, given.samples) > 0.99


def test_minutes_of_vorbis_are_written(tmp_path: Path) -> None:
    audio.write(tmp_path / "long.ogg", Sound(noise(1, 300 * 8000), 8000))
    assert audio.info(tmp_path / "long.ogg").duration == 300


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize(("start", "seconds"), [(0.0, 0.25), (0.3, 0.2), (1.9, 0.5), (1.25, None)])
def test_crops_equal_slices_of_the_whole(tmp_path: Path, suffix: str, start: float, seconds: float | None) -> None:
    audio.write(tmp_path / f"a.{suffix}", Sound(noise(2, 2 * RATE), RATE))
    whole = audio.read(tmp_path / f"a.{suffix}").samples
    crop = audio.read(tmp_path / f"a.{suffix}", start, seconds).samples
    first = round(start * RATE)
    wanted = whole[:, first:] if seconds is None else whole[:, first : first + round(seconds * RATE)]
    torch.testing.assert_close(crop, wanted, rtol=0, atol=0 if suffix in ("wav", "flac") else 1e-4)


def test_a_crop_decodes_no_more_than_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio.write(tmp_path / "a.flac", Sound(noise(1, 10 * RATE), RATE))
    asked = []
    decode = soundfile.SoundFile.read

    def counting(self: soundfile.SoundFile, frames: int, **options: object) -> object:
        asked.append(frames)
        return decode(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    audio.read(tmp_path / "a.flac", 5, 0.5)
    assert asked == [RATE // 2]


@pytest.mark.parametrize("start", [1.0, 7.5])
def test_a_crop_beyond_the_end_says_where_the_end_is(tmp_path: Path, start: float) -> None:
    audio.write(tmp_path / "a.wav", Sound(noise(), RATE))
    with pytest.raises(ValueError, match=r"a\.wav from .* ends at 1\.000 s"):
        audio.read(tmp_path / "a.wav", start)


@pytest.mark.parametrize(("start", "seconds"), [(-1, None), (math.nan, None), (0, 0), (0, -1), (0, math.inf)])
def test_senseless_crops_are_refused(tmp_path: Path, start: float, seconds: float | None) -> None:
    audio.write(tmp_path / "a.wav", Sound(noise(), RATE))
    with pytest.raises(ValueError, match="start >= 0 and seconds > 0"):
        audio.read(tmp_path / "a.wav", start, seconds)


def test_info_reads_the_header(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.flac", Sound(noise(2, 1234), 8000))
    info = audio.info(tmp_path / "a.flac")
    assert info == audio.Info(8000, 2, 1234, "FLAC")
    assert info.duration == 1234 / 8000


@pytest.mark.parametrize("content", [b"", b"not a sound at all", b"RIFF\x00\x00\x00\x00WAVE"])
def test_unreadable_files_are_named_in_one_line_with_the_readable_formats(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.wav.*WAV, FLAC, OGG, MP3") as error:
        audio.read(tmp_path / "bad.wav")
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no sound file"):
        audio.read(tmp_path / "none.wav")
    with pytest.raises(ValueError, match="cannot read"):
        audio.read(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_reading_refuses_samples_that_are_not_numbers(tmp_path: Path, value: float) -> None:
    soundfile.write(tmp_path / "a.wav", [0.1, value, 0.2], 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"a\.wav holds NaN or infinite"):
        audio.read(tmp_path / "a.wav")


def test_reading_refuses_a_file_without_samples(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", [], 8000)
    with pytest.raises(ValueError, match=r"a\.wav is empty"):
        audio.read(tmp_path / "a.wav")


def test_a_file_that_breaks_off_warns_or_is_refused(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.flac", Sound(noise(1, 5 * RATE), RATE))
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) // 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, UserWarning), match="breaks off|cut off"):
            audio.read(tmp_path / "a.flac")
    found = audio.survey(tmp_path / "a.flac")
    assert found.num_samples < found.num_promised == 5 * RATE


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (torch.tensor([[0.0, math.nan]]), "NaN"),
        (torch.tensor([[math.inf]]), "NaN or infinite"),
        (torch.zeros(1, 0), "empty"),
        (torch.zeros(4), r"\[channels, samples\]"),
    ],
)
def test_writing_refuses_what_is_not_a_sound(tmp_path: Path, samples: torch.Tensor, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        audio.write(tmp_path / "a.wav", Sound(samples, RATE))
    assert os.listdir(tmp_path) == []


def test_writing_names_the_suffixes_it_knows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.m4a', choose one of \.wav \.flac \.ogg \.mp3"):
        audio.write(tmp_path / "a.m4a", Sound(noise(), RATE))


def test_writing_names_the_format_that_cannot_hold_the_sound(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MP3 does not take 1 channels at 12345 Hz"):
        audio.write(tmp_path / "a.mp3", Sound(noise(), 12345))
    assert os.listdir(tmp_path) == []


def test_writing_clips_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="peak is 2"):
        audio.write(tmp_path / "a.wav", Sound(torch.tensor([[2.0, -2.0, 0.25]]), RATE))
    assert audio.read(tmp_path / "a.wav").samples.tolist() == [[32767 / 32768, -1.0, 0.25]]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio.write(tmp_path / "a.wav", Sound(torch.full((1, 10), 0.5), RATE))
    old = (tmp_path / "a.wav").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*a\.wav \(No space left on device\)") as error:
        audio.write(tmp_path / "a.wav", Sound(noise(), RATE))
    assert error.value.errno == errno.ENOSPC
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == old


def test_a_written_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    audio.write(tmp_path / "new" / "a.wav", Sound(noise(), RATE))
    assert (tmp_path / "new" / "a.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(("old", "new"), [(8000, 16000), (44100, 16000), (16000, 24000), (48000, 16000)])
def test_resampling_keeps_the_tone_and_scales_the_length(old: int, new: int) -> None:
    length = round(0.777 * old)
    resampled = audio.resample(tone(440, 1, old, 2).samples[:, :length], old, new)
    assert resampled.shape == (2, round(length * new / old))
    wanted = tone(440, 1, new, 2).samples[:, : resampled.shape[-1]]
    middle = slice(new // 20, -new // 20)  # the edges ring
    torch.testing.assert_close(resampled[:, middle], wanted[:, middle], rtol=0, atol=2e-3)


def test_resampling_removes_what_the_new_rate_cannot_hold() -> None:
    assert audio.rms_dbfs(audio.resample(tone(6000).samples, 16000, 8000)[:, 400:-400]) < -60


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_even_the_shortest_audio_resamples(length: int) -> None:
    assert audio.resample(torch.ones(1, length), 44100, 8000).shape == (1, max(1, round(length * 8000 / 44100)))


def test_resampling_keeps_leading_axes() -> None:
    batch = noise(6, 3000).reshape(3, 2, 3000)
    resampled = audio.resample(batch, 16000, 8000)
    assert torch.equal(resampled[1, 1], audio.resample(batch[1, 1], 16000, 8000))


def test_channels_are_averaged_or_repeated_and_nothing_else() -> None:
    stereo = noise(2, 8)
    assert torch.equal(audio.to_channels(stereo, 1), stereo.mean(0, keepdim=True))
    assert torch.equal(audio.to_channels(stereo[:1], 2), stereo[:1].repeat(2, 1))
    assert audio.to_channels(stereo, 2) is stereo
    with pytest.raises(ValueError, match="cannot mix 6 channels to 2"):
        audio.to_channels(noise(6, 8), 2)


def test_fit_gives_the_wanted_rate_and_channels() -> None:
    fitted = audio.fit(tone(440, 1, 44100, 2), 16000, 1)
    assert fitted.sample_rate == 16000
    assert fitted.samples.shape == (1, 16000)
    assert torch.equal(audio.fit(tone(440), RATE, 2).samples, tone(440).samples.repeat(2, 1))


def test_rms_of_known_waves() -> None:
    assert audio.rms_dbfs(torch.ones(1, 100)) == 0
    assert audio.rms_dbfs(tone(100).samples) == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=1e-3)
    assert audio.rms_dbfs(torch.zeros(1, 10)) == -math.inf


def test_normalise_reaches_the_level_or_stops_at_the_peak() -> None:
    assert audio.rms_dbfs(audio.normalise(tone(440), -30).samples) == pytest.approx(-30, abs=1e-3)
    click = torch.zeros(1, 1000)
    click[0, 5] = 0.1
    assert float(audio.normalise(Sound(click, RATE), -3).samples.max()) == pytest.approx(0.99)
    with pytest.raises(ValueError, match="silent"):
        audio.normalise(Sound(torch.zeros(1, 10), RATE))


def test_k_weighting_at_48_khz_is_what_the_standard_prints() -> None:
    numerators, denominators = audio.k_weighting(48000)
    shelf, cut = [1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -2.0, 1.0]
    torch.testing.assert_close(numerators, torch.tensor([shelf, cut], dtype=torch.float64), rtol=0, atol=1e-8)
    shelf, cut = [1.0, -1.69065929318241, 0.73248077421585], [1.0, -1.99004745483398, 0.99007225036621]
    torch.testing.assert_close(denominators, torch.tensor([shelf, cut], dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_a_full_scale_tone_of_997_hz_is_minus_3_lufs(rate: int) -> None:
    sound = tone(997, 3, rate)
    assert audio.loudness(Sound(2 * sound.samples, rate)) == pytest.approx(-3.01, abs=0.05)
    assert audio.loudness(Sound(sound.samples.repeat(2, 1), rate)) == pytest.approx(-6.02, abs=0.05)


def test_silence_around_a_sound_is_gated_out() -> None:
    sound = tone(997, 5)
    padded = torch.nn.functional.pad(sound.samples, (20 * RATE, 20 * RATE))
    assert audio.loudness(Sound(padded, RATE)) == pytest.approx(audio.loudness(sound), abs=0.4)
    assert audio.loudness(Sound(torch.zeros(1, RATE), RATE)) == -math.inf


def test_mel_filters_are_triangles_of_equal_area_on_slaneys_scale() -> None:
    filters = audio.mel_filters(16000, 4096, 40)
    assert filters.shape == (40, 2049)
    areas = filters.sum(1) * 16000 / 4096
    torch.testing.assert_close(areas, torch.ones(40), rtol=0.02, atol=0)
    peaks = filters.argmax(1) * 16000 / 4096
    low = peaks[peaks < 900].diff()  # linear below 1 kHz, geometric above
    high = (peaks[2:] / peaks[1:-1])[peaks[1:-1] > 1100]
    assert float(low.max() - low.min()) < 8
    assert float(high.max() - high.min()) < 0.01


def test_mel_filters_equal_those_of_transformers() -> None:
    library = pytest.importorskip("transformers.audio_utils")
    theirs = library.mel_filter_bank(513, 80, 20.0, 7600.0, 16000, norm="slaney", mel_scale="slaney")
    ours = audio.mel_filters(16000, 1024, 80, 20.0, 7600.0)
    torch.testing.assert_close(ours, torch.from_numpy(theirs.T).float(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("bounds", [(0.0, 9000.0), (4000.0, 4000.0), (-1.0, 4000.0)])
def test_impossible_mel_bounds_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="0 <= f_min < f_max <= 8000"):
        audio.mel_filters(16000, 512, 20, *bounds)


def test_log_mel_peaks_at_the_tone_and_has_a_gradient() -> None:
    samples = tone(1000).samples.reshape(1, 1, -1).requires_grad_()
    mel = audio.log_mel(samples, RATE, num_mels=40)
    assert mel.shape == (1, 1, 40, 1 + RATE // 256)
    centre = audio.mel_filters(RATE, 1024, 40)[:, 64].argmax()  # bin 64 is 1000 Hz
    assert (mel[0, 0, :, 5:-5].argmax(0) == centre).all()
    mel.sum().backward()
    assert samples.grad is not None
    assert torch.isfinite(samples.grad).all()


def test_log_mel_of_a_few_samples_is_one_frame() -> None:
    assert audio.log_mel(torch.ones(10), RATE).shape == (80, 1)


def test_survey_sees_peak_clipping_and_equal_content(tmp_path: Path) -> None:
    samples = torch.full((1, 200_000), 0.25)  # several blocks
    samples[0, :20_000] = 1 - 1 / 32768
    audio.write(tmp_path / "a.wav", Sound(samples, RATE))
    audio.write(tmp_path / "b.flac", Sound(samples, RATE))
    audio.write(tmp_path / "c.wav", Sound(samples, 8000))
    found = audio.survey(tmp_path / "a.wav")
    assert (found.num_samples, found.num_promised, found.clipped) == (200_000, 200_000, 0.1)
    assert found.duration == 12.5
    assert found.digest == audio.survey(tmp_path / "b.flac").digest
    assert found.digest != audio.survey(tmp_path / "c.wav").digest
    assert audio.survey(tmp_path / "a.wav", 2).peak == 0.25


# --- streams of WAV


def loud_noise(channels: int, length: int) -> torch.Tensor:
    """Past full scale here and there, as decoders are, and at the very ends of the scale."""
    samples = 2.2 * noise(channels, length)
    samples[0, :4] = torch.tensor([1.0, -1.0, 0.5 / 32768, 1.5 / 32768])
    return samples


@pytest.mark.filterwarnings("ignore:.*is clipped.*")
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_header_and_pieces_are_the_file_that_write_makes(tmp_path: Path, channels: int) -> None:
    samples = loud_noise(channels, 5000)
    audio.write(tmp_path / "a.wav", Sound(samples, 22050))
    pieces = [audio.pcm16(piece) for piece in samples.split(777, dim=1)]
    whole = b"".join([audio.wav_header(22050, channels, 5000), *pieces])
    (tmp_path / "b.wav").write_bytes(whole)
    assert torch.equal(audio.read(tmp_path / "b.wav").samples, audio.read(tmp_path / "a.wav").samples)
    assert audio.info(tmp_path / "b.wav") == audio.info(tmp_path / "a.wav")
    assert whole == (tmp_path / "a.wav").read_bytes() or channels > 2  # libsndfile describes more channels at length


def test_a_stream_without_a_length_is_read_to_its_end(tmp_path: Path) -> None:
    samples = loud_noise(2, 3000)
    (tmp_path / "a.wav").write_bytes(audio.wav_header(16000, 2) + audio.pcm16(samples))
    read, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert rate == 16000 and read.tobytes() == audio.pcm16(samples)
    assert audio.wav_header(16000, 2)[4:8] == audio.wav_header(16000, 2)[40:44] == b"\xff" * 4
    assert len(audio.wav_header(16000, 2)) == 44


def test_python_reads_the_header_too(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(audio.wav_header(8000, 1, 5) + audio.pcm16(torch.zeros(1, 5)))
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getparams()[:4] == (1, 2, 8000, 5)


def test_sixteen_bits_are_read_back_and_written_again_alike() -> None:
    numbers = torch.arange(-32768, 32768)[None]
    assert audio.pcm16(numbers / 32768) == numbers.numpy().astype("<i2").tobytes()
    assert audio.pcm16(torch.tensor([[1.0, -1.0, 7.0, -7.0]])) == np.array([32767, -32768] * 2, "<i2").tobytes()
    assert audio.pcm16(torch.zeros(2, 0)) == b""
    assert audio.pcm16(torch.tensor([[0.25], [-0.5]], requires_grad=True)) == np.array([8192, -16384], "<i2").tobytes()


def test_what_no_wav_can_hold_is_refused_in_one_line() -> None:
    for act, told in (
        (lambda: audio.wav_header(0, 1), "1 channels at 0 Hz"),
        (lambda: audio.wav_header(8000, 0), "0 channels at 8000 Hz"),
        (lambda: audio.wav_header(8000, 1, -1), "cannot hold -1 samples"),
        (lambda: audio.wav_header(48000, 2, 2**30), "cannot hold 1073741824 samples of 2 channels: write a .flac"),
        (lambda: audio.pcm16(torch.zeros(4)), r"a sound is \[channels, samples\], got \[4\]"),
        (lambda: audio.pcm16(torch.tensor([[math.nan]])), "NaN"),
    ):
        with pytest.raises(ValueError, match=told) as refusal:
            act()
        assert "\n" not in str(refusal.value)
