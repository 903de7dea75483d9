"""Sound files and waveforms: read, write, resample, mix, measure, picture.

Shapes: C channels, L samples, F frequency bins, M mel bands, T frames.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

READABLE = "WAV, FLAC, OGG, MP3, AIFF and AU"
WRITABLE = {".wav": "PCM_16", ".flac": "PCM_16", ".ogg": "VORBIS", ".mp3": "MPEG_LAYER_III"}
FULL_SCALE = 0.999  # at or above this a sample counts as clipped
_BLOCK = 1 << 16  # samples per decoded or encoded block; Vorbis crashes when it is handed minutes at once


class Sound(NamedTuple):
    """A waveform and its clock; lossy decoders may overshoot [-1, 1] by a little."""

    samples: Tensor  # [C, L] float32 in [-1, 1]
    sample_rate: int


class Info(NamedTuple):
    """What a file's header says, without decoding it."""

    sample_rate: int
    channels: int
    num_samples: int
    format: str

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_samples / self.sample_rate


class Survey(NamedTuple):
    """What a sound file holds, measured block by block, however long it is."""

    sample_rate: int
    channels: int
    num_samples: int  # decoded
    num_promised: int  # said by the header; more than were decoded when the file is cut off
    peak: float
    clipped: float  # share of samples at full scale
    finite: bool
    digest: str  # of the decoded samples: equal for a WAV and its FLAC copy

    @property
    def duration(self) -> float:
        """Seconds that could be decoded."""
        return self.num_samples / self.sample_rate


def info(path: str | Path) -> Info:
    """Read a file's header."""
    with _opened(path) as file:
        return Info(file.samplerate, file.channels, file.frames, file.format)


