"""Time generation, codecs and a training step on this machine, beside transformers' MusicGen and the encodec package.

    python tools/benchmark_generate.py [-o build/bench.json] [--device cuda] [--dim 1024 --layers 24 ...]

Weights are random and of fixed seed: time does not depend on what was learned. What is compared has the same shape,
runs in the same process on the same threads, and takes turns, so that other work on the machine slows all alike.
Prints a Markdown table and writes every single time as JSON.

B batch, K codebooks, T frames, N context tokens, D width.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audiolm_kit.checkpoint import write_json
from audiolm_kit.codec.convnext import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.conditioning import Context, with_null
from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.model import LMConfig, StreamLM, loss
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.official.encodec import from_encodec, import_encodec
from audiolm_kit.transformer import TransformerConfig

OURS = "audiolm_kit"
GUIDANCE = 3.0
TOP_K = 250
CONTEXT_TOKENS = 16
PACKAGES = ("audiolm_kit", "torch", "transformers", "encodec")


@dataclass(frozen=True)
class Sizes:
    """What is timed; the defaults take about a minute on two CPU cores."""

    dim: int = 256
    heads: int = 4
    layers: int = 6
    num_codebooks: int = 4
    codebook_size: int = 1024
    frames: int = 50
    frame_rate: float = 50.0
    batches: tuple[int, ...] = (1, 8)
    seconds: float = 1.0
    """Of the sound that goes through the codecs."""
    sample_rate: int = 24000
    filters: int = 32
    """Width of the SEANet at the sample rate; 32 is EnCodec's."""
    repeats: int = 3
    device: str = "cpu"
    seed: int = 0


class Case(NamedTuple):
    """One thing to time: a task, and whose code does it."""

    task: str
    by: str
    run: Callable[[], object]
    frames: int  # that come out or go through, over the whole batch
    seconds: float  # of sound that these are


class Timing(NamedTuple):
    """What one case took."""

    task: str
    by: str
    median: float  # seconds, as the times are
    times: list[float]
    frames_per_second: float
    real_time_factor: float  # seconds per second of sound
    of_ours: float  # the median, as a multiple of our own for the same task


# --- the cases --------------------------------------------------------------------------------------------------------


def cases(sizes: Sizes) -> Iterator[Case]:
    """All cases, each ready to run."""
    yield from generation_cases(sizes)
    yield training_case(sizes)
    yield from codec_cases(sizes)


def generation_cases(sizes: Sizes) -> Iterator[Case]:
    """Codes out of a context, by our model and by theirs; every batch with guidance and without."""
    ours, theirs = our_lm(sizes), their_lm(sizes)
    for batch in sizes.batches:
        context = some_context(sizes, batch)
        frames = batch * sizes.frames
        for scale in (1.0, GUIDANCE):
            task = f"generate {batch} x {sizes.frames} frames, {'no guidance' if scale == 1 else 'guidance'}"
            runs = {
                OURS: partial(our_codes, ours, sizes, context, scale),
                "transformers": partial(their_codes, theirs, sizes, context, scale),
            }
            for by, run in runs.items():
                yield Case(task, by, run, frames, frames / sizes.frame_rate)


def our_lm(sizes: Sizes) -> StreamLM:
    """A model with cross-attention and a delay pattern."""
    torch.manual_seed(sizes.seed)
    transformer = TransformerConfig(dim=sizes.dim, heads=sizes.heads, layers=sizes.layers, cross_attention=True)
    return StreamLM(LMConfig(sizes.num_codebooks, sizes.codebook_size, "delay", transformer)).eval().to(sizes.device)


def their_lm(sizes: Sizes) -> Any:
    """MusicGen's decoder of the same shape, with the attention that transformers chooses by itself."""
    transformers = importlib.import_module("transformers")
    torch.manual_seed(sizes.seed)
    config = transformers.MusicgenDecoderConfig(
        vocab_size=sizes.codebook_size,
        num_codebooks=sizes.num_codebooks,
        hidden_size=sizes.dim,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        ffn_dim=4 * sizes.dim,
        pad_token_id=sizes.codebook_size,
        bos_token_id=sizes.codebook_size,
        max_position_embeddings=max(2048, sizes.frames + sizes.num_codebooks),
    )
    model = transformers.MusicgenForCausalLM(config).eval().to(sizes.device)
    model.generation_config.decoder_start_token_id = sizes.codebook_size
    return model


