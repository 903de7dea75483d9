"""Codecs: ten seconds of sound to codes and back, by encodec, transformers and ours with the same weights.

Shapes: B batch, C channels, L samples, K codebooks, T frames.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from bench_cases import ENCODEC, OURS, TRANSFORMERS, Check, Contender, Group, Least, Run, Sizes, Unavailable, timed
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.codec.streaming import decode
from audiolm_kit.official.encodec import import_encodec, to_transformers
from audiolm_kit.official.encodec_names import encodec_state

RATE, BOOKS, ENTRIES = 24000, 8, 1024
"""EnCodec's 24 kHz model at 6 kbit/s."""
FEWEST_EQUAL = 0.995
"""Share of the codes: where two entries are equally near, rounding decides, and the books behind it follow."""
NEAR = 1e-3
"""How far sounds may be apart, as a share of the loudest sample."""

Codec = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""Audio [B, C, L] -> codes [B, K, T], and back."""
ENCODE, DECODE = 0, 1


@dataclass(frozen=True)
class Way:
    """Encode or decode, and what with."""

    index: int
    given: Tensor
    ours: Callable[[], Codec]
    device: str


def groups(sizes: Sizes) -> Iterator[Group]:
    """Encode and decode with EnCodec's network; and with the light body, which nobody else has."""
    audio, device = sound(sizes), sizes.device
    codec = cache(lambda: our_codec(sizes))
    ours = cache(lambda: our_pair(codec()))
    theirs: dict[str, Callable[[], Codec]] = {
        TRANSFORMERS: cache(lambda: transformers_pair(codec())),
        ENCODEC: cache(lambda: encodec_pair(codec())),
    }
    what = f"{sizes.seconds:g} s at 24 kHz, EnCodec's network"
    encoders = contenders(Way(ENCODE, audio, ours, device), theirs)
    yield Group("codec", "codec.encode", f"encode {what}", "s", 1, encoders)
    codes = ours()[ENCODE](audio)
    decoders = contenders(Way(DECODE, codes, ours, device), theirs)
    stream = torch.no_grad()(partial(decode, codec(), codes))
    pieces = Contender(OURS, "fp32, as a stream", lambda: timed(stream, device), decoders[0].least)
    yield Group("codec", "codec.decode", f"decode {what}", "s", 1, [*decoders, pieces])
    yield from light(audio, sizes)


def light(audio: Tensor, sizes: Sizes) -> Iterator[Group]:
    """The ConvNeXt body by itself."""
    ours = cache(lambda: our_pair(light_codec(sizes)))
    what = f"{sizes.seconds:g} s at 24 kHz, ConvNeXt body"
    for index, name, given in ((ENCODE, "encode", audio), (DECODE, "decode", ours()[ENCODE](audio))):
        alone = contenders(Way(index, given, ours, sizes.device), {})
        yield Group("codec", f"codec.light_{name}", f"{name} {what}", "s", 1, alone)


def contenders(way: Way, theirs: dict[str, Callable[[], Codec]]) -> list[Contender]:
    """Ours, and theirs that must give the same."""
    needs = least(way.ours()[way.index], way.given)

    def run(made: Callable[[], Codec]) -> Run:
        work = made()[way.index]
        return timed(lambda: work(way.given), way.device)

    def check(made: Callable[[], Codec]) -> Check:
        compare = (same_codes, same_sound)[way.index]
        return compare(way.ours()[way.index](way.given), made()[way.index](way.given))

    others = [Contender(by, "fp32", partial(run, made), needs, partial(check, made)) for by, made in theirs.items()]
    return [Contender(OURS, "fp32", partial(run, way.ours), needs), *others]


def same_codes(ours: Tensor, theirs: Tensor) -> Check:
    """All of them, but for ties."""
    if ours.shape != theirs.shape:
        return Check(False, f"not equal: codes {list(theirs.shape)}, ours {list(ours.shape)}")
    equal = float((ours == theirs).float().mean())
    told = f"{int((ours == theirs).sum())} of {ours.numel()} codes equal ours"
    return Check(equal >= FEWEST_EQUAL, told if equal >= FEWEST_EQUAL else f"not equal: {told}")


def same_sound(ours: Tensor, theirs: Tensor) -> Check:
    """The largest difference, as a share of the loudest sample."""
    if ours.shape != theirs.shape:
        return Check(False, f"not equal: sound {list(theirs.shape)}, ours {list(ours.shape)}")
    off = float((ours - theirs).abs().max() / ours.abs().max())
    told = f"sound off by {off:.1g} of its peak"
    return Check(off <= NEAR, told if off <= NEAR else f"not equal: {told}")


