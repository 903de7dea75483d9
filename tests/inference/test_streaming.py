"""Streaming, long form and timelines: what comes in pieces is what comes at once, and nothing grows with the length."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from audiolm_kit.audio import Sound
from audiolm_kit.codec import streaming as decoding
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.inference import streaming
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.inference.streaming import Request, Section, Window, Windows, codes, plan, regrouped, window_seed
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.lm.pattern import PatternName
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.text import Vocabulary, train
from audiolm_kit.transformer import KVCache, TransformerConfig

RATE, HOP = 8000, 160
FRAME = HOP / RATE
SAMPLING = Sampling(top_k=8)
TIMELINE = ["0-0.1: rain", "0.1-0.2: rain and a dog"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return train(["a bell rings", "rain", "rain and a dog"], tmp_path_factory.mktemp("text") / "text.model", size=40)


def a_codec(body: str = "convnext", norm: str = "weight_norm") -> NeuralCodec:
    """Random, of fixed seed, 50 frames a second."""
    torch.manual_seed(0)
    quantizer = QuantizerConfig(num_codebooks=2, codebook_size=16, dim=8)
    if body == "seanet":
        seanet = SEANetConfig(ratios=(8, 5, 4), filters=2, dim=8, lstm=1, norm=norm, causal=norm == "weight_norm")  # type: ignore[arg-type]
        return NeuralCodec(CodecConfig(RATE, body="seanet", seanet=seanet, quantizer=quantizer)).eval()
    convnext = ConvNeXtConfig(
        dim=8, width=16, encoder_layers=1, decoder_layers=1, hop=80, fft_size=160, frames_per_code=2
    )
    return NeuralCodec(CodecConfig(RATE, convnext=convnext, quantizer=quantizer)).eval()


def a_model(vocabulary: Vocabulary, pattern: PatternName = "delay", codec: NeuralCodec | None = None) -> AudioGen:
    """Random, of fixed seed, and wild enough that each text and each code counts."""
    torch.manual_seed(1)
    text = TextConfig(kind="small", dim=8, layers=1, heads=2, pieces=vocabulary.size)
    transformer = TransformerConfig(dim=16, heads=2, layers=2, cross_attention=True)
    lm = StreamLM(LMConfig(num_codebooks=2, codebook_size=16, pattern=pattern, transformer=transformer, text=text))
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return AudioGen(codec or a_codec(), lm, TextConditioner(text, vocabulary))


@pytest.fixture(scope="module")
def model(vocabulary: Vocabulary) -> AudioGen:
    return a_model(vocabulary)


def joined(chunks: Iterator[Sound]) -> Tensor:
    """The samples of a stream, [C, L]."""
    return torch.cat([chunk.samples for chunk in chunks], dim=1)


def a_prompt(seconds: float = 0.1, seed: int = 0) -> Sound:
    return Sound(0.02 * torch.randn(1, round(seconds * RATE), generator=torch.Generator().manual_seed(seed)), RATE)


# --- what streams is what comes at once


@pytest.mark.parametrize("making", [{}, {"window": 0.1, "overlap": 0.04}], ids=["at once", "windows"])
@pytest.mark.parametrize(
    ("pattern", "body"),
    [("parallel", "convnext"), ("delay", "convnext"), ("delay", "seanet"), ("flatten", "seanet")],
)
def test_a_stream_is_the_offline_sound_bit_for_bit(
    vocabulary: Vocabulary, pattern: PatternName, body: str, making: dict[str, float]
) -> None:
    model = a_model(vocabulary, pattern, a_codec(body))
    given: dict[str, Any] = {"negative": "a bell rings", **making}
    for text in ("rain", TIMELINE):
        [whole] = model.generate([text], 0.21, SAMPLING, 3, **given)
        assert whole.samples.shape == (1, 1680)
        assert torch.equal(joined(model.stream(text, 0.21, SAMPLING, 3, **given)), whole.samples)
    [whole] = model.continue_([a_prompt()], 0.21, ["rain"], SAMPLING, 3, **given)
    assert torch.equal(joined(model.stream("rain", 0.21, SAMPLING, 3, prompt=a_prompt(), **given)), whole.samples)


@pytest.mark.parametrize("chunk", [1 / RATE, 0.013, 0.1, 9.0])
def test_chunks_only_regroup(model: AudioGen, chunk: float) -> None:
    [whole] = model.generate(["rain"], 0.25, SAMPLING, 3)
    pieces = [piece.samples for piece in model.stream("rain", 0.25, SAMPLING, 3, chunk=chunk)]
    size = round(chunk * RATE)
    assert [piece.shape[1] for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
    assert 0 < pieces[-1].shape[1] <= size
    assert torch.equal(torch.cat(pieces, dim=1), whole.samples)


def test_regrouping_loses_nothing_however_pieces_fall() -> None:
    sound = torch.arange(1.0, 25)[None]
    for sizes in ([24], [1] * 24, [5, 0, 7, 12], [8, 8, 8], [23, 1]):
        for size in (1, 3, 8, 24, 50):
            regroup = list(regrouped(sound.split(sizes, dim=1), size))
            assert torch.equal(torch.cat(regroup, dim=1), sound)
            assert all(piece.shape[1] == size for piece in regroup[:-1]) and 0 < regroup[-1].shape[1] <= size


def test_the_first_chunk_comes_before_the_last_frame_is_made(model: AudioGen, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    steps = streaming.steps

    def counted(*given: object, **named: object) -> Iterator[Tensor]:
        for frame in steps(*given, **named):  # type: ignore[arg-type]
            made.append(1)
            yield frame

    monkeypatch.setattr(streaming, "steps", counted)
    stream = model.stream("rain", 2.0, SAMPLING)
    assert made == []
    first = next(stream)
    assert 0 < first.samples.shape[1] and len(made) < 20  # of 100
    made.clear()
    assert next(model.stream("rain", 2.0, SAMPLING, prompt=a_prompt(0.4))).samples.shape[1]
    assert made == []  # a prompt sounds while its continuation is made


def test_a_codec_that_cannot_stream_still_generates(vocabulary: Vocabulary) -> None:
    model = a_model(vocabulary, codec=a_codec("seanet", "time_group_norm"))
    assert model.generate(["rain"], 0.1)[0].samples.shape == (1, 800)
    with pytest.raises(ValueError, match="time_group_norm averages .* cannot work piece by piece"):
        model.stream("rain", 0.1)


# --- windows


@pytest.mark.parametrize(
    ("known", "ends", "windows", "expected"),
    [
        (0, [10], Windows(), [(0, 0, 10)]),
        (4, [10], Windows(None, 2), [(0, 4, 10)]),
        (0, [10], Windows(10, 3), [(0, 0, 10)]),
        (0, [11], Windows(10, 3), [(0, 0, 10), (0, 3, 4)]),
        (0, [20], Windows(8, 2), [(0, 0, 8), (0, 2, 8), (0, 2, 8)]),
        (0, [20], Windows(10, 0), [(0, 0, 10), (0, 0, 10)]),
        (7, [20], Windows(8, 2), [(0, 7, 8), (0, 2, 8), (0, 2, 8)]),
        (8, [20], Windows(8, 2), [(0, 2, 8), (0, 2, 8)]),  # a prompt that fills a window
        (0, [4, 9], Windows(None, 2), [(0, 0, 4), (1, 2, 7)]),
        (0, [1, 9], Windows(None, 3), [(0, 0, 1), (1, 1, 9)]),
        (0, [4, 20], Windows(8, 2), [(0, 0, 4), (1, 2, 8), (1, 2, 8), (1, 2, 6)]),
        (6, [4, 9], Windows(None, 2), [(1, 6, 9)]),  # a section that the prompt has passed
        (5, [5], Windows(None, 2), []),
    ],
)
def test_windows_cover_every_frame_once(
    known: int, ends: list[int], windows: Windows, expected: list[tuple[int, int, int]]
) -> None:
    planned = list(plan(known, ends, windows))
    assert planned == [Window(*each) for each in expected]
    assert known + sum(window.frames - window.prompt for window in planned) == max(known, ends[-1])


def test_a_last_section_without_end_goes_on(model: AudioGen) -> None:
    planned = itertools.islice(plan(0, [5, None], Windows(8, 2)), 100)
    assert sum(window.frames - window.prompt for window in planned) == 5 + 99 * 6
    with pytest.raises(ValueError, match="an end is made window after window"):
        Request(torch.zeros(1, 2, 0, dtype=torch.long), [Section(None)], SAMPLING, [0])


def test_the_first_window_is_the_sound_of_that_length(model: AudioGen) -> None:
    [plain] = model.generate(["rain"], 0.2, SAMPLING, 3)
    long = joined(model.stream("rain", 0.6, SAMPLING, 3, window=0.2, overlap=0.06))
    whole = 800  # the decoder hears a few frames ahead, of the next window here
    assert long.shape == (1, 4800)
    assert torch.equal(long[:, :whole], plain.samples[:, :whole])


def codes_of(model: AudioGen, num_frames: int, windows: Windows, seeds: tuple[int, ...] = (3,)) -> Tensor:
    """Unconditional, [B, K, T]."""
    prompt = torch.zeros(len(seeds), 2, 0, dtype=torch.long)
    request = Request(prompt, [Section(num_frames)], SAMPLING, seeds, windows)
    return torch.cat(list(codes(model.lm, request)), dim=-1)


def test_windows_are_chained_by_their_overlap(model: AudioGen) -> None:
    from audiolm_kit.lm.generate import generate

    made = codes_of(model, 25, Windows(10, 4))
    empty = torch.zeros(1, 2, 0, dtype=torch.long)
    by_hand = generate(model.lm, empty, 10, SAMPLING, seeds=[3])
    for number in (1, 2, 3):
        known = by_hand.shape[-1]
        frames = min(10, 4 + 25 - known)
        more = generate(model.lm, by_hand[..., -4:], frames, SAMPLING, seeds=[window_seed(3, number)])
        by_hand = torch.cat([by_hand, more[..., 4:]], dim=-1)
    assert torch.equal(made, by_hand)


def test_an_item_of_a_batch_has_the_codes_that_it_has_alone(model: AudioGen) -> None:
    together = codes_of(model, 25, Windows(10, 4), (3, 4, 5))
    for row, seed in enumerate((3, 4, 5)):
        assert torch.equal(together[row], codes_of(model, 25, Windows(10, 4), (seed,))[0])


def test_a_window_that_is_longer_than_the_request_changes_nothing(model: AudioGen) -> None:
    [plain] = model.generate(["rain"], 0.2, SAMPLING, 3)
    for window in (0.2, 0.3, 100.0):
        [windowed] = model.generate(["rain"], 0.2, SAMPLING, 3, window=window)
        assert torch.equal(windowed.samples, plain.samples)
    [plain] = model.continue_([a_prompt()], 0.2, sampling=SAMPLING)
    [windowed] = model.continue_([a_prompt()], 0.2, sampling=SAMPLING, window=0.2)
    assert torch.equal(windowed.samples, plain.samples)


def test_seeds_of_windows_are_their_own() -> None:
    seeds = [window_seed(seed, number) for seed in (-3, 0, 1, 2**64 - 1) for number in range(100)]
    assert len(set(seeds)) == 400 and all(-(2**63) <= seed < 2**64 for seed in seeds)
    assert len({seed % 2**32 for seed in seeds}) == 400  # all that torch's generator looks at
    assert window_seed(7, 0) == 7 and window_seed(7, 1) == window_seed(7, 1) != 8


@pytest.mark.parametrize(
    ("making", "told"),
    [
        ({"window": 0.1, "overlap": 0.1}, "overlap is 0.1, window 0.1: a window must be longer"),
        ({"window": 0}, "window is 0: ask for a positive number"),
        ({"window": math.inf}, "window is inf"),
        ({"window": 1.0, "overlap": -0.1}, "overlap is -0.1: ask for a positive number or 0"),
        ({"overlap": 0.1}, "overlap is 0.1, but all is made at once: give window too"),
    ],
)
def test_windows_that_make_no_sense_are_refused(model: AudioGen, making: dict[str, float], told: str) -> None:
    for call in (
        lambda: model.generate(["rain"], 0.3, **making),  # type: ignore[arg-type]
        lambda: model.continue_([a_prompt()], 0.3, **making),  # type: ignore[arg-type]
        lambda: model.stream("rain", 0.3, **making),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=told):
            call()


def test_a_prompt_longer_than_a_window_is_continued_from_its_end(model: AudioGen) -> None:
    [whole] = model.continue_([a_prompt(0.4)], 0.6, ["rain"], SAMPLING, window=0.2, overlap=0.1)
    assert whole.samples.shape == (1, 4800)
    other = torch.cat([a_prompt(0.4, seed=1).samples[:, :1600], a_prompt(0.4).samples[:, 1600:]], dim=1)
    ends = [model.codec.encode(samples[None])[..., 15:] for samples in (other, a_prompt(0.4).samples)]
    assert torch.equal(*ends)
    [same] = model.continue_([Sound(other, RATE)], 0.6, ["rain"], SAMPLING, window=0.2, overlap=0.1)
    gain = float(whole.samples[0, 4000] / same.samples[0, 4000])  # another beginning has another level
    torch.testing.assert_close(whole.samples[:, 4000:], gain * same.samples[:, 4000:])


# --- timelines


def test_a_timeline_of_one_line_is_its_text(model: AudioGen) -> None:
    [plain] = model.generate(["rain"], 0.2, SAMPLING, 3)
    for lines in (["0-0.2: rain"], ["0-: rain"]):
        [timed] = model.generate([lines], 0.2, SAMPLING, 3)
        assert torch.equal(timed.samples, plain.samples)


def test_a_timeline_lasts_until_its_end_unless_more_is_asked_for(model: AudioGen) -> None:
    assert model.generate([TIMELINE], None, SAMPLING)[0].samples.shape == (1, 1600)
    assert model.generate([TIMELINE], 0.5, SAMPLING)[0].samples.shape == (1, 4000)
    assert joined(model.stream(TIMELINE, None, SAMPLING)).shape == (1, 1600)
    with pytest.raises(ValueError, match="ask for more seconds"):
        model.generate([TIMELINE], 0.15, SAMPLING)
    with pytest.raises(ValueError, match="seconds is None"):
        model.generate([["0-: rain"]])


def test_the_text_counts_from_its_time_on(model: AudioGen) -> None:
    [one] = model.generate([["0-0.2: rain", "0.2-0.4: rain and a dog"]], None, SAMPLING)
    [other] = model.generate([["0-0.2: rain", "0.2-0.4: a bell rings"]], None, SAMPLING)
    [plain] = model.generate(["rain"], 0.2, SAMPLING)
    heard = 800  # what the decoder does not hear the change from
    assert torch.equal(one.samples[:, :heard], other.samples[:, :heard])
    assert torch.equal(one.samples[:, :heard], plain.samples[:, :heard])
    assert not torch.allclose(one.samples[:, 1600:], other.samples[:, 1600:], atol=1e-3)


def test_timelines_and_captions_go_together(model: AudioGen) -> None:
    sounds = model.generate(["rain", TIMELINE, "a bell rings", TIMELINE], 0.3, SAMPLING, seed=[1, 2, 3, 4])
    for sound, text, seed in zip(sounds, ["rain", TIMELINE, "a bell rings", TIMELINE], [1, 2, 3, 4], strict=True):
        [alone] = model.generate([text], 0.3, SAMPLING, seed)
        torch.testing.assert_close(sound.samples, alone.samples, atol=1e-5, rtol=1e-4)


def test_a_prompt_counts_as_the_beginning_of_a_timeline(model: AudioGen) -> None:
    lines = ["0-0.2: rain", "0.2-: rain and a dog"]  # the first is over when the prompt ends
    [timed] = model.continue_([a_prompt(0.2)], 0.3, [lines], SAMPLING)
    [plain] = model.continue_([a_prompt(0.2)], 0.3, ["rain and a dog"], SAMPLING)
    assert torch.equal(timed.samples, plain.samples)


# --- without an end


def test_an_endless_stream_begins_as_a_long_one_does(model: AudioGen) -> None:
    [long] = model.generate(["rain"], 0.5, SAMPLING, 3, window=0.2, overlap=0.1)
    for text in ("rain", ["0-: rain"]):
        for seconds in (None, math.inf):
            endless = model.stream(text, seconds, SAMPLING, 3, window=0.2, overlap=0.1, chunk=0.1)
            first = torch.cat([chunk.samples for chunk in itertools.islice(endless, 3)], dim=1)
            assert torch.equal(first, long.samples[:, :2400])
    rain_at_first = ["0-0.1: a bell rings", "0.1-: rain"]
    [long] = model.generate([rain_at_first], 0.5, SAMPLING, 3, window=0.2, overlap=0.1)
    endless = model.stream(rain_at_first, math.inf, SAMPLING, 3, window=0.2, overlap=0.1, chunk=0.1)
    assert torch.equal(torch.cat([next(endless).samples for _ in range(3)], dim=1), long.samples[:, :2400])


def test_a_sound_without_an_end_needs_windows(model: AudioGen) -> None:
    with pytest.raises(ValueError, match="give window, or seconds"):
        model.stream("rain")
    with pytest.raises(ValueError, match="seconds is inf"):
        model.generate(["rain"], math.inf, window=1.0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"seconds": 0}, "seconds is 0"),
        ({"seconds": 1, "chunk": 0}, "chunk is 0"),
        ({"seconds": 0.1, "prompt": a_prompt(0.2)}, "ask for more seconds"),
        ({"seconds": 1, "sampling": Sampling(temperature=(1.0, 1.0, 1.0))}, "temperature has 3 values"),
        ({"seconds": 1, "seed": 2**64}, "seeds are"),
    ],
)
def test_a_stream_is_refused_before_it_begins(model: AudioGen, given: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        model.stream("rain", **given)  # type: ignore[arg-type]


# --- memory


def objects() -> tuple[int, int, int]:
    """The tensors that are alive, their bytes, and the objects of any kind that Python watches over."""
    gc.collect()
    every = gc.get_objects()
    tensors = [each.untyped_storage().nbytes() for each in every if type(each) is Tensor]
    return len(tensors), sum(tensors), len(every)


def test_nothing_grows_with_the_length(model: AudioGen, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    held: list[int] = []
    new_cache, push = StreamLM.new_cache, streaming.StreamingDecoder.push

    def watched_cache(lm: StreamLM, *given: object) -> KVCache:
        cache = new_cache(lm, *given)  # type: ignore[arg-type]
        sizes.append(cache.max_steps)
        return cache

    def watched_push(decoder: streaming.StreamingDecoder, new: Tensor) -> Tensor:
        audio = push(decoder, new)
        held.append(decoder.held)
        return audio

    monkeypatch.setattr(decoding, "LONGEST", 0.2)  # seconds, so that the decoder's pieces are soon full-grown
    monkeypatch.setattr(StreamLM, "new_cache", watched_cache)
    monkeypatch.setattr(streaming.StreamingDecoder, "push", watched_push)
    stream = model.stream("rain", None, dataclasses.replace(SAMPLING, guidance_scale=1.0), window=0.2, overlap=0.1)
    grown = 60  # frames
    while len(held) < grown:
        next(stream)
    alive = []
    for _ in range(3):
        while len(held) < grown * (len(alive) + 2):
            next(stream)
        alive.append(objects())
    assert len(sizes) > 30 and len(set(sizes)) == 1
    assert max(held[2 * grown :]) == max(held[grown : 2 * grown])
    assert alive[1][:2] == alive[2][:2]
    assert alive[2][2] - alive[1][2] < grown / 4  # objects of any kind: not one for each frame
