"""Weights in fewer bits, and what that changes: codes, sound and logits, measured beside the model as it was.

B batch, C channels, L samples, K codebooks, T frames, V codebook size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from audiolm_kit import AudioGen, AudioLM, StreamLM, eight_bits
from audiolm_kit.audio import Sound, fit
from audiolm_kit.codec.beginning import encoder_is_idle
from audiolm_kit.codec.convnext import ConvNeXtEncoder
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.rvq import Codebook
from audiolm_kit.evaluation.signal import mel_distance
from audiolm_kit.inference.semantics import track_of

Model = AudioGen | AudioLM
Facts = dict[str, float]
HALVES = (torch.float16, torch.bfloat16)
TRIED_FRAMES = 64
"""Of an AudioLM's stages, which are tried with codes drawn at random."""


@torch.no_grad()
def forget_training(model: nn.Module) -> None:
    """Set a codec's moving averages, which training alone reads, to what they began with, so that they can be rounded.

    Sums over the frames of a corpus are beyond the numbers of float16, or nearly so.
    """
    if isinstance(model, NeuralCodec):
        for book in cast("list[Codebook]", list(model.quantizer.books)):
            book.embed_sum.copy_(book.embed)
            book.cluster_size.fill_(1.0)


def halve(model: nn.Module) -> torch.dtype:
    """Turn a model's weights into the numbers of half size that are nearer to them, and return which those are.

    float16 has eight times the precision of bfloat16 and a small fraction of its range: weights of trained models lie
    well within that, so bfloat16 is for those that do not.
    """
    errors = {dtype: rounding_error(model, dtype) for dtype in HALVES}
    dtype = min(HALVES, key=errors.__getitem__)
    model.to(dtype)
    return dtype


@torch.no_grad()
def compact(codec: NeuralCodec) -> tuple[dict[str, Tensor], str]:
    """Round a codec of float32 in place, and return its state as it lies on disk and what to call that.

    What makes codes, and the linear way back, becomes float16 (or bfloat16, see ``halve``); the network that makes
    sound of codes 8 bits a weight, and so do weights of an encoder that nothing comes of.
    """
    halve(codec)
    half = next(codec.parameters()).dtype
    codec.float()
    heads = ["decoder."]
    if isinstance(codec.encoder, ConvNeXtEncoder) and encoder_is_idle(codec.encoder):
        heads += ["encoder.enter.", "encoder.leave."]
    told = tuple(heads)
    stored = eight_bits.rounded(codec, lambda name: name.startswith(told) and not name.startswith("decoder.linear."))
    scales = {name for name in stored if name.endswith(eight_bits.SCALE)}
    state = {
        name: each.to(half) if each.is_floating_point() and name not in scales else each
        for name, each in stored.items()
    }
    name = str(half).removeprefix("torch.")
    return state, f"{name} (its decoder int8)" if scales else name


def rounding_error(model: nn.Module, dtype: torch.dtype) -> float:
    """The largest error of any of a model's tensors, by its norm; infinite where a number is beyond the range."""
    errors = [0.0]
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and bool(tensor.any()):
            exact = tensor.double()
            error = float((exact.to(dtype).double() - exact).norm() / exact.norm())
            errors.append(error if error == error else float("inf"))
    return max(errors)


@torch.no_grad()
def differences(before: Model, after: Model, sounds: Sequence[Sound], texts: Sequence[str]) -> Facts:
    """What is another in the model that is stored than in the one it was made of, by names that a table can show.

    Args:
        sounds: what the tokenizers are given, one at least.
        texts: what an AudioGen is told of each; not looked at for an AudioLM.
    """
    told = codec_differences(before, after, sounds)
    if isinstance(before, AudioGen) and isinstance(after, AudioGen):
        codes = [codes_of(before, sound) for sound in sounds]
        pairs = [(logits(before, *each), logits(after, *each)) for each in zip(codes, texts, strict=True)]
        return told | logit_differences("", pairs)
    assert isinstance(before, AudioLM) and isinstance(after, AudioLM)
    heard = [[track_of(each.semantic, sound, each.device).codes for each in (before, after)] for sound in sounds]
    told["semantic codes that stay"] = share_alike(heard)
    for name, (_, lm) in before.stages.items():
        drawn, prefix = drawn_codes(lm)
        expected = [each(drawn, None, prefix) for each in (lm, after.stages[name][1])]
        told |= logit_differences(f"stage {name}: ", [(expected[0], expected[1])])
    return told


