"""An AudioGen as small as it gets, prompts for it, and what it decoded."""

from __future__ import annotations

import torch
from torch import Tensor

from audiolm_kit.audio import Sound
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.text import Vocabulary
from audiolm_kit.transformer import TransformerConfig

RATE, HOP = 8000, 160
TEXTS = ["a bell rings", "", "rain falls on a high and wide tin roof", "a low bell"]
SAMPLING = Sampling(top_k=8)


def a_codec(channels: int = 1, peak: float = 0.0) -> NeuralCodec:
    """Random, of fixed seed, 50 frames a second; its sounds reach about a tenth of full scale."""
    torch.manual_seed(0)
    body = ConvNeXtConfig(dim=8, width=16, encoder_layers=1, decoder_layers=1, hop=80, fft_size=160, frames_per_code=2)
    quantizer = QuantizerConfig(num_codebooks=2, codebook_size=16, dim=8)
    return NeuralCodec(
        CodecConfig(sample_rate=RATE, channels=channels, peak=peak, convnext=body, quantizer=quantizer)
    ).eval()


def a_model(vocabulary: Vocabulary, codec: NeuralCodec | None = None) -> AudioGen:
    """Random, of fixed seed; the language model in float64, where no rounding decides about a code."""
    torch.manual_seed(1)
    text = TextConfig(kind="small", dim=8, layers=1, heads=2, pieces=vocabulary.size)
    transformer = TransformerConfig(dim=16, heads=2, layers=2, cross_attention=True)
    lm = StreamLM(LMConfig(num_codebooks=2, codebook_size=16, transformer=transformer, text=text))
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return AudioGen(codec or a_codec(), lm.double(), TextConditioner(text, vocabulary))


def codes_of(decoded: list[Tensor]) -> list[Tensor]:
    """One [K, T] for each item, in order; the list is emptied."""
    codes = [row for batch in decoded for row in batch]
    decoded.clear()
    return codes


def a_tone(seconds: float, loudness: float = 0.1, rate: int = RATE, channels: int = 1, seed: int = 0) -> Sound:
    """Noise around a tone: no two frames alike."""
    time = torch.arange(round(seconds * rate)) / rate
    noise = torch.randn(channels, len(time), generator=torch.Generator().manual_seed(seed))
    samples = torch.sin(2 * torch.pi * 440 * time) + 0.3 * noise
    return Sound(samples * loudness / samples.square().mean().sqrt(), rate)


def rms(samples: Tensor) -> float:
    """Root mean square."""
    return float(samples.square().mean().sqrt())


def a_batch_of_prompts() -> list[Sound]:
    """Of three lengths."""
    return [a_tone(0.1, seed=1), a_tone(0.06, seed=2), a_tone(0.1, seed=3), a_tone(0.2, seed=4)]