def read(path: str | Path, start: float = 0.0, seconds: float | None = None) -> Sound:
    """Read a file, or ``seconds`` of it from ``start``; seeks there and decodes no more than it returns.

    Both are counted in the file's own samples. A crop that runs past the end comes back short; one that starts at
    or beyond the end is an error.
    """
    with _opened(path) as file:
        count = _seek(file, path, start, seconds)
        try:
            samples = file.read(count, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise ValueError(f"{path} breaks off while it is decoded ({_reason(error)}): replace the file") from error
        rate = file.samplerate
    if len(samples) < count:
        warnings.warn(f"{path} is cut off: {len(samples)} of {count} samples could be decoded", stacklevel=2)
    return Sound(checked(torch.from_numpy(np.ascontiguousarray(samples.T)), str(path)), rate)


def survey(path: str | Path, start: float = 0.0, seconds: float | None = None) -> Survey:
    """Decode a file (or a crop of it) in blocks and measure it; what ``read`` refuses to return is reported here."""
    peak, full, decoded, finite = 0.0, 0, 0, True
    with _opened(path) as file:
        count = _seek(file, path, start, seconds) if file.frames > 0 else 0
        digest = hashlib.blake2b(f"{file.samplerate} {file.channels}".encode(), digest_size=16)
        while decoded < count:
            try:
                block = file.read(min(_BLOCK, count - decoded), dtype="float32", always_2d=True)
            except soundfile.SoundFileError:
                break
            if not len(block):
                break
            decoded += len(block)
            digest.update(block.tobytes())
            finite = finite and bool(np.isfinite(block).all())
            loud = np.abs(np.nan_to_num(block))
            peak = max(peak, float(loud.max()))
            full += int((loud >= FULL_SCALE).sum())
        clipped = full / max(1, decoded * file.channels)
        return Survey(file.samplerate, file.channels, decoded, count, peak, clipped, finite, digest.hexdigest())


def write(path: str | Path, sound: Sound) -> None:
    """Write a sound in the format of the suffix (.wav, .flac: 16 bit; .ogg, .mp3), all of it or nothing.

    Samples outside [-1, 1] are clipped with a warning. What ``read`` gave back from 16 bits is written back exactly.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITABLE:
        raise ValueError(f"cannot write {path}: the suffix is {path.suffix!r}, choose one of {' '.join(WRITABLE)}")
    samples = checked(sound.samples, f"the sound for {path}").detach().cpu().float()
    if samples.dim() != 2:
        raise ValueError(f"a sound is [channels, samples], got {list(samples.shape)} for {path}: write one at a time")
    peak = float(samples.abs().max())
    if peak > 1:
        warnings.warn(f"{path} is clipped: its peak is {peak:.3g}, full scale is 1; use normalise first", stacklevel=2)
    write_bytes(path, _encode(path, samples.clamp(-1, 1).T.contiguous().numpy(), sound.sample_rate))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Put ``data`` under ``path`` in one step; a full disk or a kill leaves the old file, or none."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path} ({error.strerror}): free or choose another place") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def wav_header(sample_rate: int, channels: int, num_samples: int | None = None) -> bytes:
    """The 44 bytes in front of the `pcm16` of a .wav file: RIFF, 16-bit PCM.

    Args:
        num_samples: Of each channel; None for a stream whose end is not known yet, which has both sizes 0xFFFFFFFF, as
            ffmpeg writes them too: players and libsndfile take such a file to go on as long as bytes come.

    Raises:
        ValueError: A number that the header's fields cannot hold: more than 4 GiB of samples, say.
    """
    size = None if num_samples is None else 2 * channels * num_samples
    if sample_rate < 1 or not 0 < channels < 2**15 or 2 * channels * sample_rate >= 2**32:
        raise ValueError(f"a WAV cannot have {channels} channels at {sample_rate} Hz: give positive, usual numbers")
    if size is not None and not 0 <= size < 2**32 - 36:
        raise ValueError(f"a WAV cannot hold {num_samples} samples of {channels} channels: write a .flac, or a stream")
    sizes = (2**32 - 1, 2**32 - 1) if size is None else (36 + size, size)
    form = struct.pack("<HHIIHH", 1, channels, sample_rate, 2 * channels * sample_rate, 2 * channels, 16)
    return b"RIFF" + struct.pack("<I", sizes[0]) + b"WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", sizes[1])


def pcm16(samples: Tensor) -> bytes:
    """[C, L] as 16-bit little-endian integers, channels by turns: the very numbers that ``write`` puts into a .wav.

    What lies outside [-1, 1] is clipped, without a warning: a stream has one piece after another. L may be 0.
    """
    if samples.dim() != 2:
        raise ValueError(f"a sound is [channels, samples], got {list(samples.shape)}: give one at a time")
    if samples.numel() == 0:
        return b""
    return _sixteen_bits(checked(samples).detach().cpu().float().T.numpy()).astype("<i2").tobytes()


def fit(sound: Sound, sample_rate: int, channels: int) -> Sound:
    """Resample and mix a sound to what a model wants, [C, L] -> [channels, L']."""
    samples = to_channels(sound.samples, channels) if channels < len(sound.samples) else sound.samples
    samples = resample(samples, sound.sample_rate, sample_rate)
    return Sound(to_channels(samples, channels), sample_rate)


def resample(samples: Tensor, old_rate: int, new_rate: int) -> Tensor:
    """Change the clock, [..., L] -> [..., round(L * new_rate / old_rate)], on the CPU with soxr's high quality."""
    if old_rate <= 0 or new_rate <= 0:
        raise ValueError(f"sample rates must be positive, got {old_rate} and {new_rate}")
    if old_rate == new_rate:
        return samples
    length = max(1, round(samples.shape[-1] * new_rate / old_rate))
    flat = checked(samples, "audio to resample").detach().cpu().float().reshape(-1, samples.shape[-1])
    resampled = torch.from_numpy(soxr.resample(flat.T.numpy(), old_rate, new_rate, quality="HQ")).T
    resampled = torch.nn.functional.pad(resampled, (0, length - resampled.shape[-1]))  # soxr may round the other way
    return resampled.reshape(*samples.shape[:-1], length).to(samples).contiguous()


def to_channels(samples: Tensor, channels: int) -> Tensor:
    """Mix to mono by the mean, or repeat mono, [..., C, L] -> [..., channels, L]; other mixes are refused."""
    given = samples.shape[-2]
    if given == channels:
        return samples
    if channels == 1:
        return samples.mean(-2, keepdim=True)
    if given == 1:
        return samples.repeat_interleave(channels, -2)
    raise ValueError(f"cannot mix {given} channels to {channels}: mix the sound to mono (1 channel) first")


def checked(samples: Tensor, name: str = "audio") -> Tensor:
    """The samples themselves, or one line about why they are not a sound."""
    if samples.numel() == 0:
        raise ValueError(f"{name} is empty: at least one sample is needed")
    if not bool(torch.isfinite(samples).all()):
        raise ValueError(f"{name} holds NaN or infinite samples: they must be finite numbers in [-1, 1]")
    return samples


def rms_dbfs(samples: Tensor) -> float:
    """Root mean square over everything, in dB below full scale: a full-scale square wave is 0, silence -inf."""
    power = float(checked(samples).double().square().mean())
    return 10 * math.log10(power) if power > 0 else -math.inf


def normalise(sound: Sound, dbfs: float = -20.0, peak: float = 0.99) -> Sound:
    """Scale a sound to an RMS of ``dbfs``, or less where its highest sample would pass ``peak``."""
    level = rms_dbfs(sound.samples)
    if level == -math.inf:
        raise ValueError(f"a silent sound cannot be normalised to {dbfs} dBFS: leave it out")
    gain = min(10 ** ((dbfs - level) / 20), peak / float(sound.samples.abs().max()))
    return Sound(sound.samples * gain, sound.sample_rate)


def loudness(sound: Sound) -> float:
    """Integrated loudness in LUFS by ITU-R BS.1770-4: K-weighting, 400 ms blocks, both gates; -inf for silence.

    All channels weigh 1 (mono, stereo). A sound shorter than a block is one block.
    """
    samples = checked(sound.samples).double()
    block = min(round(0.4 * sound.sample_rate), samples.shape[-1])
    blocks = _k_weight(samples, sound.sample_rate).unfold(-1, block, max(1, block // 4))  # [C, blocks, block]
    power = blocks.square().mean(-1).sum(0)
    levels = -0.691 + 10 * torch.log10(power)
    absolute = levels > -70
    if not bool(absolute.any()):
        return -math.inf
    relative = -0.691 + 10 * torch.log10(power[absolute].mean()) - 10
    return float(-0.691 + 10 * torch.log10(power[absolute & (levels > relative)].mean()))


def mel_filters(
    sample_rate: int, fft_size: int, num_mels: int, f_min: float = 0.0, f_max: float | None = None
) -> Tensor:
    """Triangles of equal area, evenly spaced on Slaney's mel scale (Auditory Toolbox, 1998), [M, F].

    F = fft_size // 2 + 1. A band narrower than a bin may be empty: fewer bands or a longer FFT help.
    """
    top = sample_rate / 2 if f_max is None else f_max
    if not 0 <= f_min < top <= sample_rate / 2:
        raise ValueError(f"mel bands need 0 <= f_min < f_max <= {sample_rate / 2} Hz, got {f_min} and {top}")
    low, high = _mel(torch.tensor([f_min, top], dtype=torch.float64)).tolist()
    edges = _hertz(torch.linspace(low, high, num_mels + 2, dtype=torch.float64))[:, None]
    bins = torch.linspace(0, sample_rate / 2, fft_size // 2 + 1, dtype=torch.float64)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    area = 2 / (edges[2:] - edges[:-2])
    return (torch.minimum(rising, falling).clamp(min=0) * area).float()


def log_mel(
    audio: Tensor,
    sample_rate: int,
    fft_size: int = 1024,
    hop_length: int = 256,
    num_mels: int = 80,
    floor: float = 1e-5,
) -> Tensor:
    """Natural logarithm of the mel magnitudes, [..., L] -> [..., M, 1 + L // hop_length]; differentiable."""
    flat = audio.reshape(-1, audio.shape[-1])
    window = torch.hann_window(fft_size, dtype=audio.dtype, device=audio.device)
    spectrum = torch.stft(flat, fft_size, hop_length, window=window, pad_mode="constant", return_complex=True)
    mel = _cached_filters(sample_rate, fft_size, num_mels).to(audio) @ spectrum.abs()
    return mel.clamp(min=floor).log().reshape(*audio.shape[:-1], num_mels, -1)


_cached_filters = lru_cache(maxsize=64)(mel_filters)


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[soundfile.SoundFile]:
    if not Path(path).exists():
        raise FileNotFoundError(f"no sound file {path}")
    try:
        file = soundfile.SoundFile(str(path))
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        raise ValueError(f"cannot read {path} as sound ({_reason(error)}): readable are {READABLE}") from error
    with file:
        yield file


def _reason(error: Exception) -> str:
    """The cause without the path, which soundfile repeats, and without newlines."""
    return " ".join(getattr(error, "error_string", str(error)).split()).rstrip(".")


def _seek(file: soundfile.SoundFile, path: str | Path, start: float, seconds: float | None) -> int:
    """Go to the start of a crop; how many samples of it lie inside the file, at least one."""
    total: int = file.frames
    rate: int = file.samplerate
    if total <= 0:
        raise ValueError(f"{path} is empty: at least one sample is needed")
    if not (math.isfinite(start) and start >= 0) or not (seconds is None or (math.isfinite(seconds) and seconds > 0)):
        raise ValueError(f"a crop needs start >= 0 and seconds > 0, got start={start} and seconds={seconds} of {path}")
    first = round(start * rate)
    if first >= total:
        raise ValueError(f"cannot read {path} from {start} s: it ends at {total / rate:.3f} s")
    file.seek(first)
    return total - first if seconds is None else min(max(1, round(seconds * rate)), total - first)


def _encode(path: Path, samples: np.ndarray, sample_rate: int) -> bytes:
    """The bytes of a file of ``samples`` [L, C]; in memory, because only our own write can report a full disk."""
    container, subtype = path.suffix[1:].upper(), WRITABLE[path.suffix.lower()]
    if subtype == "PCM_16":
        samples = _sixteen_bits(samples)
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(buffer, "w", sample_rate, samples.shape[1], subtype, format=container) as file:
            for start in range(0, len(samples), _BLOCK):
                file.write(samples[start : start + _BLOCK])
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        given = f"{samples.shape[1]} channels at {sample_rate} Hz"
        raise ValueError(f"cannot write {path}: {container} does not take {given} ({_reason(error)})") from error
    return buffer.getvalue()


def _sixteen_bits(samples: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] to the nearest integers; 1 itself becomes 32767."""
    scaled: np.ndarray = np.clip(np.rint(samples * 32768), -32768, 32767)
    return scaled.astype(np.int16)


def _mel(hertz: Tensor) -> Tensor:
    """Slaney's scale: linear (15 mel per kHz) up to 1 kHz, then 27 mel for each factor of 6.4."""
    return torch.where(hertz < 1000, hertz * 0.015, 15 + 27 * torch.log(hertz.clamp(min=1000) / 1000) / math.log(6.4))


def _hertz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15, mel / 0.015, 1000 * torch.exp((mel.clamp(min=15) - 15) * math.log(6.4) / 27))


def k_weighting(sample_rate: int) -> tuple[Tensor, Tensor]:
    """BS.1770's shelf and high-pass as two biquads, numerators and denominators [2, 3] each.

    The standard prints coefficients for 48 kHz only; these are its analogue prototypes, bilinear at any rate.
    """
    shelf = math.tan(math.pi * 1681.974450955533 / sample_rate)
    cut = math.tan(math.pi * 38.13547087602444 / sample_rate)
    damp, cut_damp = shelf / 0.7071752369554196, cut / 0.5003270373238773
    gain = 10 ** (3.999843853973347 / 20)
    middle, norm = gain**0.4996667741545416 * damp, 1 + cut_damp + cut**2
    top = [[gain + middle + shelf**2, 2 * (shelf**2 - gain), gain - middle + shelf**2], [norm, -2 * norm, norm]]
    bottom = [[1 + damp + shelf**2, 2 * (shelf**2 - 1), 1 - damp + shelf**2]]
    bottom += [[norm, 2 * (cut**2 - 1), 1 - cut_damp + cut**2]]
    denominators = torch.tensor(bottom, dtype=torch.float64)
    return torch.tensor(top, dtype=torch.float64) / denominators[:, :1], denominators / denominators[:, :1]


def _k_weight(samples: Tensor, sample_rate: int) -> Tensor:
    """Filter [C, L] by its spectrum; half a second of zeros keeps the filters' tails from wrapping around."""
    if sample_rate < 4000:
        raise ValueError(f"loudness needs a sample rate of at least 4000 Hz, got {sample_rate}: use rms_dbfs")
    length = samples.shape[-1] + sample_rate // 2
    length += -length % 1024  # an FFT of a prime length is slow
    numerators, denominators = k_weighting(sample_rate)
    delay = torch.exp(-2j * math.pi * torch.arange(length // 2 + 1, dtype=torch.float64) / length)
    powers = torch.stack([delay**0, delay, delay**2])
    response = ((numerators.to(powers) @ powers) / (denominators.to(powers) @ powers)).prod(0)
    weighted: Tensor = torch.fft.irfft(torch.fft.rfft(samples, length) * response, length)
    return weighted[..., : samples.shape[-1]]