def codec_differences(before: Model, after: Model, sounds: Sequence[Sound]) -> Facts:
    """Codes that stay, and how far reconstructions are from those before, beside how far those are from the sound."""
    codes = [[codes_of(each, sound) for each in (before, after)] for sound in sounds]
    moved, lost = [], []
    for sound, (own, _) in zip(sounds, codes, strict=True):
        given = fitted(before, sound)
        first, second = (each.codec.decode(own)[..., : given.shape[-1]] for each in (before, after))
        moved.append(float(mel_distance(second, first, before.sample_rate).mean()))
        lost.append(float(mel_distance(first, given * level(first, given), before.sample_rate).mean()))
    return {
        "codes that stay": share_alike(codes),
        "mel distance to the reconstructions of the codec as it was, dB": sum(moved) / len(moved),
        "mel distance of those to the sounds, dB": sum(lost) / len(lost),
    }


def logit_differences(where: str, pairs: Sequence[tuple[Tensor, Tensor]]) -> Facts:
    """Of logits ``[B, K, T, V]`` before and after: their error by their deviation, and likeliest codes that stay."""
    errors = torch.cat([(second - first).flatten() for first, second in pairs])
    centred = torch.cat([(first - first.mean(-1, keepdim=True)).flatten() for first, _ in pairs])
    likeliest = [[first.argmax(-1), second.argmax(-1)] for first, second in pairs]
    return {
        f"{where}error of the logits by their deviation": float(errors.norm() / centred.norm()),
        f"{where}likeliest codes that stay": share_alike(likeliest),
    }


def logits(model: AudioGen, codes: Tensor, text: str) -> Tensor:
    """What a model expects of each of the codes ``[1, K, T]`` of a sound, ``[1, K, T, V]``."""
    context = None
    if model.conditioner is not None and text:
        context = model.lm.condition(model.conditioner.prepare([text], model.device))
    found: Tensor = model.lm(codes, context)
    return found


def drawn_codes(lm: StreamLM) -> tuple[Tensor, Tensor | None]:
    """Codes ``[1, K, T]`` of no sound, the same each time, and as many to stand in front, where there must be some."""
    generator, front = torch.Generator().manual_seed(0), lm.config.prefix
    codes = torch.randint(lm.config.codebook_size, (1, lm.config.num_codebooks, TRIED_FRAMES), generator=generator)
    if not front.num_codebooks:
        return codes, None
    return codes, torch.randint(front.codebook_size, (1, front.num_codebooks, TRIED_FRAMES), generator=generator)


def fitted(model: Model, sound: Sound) -> Tensor:
    """A sound as a model's codec takes it, ``[1, C, L]``."""
    return fit(sound, model.sample_rate, model.codec.channels).samples[None]


def codes_of(model: Model, sound: Sound) -> Tensor:
    """``[1, K, T]``."""
    return model.codec.encode(fitted(model, sound))


def level(made: Tensor, given: Tensor) -> Tensor:
    """How much louder a reconstruction is: codecs have levels of their own."""
    return made.square().mean().sqrt() / given.square().mean().sqrt().clamp_min(1e-9)


def share_alike(pairs: Sequence[Sequence[Tensor]]) -> float:
    """The share of codes that are the same before and after."""
    return float(torch.cat([(first == second).flatten() for first, second in pairs]).double().mean())
