"""Generation: milliseconds a frame alone, frames a second in a batch, early and late in a sound, and the first audio.

Shapes: B batch, K codebooks, T frames.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from bench_cases import AUDIOCRAFT, FEW, OURS, TRANSFORMERS, Check, Contender, Group, Least, Run, Sizes, timed, wait
from bench_models import (
    BITS,
    Asked,
    asked,
    audiocraft_codes,
    audiocraft_lm,
    our_codes,
    our_context,
    our_frame_seconds,
    our_lm,
    our_sampling,
    our_variant,
    transformers_codes,
    transformers_frame_seconds,
    transformers_lm,
)
from torch import Tensor

from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.inference.streaming import Request, Section, chunks, codes
from audiolm_kit.layers import CrossAttention
from audiolm_kit.lm.model import StreamLM

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
PLAIN = ("fp32", "bf16", "int8", "int8, bf16", "int4", "int4, bf16")
"""What weights are kept as, and in what all else is computed."""
IN_A_BATCH = PLAIN[:4]
COMPILED = {"cpu": ("fp32, compiled",), "cuda": ("bf16, compiled", "int8, bf16, compiled", "int4, bf16, compiled")}
"""Those that are compiled too: on a CPU, where that takes long, one of them, and for requests alone."""
GREEDY = 24
"""Frames that must be the same."""
FAR_OFF = 0.5
"""Logits that differ from those of fp32 by more of their own size come from a fault, and not from rounding."""
LATE_STEPS = 8
STREAMED = 100
"""Frames of the sound whose beginning is waited for."""
MUSICGEN_RATIOS = (8, 5, 4, 4)


def groups(sizes: Sizes) -> Iterator[Group]:
    """All tasks; models are built when first asked for and kept until the section is done."""
    models = Models(sizes)
    yield whole_requests(models, sizes, 1, sizes.frames)
    yield whole_requests(models, sizes, sizes.batch, max(1, sizes.frames // 2))
    for known, kind in ((sizes.early, "decode.early"), (sizes.late, "decode.late")):
        yield one_frame(models, sizes, known, kind)
    yield first_audio(models, sizes)


class Loop(NamedTuple):
    """How somebody makes codes."""

    by: str
    built: Callable[[str], Any]
    """The model of an option."""
    codes: Callable[[Any, Asked], Tensor]


class Models:
    """The models of all packages, each built once."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        base = cache(lambda: our_lm(sizes))
        self.ours: Callable[[str], StreamLM] = cache(lambda option: our_variant(base(), option))
        self.transformers: Callable[[str], Any] = cache(lambda option: transformers_lm(base(), PRECISIONS[option]))
        self.audiocraft: Callable[[str], Any] = cache(lambda option: audiocraft_lm(base(), PRECISIONS[option]))
        self.loops = (
            Loop(OURS, self.ours, our_codes),
            Loop(TRANSFORMERS, self.transformers, transformers_codes),
            Loop(AUDIOCRAFT, self.audiocraft, audiocraft_codes),
        )
        self.greedy: Callable[[], Tensor] = cache(lambda: our_codes(base(), self.request))
        self.logits: Callable[[str], Tensor] = cache(self._logits)

    @property
    def request(self) -> Asked:
        """The greedy one by which models are compared."""
        return asked(self.sizes, 1, GREEDY, greedy=True)

    @torch.no_grad()
    def _logits(self, option: str) -> Tensor:
        """What ours thinks of the greedy codes of fp32, [1, K, S, V], read step by step as generation reads them."""
        lm, codes = self.ours(option), self.greedy()
        sequence = F.pad(lm.pattern.apply(codes, lm.special), (1, -1), value=lm.special)
        cache, context = lm.new_cache(1, codes.shape[-1]), our_context(lm, self.request)
        columns = (sequence[..., place : place + 1] for place in range(sequence.shape[-1]))
        steps = [lm.step_logits(step, context, cache=cache) for step in columns]
        return torch.cat(steps, dim=2).float()


def same_codes(models: Models, loop: Loop) -> Check:
    """Whether their model, which has the same weights, takes the same codes when it is left to itself."""
    ours, other = models.greedy(), loop.codes(loop.built("fp32"), models.request)
    if ours.shape != other.shape:
        return Check(False, f"not equal: codes {list(other.shape)}, ours {list(ours.shape)}")
    wrong = (ours != other).any(dim=1)[0].nonzero()
    if not len(wrong):
        return Check(True, f"{ours[0].numel()} greedy codes equal ours")
    return Check(False, f"not equal: greedy codes are others from frame {int(wrong[0])} on")


def near_logits(models: Models, option: str) -> Check:
    """How far the logits of a variant are from those of fp32, as a share of how much these vary."""
    wanted = models.logits("fp32")
    off = float((models.logits(option) - wanted).std() / wanted.std())
    told = f"logits off by {100 * off:.2g} % of their size"
    return Check(off < FAR_OFF, told if off < FAR_OFF else f"not equal: {told}")


# --- tasks ------------------------------------------------------------------------------------------------------------