# --- the codecs -------------------------------------------------------------------------------------------------------


def sound(sizes: Sizes) -> Tensor:
    """Noise [1, 1, L], 20 dB below full scale."""
    generator = torch.Generator().manual_seed(sizes.seed)
    return 0.1 * torch.randn(1, 1, round(sizes.seconds * RATE), generator=generator).to(sizes.device)


def our_codec(sizes: Sizes) -> NeuralCodec:
    """EnCodec's 24 kHz network with random weights; the entries are as large as the latents of the sound."""
    torch.manual_seed(sizes.seed)
    body = SEANetConfig(filters=sizes.filters)
    config = CodecConfig(RATE, body="seanet", seanet=body, quantizer=QuantizerConfig(BOOKS, ENTRIES, body.dim))
    return with_entries(NeuralCodec(config), sizes)


def light_codec(sizes: Sizes) -> NeuralCodec:
    """The ConvNeXt body at its default sizes."""
    torch.manual_seed(sizes.seed)
    body = ConvNeXtConfig()
    config = CodecConfig(RATE, body="convnext", convnext=body, quantizer=QuantizerConfig(BOOKS, ENTRIES, body.dim))
    return with_entries(NeuralCodec(config), sizes)


@torch.no_grad()
def with_entries(codec: NeuralCodec, sizes: Sizes) -> NeuralCodec:
    """Codebooks as large as the latents, which an untrained network has all in one place: they are moved around zero.

    There, and not far out, distances are told apart as they are in a trained codec.
    """
    codec = codec.to(sizes.device).eval()
    frames = min(RATE // 4, sound(sizes).shape[-1]) // codec.config.frame
    latents = codec.encoder(sound(sizes)[..., : frames * codec.config.frame])[0].T
    last: Any = [layer for layer in codec.encoder.modules() if getattr(layer, "bias", None) is not None][-1]
    if last.bias.shape == latents.shape[1:]:
        last.bias.sub_(latents.mean(0))
    books: Any = codec.quantizer.books
    for book in books:
        book.embed.copy_(latents.std(0) * torch.randn(book.embed.shape).to(latents))
        book.inited.fill_(1)
    return codec


def our_pair(codec: NeuralCodec) -> Codec:
    """Ours, whole sounds at once."""
    still = torch.no_grad()
    return still(codec.encode), still(codec.decode)


def transformers_pair(codec: NeuralCodec) -> Codec:
    """transformers' ``EncodecModel`` with our weights."""
    model: Any = to_transformers(codec)
    model = model.to(next(codec.parameters()).device)

    @torch.no_grad()
    def encode(audio: Tensor) -> Tensor:
        return model.encode(audio).audio_codes[0]  # type: ignore[no-any-return]

    @torch.no_grad()
    def back(codes: Tensor) -> Tensor:
        return model.decode(codes[None], [None]).audio_values  # type: ignore[no-any-return]

    return encode, back


def encodec_pair(codec: NeuralCodec) -> Codec:
    """encodec's own ``EncodecModel`` with our weights, as its 24 kHz model is put together."""
    try:
        encodec = import_encodec()
    except ModuleNotFoundError as error:
        raise Unavailable(str(error)) from None
    warnings.filterwarnings("ignore", message=".*torch.nn.utils.weight_norm.*", category=FutureWarning)
    modules, quantization = (importlib.import_module(f"encodec.{name}") for name in ("modules", "quantization"))
    body = codec.config.seanet
    options = {"n_filters": body.filters, "dimension": body.dim, "ratios": list(body.ratios), "causal": True}
    books = quantization.ResidualVectorQuantizer(dimension=body.dim, n_q=BOOKS, bins=ENTRIES)
    encoder, decoder = modules.SEANetEncoder(**options), modules.SEANetDecoder(**options)
    model: Any = encodec.EncodecModel(encoder, decoder, books, [], RATE, 1)
    model.load_state_dict(encodec_state(codec.state_dict()))
    model = model.eval().to(next(codec.parameters()).device)

    @torch.no_grad()
    def encode(audio: Tensor) -> Tensor:
        [(codes, _)] = model.encode(audio)
        return codes  # type: ignore[no-any-return]

    @torch.no_grad()
    def back(codes: Tensor) -> Tensor:
        return model.decode([(codes, None)])  # type: ignore[no-any-return]

    return encode, back


def least(work: Callable[[Tensor], Tensor], given: Tensor) -> Least:
    """What is multiplied; torch's counter leaves out the LSTM, a few hundredths of it."""
    with FlopCounterMode(display=False) as counter:
        work(given)
    return Least(0.0, float(counter.get_total_flops()), "fp32")