def some_context(sizes: Sizes, batch: int) -> Context:
    """Random states [B, N, D], nothing masked."""
    generator = torch.Generator().manual_seed(sizes.seed)
    states = torch.randn(batch, CONTEXT_TOKENS, sizes.dim, generator=generator).to(sizes.device)
    return Context(states, torch.ones(states.shape[:2], dtype=torch.bool, device=sizes.device))


def our_codes(lm: StreamLM, sizes: Sizes, context: Context, scale: float) -> Tensor:
    """Codes [B, K, T]."""
    batch = len(context.mask)
    prompt = torch.zeros(batch, sizes.num_codebooks, 0, dtype=torch.long, device=sizes.device)
    sampling = Sampling(top_k=TOP_K, guidance_scale=scale)
    return generate(lm, prompt, sizes.frames, sampling, context, seeds=range(sizes.seed, sizes.seed + batch))


@torch.no_grad()
def their_codes(lm: Any, sizes: Sizes, context: Context, scale: float) -> Tensor:
    """The same by transformers: codes [B, K, T]."""
    torch.manual_seed(sizes.seed)
    rows = sizes.num_codebooks * len(context.mask)
    if scale != 1:
        context = with_null(context)
    start = torch.full((rows, 1), sizes.codebook_size, device=sizes.device)
    codes: Tensor = lm.generate(
        start,
        attention_mask=torch.ones(rows // sizes.num_codebooks, 1, dtype=torch.long, device=sizes.device),
        encoder_hidden_states=context.states,
        encoder_attention_mask=torch.ones_like(context.mask, dtype=torch.long),  # their null is zeros, attended to
        max_length=sizes.frames + sizes.num_codebooks,
        do_sample=True,
        top_k=TOP_K,
        use_cache=True,
        num_return_sequences=1,
        guidance_scale=None if scale == 1 else scale,
    )
    return codes


def training_case(sizes: Sizes) -> Case:
    """Forward, backward and an AdamW step over the largest batch."""
    lm, batch = our_lm(sizes).train(), max(sizes.batches)
    generator = torch.Generator().manual_seed(sizes.seed)
    shape = (batch, sizes.num_codebooks, sizes.frames)
    codes = torch.randint(sizes.codebook_size, shape, generator=generator).to(sizes.device)
    context, mask = some_context(sizes, batch), torch.ones(batch, sizes.frames, dtype=torch.bool, device=sizes.device)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=1e-4)

    def step() -> None:
        loss(lm(codes, context), codes, mask).backward()
        optimizer.step()
        optimizer.zero_grad()

    frames = batch * sizes.frames
    return Case(f"training step, {batch} x {sizes.frames} frames", OURS, step, frames, frames / sizes.frame_rate)


def codec_cases(sizes: Sizes) -> Iterator[Case]:
    """Encode a sound and decode what that gave, by each codec."""
    generator = torch.Generator().manual_seed(sizes.seed)
    audio = 0.1 * torch.randn(1, 1, round(sizes.seconds * sizes.sample_rate), generator=generator).to(sizes.device)
    still, listed = torch.no_grad(), []
    for body, by, codec in codecs(sizes):
        encode, decode = still(codec.encode), still(codec.decode)
        encoded = encode(audio)
        frames = (encoded if by == OURS else encoded[0][0]).shape[-1]
        runs = {"encode": partial(encode, audio), "decode": partial(decode, encoded)}
        for way, run in runs.items():
            listed.append(Case(f"{way} {sizes.seconds:g} s, {body}", by, run, frames, sizes.seconds))
    yield from sorted(listed, key=lambda case: case.task)  # ours and theirs side by side


def codecs(sizes: Sizes) -> Iterator[tuple[str, str, Any]]:
    """Both of our bodies and, where encodec is installed, its own code with the weights of our SEANet."""
    quantizer = QuantizerConfig(num_codebooks=8, codebook_size=sizes.codebook_size, dim=128)
    theirs = their_codec(sizes, quantizer)
    if theirs is None:
        config = CodecConfig(
            sizes.sample_rate, body="seanet", seanet=SEANetConfig(filters=sizes.filters), quantizer=quantizer
        )
        yield "SEANet", OURS, NeuralCodec(config).eval().to(sizes.device)
    else:
        yield "SEANet", OURS, from_encodec(theirs)
        yield "SEANet", "encodec", theirs
    body = ConvNeXtConfig(dim=128)
    config = CodecConfig(sizes.sample_rate, body="convnext", convnext=body, quantizer=quantizer)
    yield "ConvNeXt", OURS, NeuralCodec(config).eval().to(sizes.device)