def whole_requests(models: Models, sizes: Sizes, batch: int, frames: int) -> Group:
    """Requests from their first frame to their last, everybody's loop and sampling included."""
    request, alone = asked(sizes, batch, frames), batch == 1
    contenders = []
    for loop in models.loops:
        for option in options(sizes, alone) if loop.by == OURS else PRECISIONS:
            check = None
            if alone and loop.by == OURS and option != "fp32":
                check = partial(near_logits, models, option)
            if alone and loop.by != OURS and option == "fp32":
                check = partial(same_codes, models, loop)
            run = partial(running, loop, option, request, sizes.device)
            contenders.append(Contender(loop.by, option, run, least(models, request, option), check))
    task = f"batch {batch}, guidance 3, {frames} frames"
    unit, work = ("ms a frame", request.num_steps) if alone else ("frames/s", batch * request.num_steps)
    repeats = sizes.repeats if alone else min(FEW, sizes.repeats)
    return Group("decode", "decode.one" if alone else "decode.batch", task, unit, work, contenders, repeats)


def options(sizes: Sizes, alone: bool) -> tuple[str, ...]:
    """Of ours."""
    compiled = COMPILED[sizes.device.partition(":")[0]]
    return (*PLAIN, *compiled) if alone or sizes.device != "cpu" else IN_A_BATCH


def running(loop: Loop, option: str, request: Asked, device: str) -> Run:
    """A request from its beginning to its end."""
    model = loop.built(option)
    return timed(lambda: loop.codes(model, request), device)


def one_frame(models: Models, sizes: Sizes, known: int, kind: str) -> Group:
    """What one frame more takes where ``known`` stand already, of several the median; reading these is not counted."""
    request = asked(sizes, 1, LATE_STEPS + 1, known)

    def ours(option: str) -> Run:
        lm = models.ours(option)
        return lambda: statistics.median(our_frame_seconds(lm, request, sizes.device))

    def theirs() -> Run:
        model = models.transformers("fp32")
        return lambda: statistics.median(transformers_frame_seconds(model, request, sizes.device))

    task = f"one frame behind {known:,}, guidance 3"
    contenders = [
        Contender(OURS, "fp32", partial(ours, "fp32"), least(models, request, "fp32")),
        Contender(TRANSFORMERS, "fp32", theirs, least(models, request, "fp32")),
    ]
    return Group("decode", kind, task, "ms a frame", 1, contenders, repeats=1, rehearse=False)


def first_audio(models: Models, sizes: Sizes) -> Group:
    """From the states of a caption to the first samples, through the codec of MusicGen's shape."""
    codec = cache(lambda: musicgen_codec(sizes))
    request = asked(sizes, 1, STREAMED)

    def ours(option: str) -> Run:
        lm, model = models.ours(option), codec()
        return partial(seconds_to_first, lm, model, request, sizes.device)

    contenders = [Contender(OURS, option, partial(ours, option)) for option in options(sizes, alone=False)]
    return Group("decode", "decode.first", "first audio of a stream, guidance 3", "ms", 1, contenders)


@torch.no_grad()
def seconds_to_first(lm: StreamLM, codec: NeuralCodec, request: Asked, device: str) -> float:
    """As ``AudioGen.stream`` does once the caption is read by the T5."""
    wait(device)
    begun = time.perf_counter()
    section = Section(request.num_frames, our_context(lm, request))
    asked_for = Request(request.prompt, [section], our_sampling(request), [request.seed])
    gain = torch.ones(1, 1, 1, device=device)
    pieces = chunks(codec, codes(lm, asked_for), gain, request.num_frames * codec.hop)
    first = next(pieces)
    assert first.device.type == "cpu"
    return time.perf_counter() - begun


def musicgen_codec(sizes: Sizes) -> NeuralCodec:
    """EnCodec at 32 kHz as MusicGen has it, 50 frames a second, with random weights."""
    torch.manual_seed(sizes.seed)
    body = SEANetConfig(ratios=MUSICGEN_RATIOS, filters=2 * sizes.filters, causal=False)
    quantizer = QuantizerConfig(sizes.num_codebooks, sizes.codebook_size, body.dim)
    return NeuralCodec(CodecConfig(32000, body="seanet", seanet=body, quantizer=quantizer)).eval().to(sizes.device)


# --- the least that must be done --------------------------------------------------------------------------------------


def least(models: Models, request: Asked, option: str) -> Least:
    """Of a whole request, or of one frame behind a prompt: weights and cache are read at each step."""
    sizes, known = models.sizes, request.prompt.shape[-1]
    kept, number = option.partition(",")[0], 2 if "bf16" in option else 4
    rows, steps = 2 * len(request.texts), 1 if known else request.num_steps
    weights = num_step_weights(sizes)
    cached = rows * 2 * sizes.layers * sizes.dim * (known + steps / 2) * number
    read = steps * (weights * BITS[kept] / 8 + cached)
    return Least(read, steps * 2.0 * rows * weights, "fp32" if kept == "fp32" else "bf16")


@cache
def num_step_weights(sizes: Sizes) -> int:
    """Weights that every step multiplies by: layers and heads, without what is read once (the caption's keys)."""
    with torch.device("meta"):
        lm = our_lm(Sizes(**{**vars(sizes), "device": "meta"}))
    once = sum(each.key_value.weight.numel() for each in lm.modules() if isinstance(each, CrossAttention))
    return sum(each.numel() for part in (lm.transformer, lm.heads) for each in part.parameters()) - once