def their_codec(sizes: Sizes, quantizer: QuantizerConfig) -> Any:
    """An EncodecModel shaped as the 24 kHz one, with random weights; None where encodec is not installed."""
    try:
        encodec = import_encodec()
    except ModuleNotFoundError as error:
        warnings.warn(f"nothing to compare the codec with: {error}", stacklevel=2)
        return None
    torch.manual_seed(sizes.seed)
    warnings.filterwarnings("ignore", message=".*torch.nn.utils.weight_norm.*", category=FutureWarning)
    modules, quantization = (importlib.import_module(f"encodec.{name}") for name in ("modules", "quantization"))
    options = {"n_filters": sizes.filters, "dimension": quantizer.dim, "causal": True}
    books = quantization.ResidualVectorQuantizer(
        dimension=quantizer.dim, n_q=quantizer.num_codebooks, bins=quantizer.codebook_size
    )
    for layer in books.vq.layers:  # all entries are zero until they are trained
        layer._codebook.embed.normal_()
        layer._codebook.inited.fill_(1)
    encoder, decoder = modules.SEANetEncoder(**options), modules.SEANetDecoder(**options)
    model = encodec.EncodecModel(encoder, decoder, books, [], sizes.sample_rate, 1)
    return model.eval().to(sizes.device)


# --- timing -----------------------------------------------------------------------------------------------------------


def measured(
    listed: Sequence[Case], repeats: int, device: str = "cpu", clock: Callable[[], float] = time.perf_counter
) -> list[Timing]:
    """Run every case once to warm up, then all of them in turn, ``repeats`` times."""
    times: list[list[float]] = [[] for _ in listed]
    for repeat in range(repeats + 1):
        for case, taken in zip(listed, times, strict=True):
            begun = clock()
            case.run()
            if device != "cpu":
                torch.cuda.synchronize(device)
            if repeat:
                taken.append(clock() - begun)
    medians = [statistics.median(taken) for taken in times]
    ours = {case.task: median for case, median in zip(listed, medians, strict=True) if case.by == OURS}
    return [
        Timing(
            task=case.task,
            by=case.by,
            median=median,
            times=taken,
            frames_per_second=case.frames / median,
            real_time_factor=median / case.seconds,
            of_ours=median / ours[case.task],
        )
        for case, median, taken in zip(listed, medians, times, strict=True)
    ]


def hardware(device: str) -> str:
    """The machine in one line, without its name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = f"{processor()}, {cores} cores, {torch.get_num_threads()} threads"
    return told if device == "cpu" else f"{torch.cuda.get_device_name(device)} beside {told}"


def processor() -> str:
    """What the processor calls itself, where the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def versions() -> dict[str, str]:
    """Of Python and of the packages that were timed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def table(timings: Iterable[Timing]) -> str:
    """A Markdown table; the real-time factor is seconds of work per second of sound, small is fast."""
    rows = ["| task | by | median s | frames/s | real-time factor | of ours |", "|---|---|---:|---:|---:|---:|"]
    for each in timings:
        of_ours = "" if each.by == OURS else f"{each.of_ours:.2f} x"
        numbers = f"{each.median:.4f} | {each.frames_per_second:.0f} | {each.real_time_factor:.4f} | {of_ours}"
        rows.append(f"| {each.task} | {each.by} | {numbers} |")
    return "\n".join(rows)


def sizes_of(given: Sequence[str] | None = None) -> tuple[Sizes, Path]:
    """The command line: each field of Sizes is an option."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("build/bench.json"))
    for name, value in asdict(Sizes()).items():
        several: dict[str, Any] = {"nargs": "+", "type": int} if isinstance(value, tuple) else {"type": type(value)}
        parser.add_argument(f"--{name}", default=value, metavar=name.upper(), help=f"(default: {value})", **several)
    options = vars(parser.parse_args(given))
    output = options.pop("output")
    return Sizes(**{**options, "batches": tuple(options["batches"])}), output


def main(given: Sequence[str] | None = None) -> None:
    sizes, output = sizes_of(given)
    timings = measured(list(cases(sizes)), sizes.repeats, sizes.device)
    print(f"{hardware(sizes.device)}; {', '.join(f'{name} {each}' for name, each in versions().items())}\n")
    print(table(timings))
    about = {"hardware": hardware(sizes.device), "versions": versions(), "sizes": asdict(sizes)}
    write_json(output, about | {"timings": [each._asdict() for each in timings]})


if __name__ == "__main__":
    main()
