"""The chain: spans fill the time and end where windows begin; a stage reads the codes of its window's own time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from audiolm_kit.audio import Sound
from audiolm_kit.inference import chain as chain_module
from audiolm_kit.inference.audiolm import AudioLM
from audiolm_kit.inference.chain import Chain, Request, Span, StageSampling, shares, spans
from audiolm_kit.inference.semantics import Track, extend, likelihoods, track_of
from audiolm_kit.inference.streaming import Row, Windows
from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.repeats import deduplicate
from audiolm_kit.stages import Stage

MakeLM = Callable[..., StreamLM]
GREEDY = Sampling(temperature=0.0, guidance_scale=1.0)


# --- spans


@pytest.mark.parametrize(("known", "end", "size", "overlap"), [
    *itertools.product([0, 1, 5, 9, 10, 23], [24, 61], [10], [0, 3, 5, 6, 9]),
    (0, 10, 10, 3),
    (0, 7, 10, 3),
])  # fmt: skip
def test_spans_fill_the_time_and_each_window_begins_where_a_span_ended(
    known: int, end: int, size: int, overlap: int
) -> None:
    plan = list(spans(known, end, Windows(size, overlap)))
    assert [span.known for span in plan] == [known, *(span.end for span in plan[:-1])] and plan[-1].end == end
    borders = {*range(known + 1), *(span.end for span in plan)}
    for span in plan:
        assert span.start in borders and span.start <= span.known < span.end <= span.start + size
    for before, after in itertools.pairwise(plan):
        assert after.start == before.start or after.known - after.start == overlap


def test_what_fits_a_window_is_one_span() -> None:
    assert list(spans(0, 10, Windows(10, 3))) == [Span(0, 0, 10)]
    assert list(spans(4, 9, Windows(10, 3))) == [Span(0, 4, 9)]
    assert list(spans(0, 17, Windows(10, 3))) == [Span(0, 0, 7), Span(0, 7, 10), Span(7, 10, 17)]


def test_spans_without_end_go_on() -> None:
    [last] = itertools.islice(spans(0, None, Windows(10, 3)), 1000, 1001)
    assert last.start > 3000 and last.end - last.start <= 10


def test_windows_that_repeat_themselves_whole_are_refused() -> None:
    with pytest.raises(ValueError, match="windows of 10 frames overlap by 10"):
        list(spans(0, 20, Windows(10, 10)))


@pytest.mark.parametrize(("known", "new", "size"), [*itertools.product([0, 1, 7, 40], [1, 2, 9, 31], [1, 2, 10])])
def test_shares_are_nearly_equal_and_make_each_new_frame_once(known: int, new: int, size: int) -> None:
    parts = shares(known, new, size)
    assert parts[0].known == max(parts[0].start, min(known, parts[0].end)) and parts[-1].end == known + new
    assert sum(part.end - part.known for part in parts) == new
    lengths = [part.end - part.start for part in parts]
    assert max(lengths) <= size and max(lengths) - min(lengths) <= 1
    assert all(part.known == part.start >= known or part is parts[0] for part in parts)


# --- semantic codes


def test_rows_of_unequal_length_go_on_as_each_does_alone(make_stage_lm: MakeLM) -> None:
    lm, sampling = make_stage_lm(1, 12), Sampling(guidance_scale=1.0)
    known = [torch.randint(12, (length,), generator=torch.Generator().manual_seed(length)) for length in (5, 0, 17, 1)]
    together = extend(lm, known, 6, sampling, [3, 4, 5, 6])
    for codes, seed, row in zip(known, [3, 4, 5, 6], together, strict=True):
        [alone] = extend(lm, [codes], 6, sampling, [seed])
        assert torch.equal(alone, row) and row.shape == (6,)
    assert [len(codes) for codes in extend(lm, known, 0, sampling, [3, 4, 5, 6])] == [0] * 4
    counts = [2, 9, 0, 1]
    for count, codes, seed, row in zip(
        counts, known, [3, 4, 5, 6], extend(lm, known, counts, sampling, [3, 4, 5, 6]), strict=True
    ):
        [alone] = extend(lm, [codes], count, sampling, [seed])
        assert torch.equal(alone, row) and row.shape == (count,)


def test_greedy_codes_are_those_of_the_loop(make_stage_lm: MakeLM) -> None:
    lm, known = make_stage_lm(1, 12), torch.arange(8)
    [new] = extend(lm, [known], 7, GREEDY, [0])
    assert torch.equal(new, generate(lm, known[None, None], 15, GREEDY)[0, 0, 8:])


def test_distinct_codes_never_repeat_the_one_before(make_stage_lm: MakeLM) -> None:
    lm, hot = make_stage_lm(1, 3), Sampling(temperature=5.0, guidance_scale=1.0)
    known = [torch.tensor([0, 1]), torch.tensor([2])]
    for codes, new in zip(known, extend(lm, known, 60, hot, [0, 1], distinct=True), strict=True):
        whole = torch.cat([codes, new])
        assert bool((whole[1:] != whole[:-1]).all()) and len(new.unique()) == 3


def test_a_track_is_cut_in_time_and_then_loses_its_repeats() -> None:
    track = Track(torch.tensor([1, 1, 1, 2, 2, 3]), torch.arange(6) / 25.0).then(torch.tensor([4, 3]), 0.24)
    assert track.between(2 / 25, 0.24).read(deduplicated=True).tolist() == [1, 2, 3]
    assert track.between(2 / 25, 1.0).read(deduplicated=False).tolist() == [1, 2, 2, 3, 4, 3]
    assert track.runs().times.tolist() == pytest.approx([0, 0.12, 0.2, 0.24, 0.24])
    both = track.joined(Track(torch.tensor([5]), torch.tensor([0.1])), 2.0)
    assert both.codes[-1] == 5 and float(both.times[-1]) == pytest.approx(2.1)


def test_the_frame_that_a_prompt_does_not_fill_is_left_out(audiolm: AudioLM) -> None:
    noise = Sound(torch.randn(1, 1700, generator=torch.Generator().manual_seed(0)), 8000)
    assert len(track_of(audiolm.semantic, noise).codes) == 6  # 5.3 frames, filled up as in data
    assert len(track_of(audiolm.semantic, noise, seconds=0.2).codes) == 5
    assert len(track_of(audiolm.semantic, noise, seconds=0.199).codes) == 4
    assert len(track_of(audiolm.semantic, noise, seconds=0.01).codes) == 0


# --- likelihood


def by_hand(lm: StreamLM, codes: torch.Tensor) -> list[float]:
    """Logarithms of the probabilities, code by code."""
    logits = lm(codes[None, None])[0, 0].log_softmax(-1)
    return [float(logits[i, code]) for i, code in enumerate(codes)]


def a_track(length: int) -> Track:
    codes = torch.randint(3, (length,), generator=torch.Generator().manual_seed(length))
    return Track(codes, torch.arange(length) / 25.0)


@torch.no_grad()
@pytest.mark.parametrize("deduplicated", [True, False])
def test_the_likelihood_is_the_sum_over_the_codes(make_stage_lm: MakeLM, deduplicated: bool) -> None:
    lm, stage = make_stage_lm(1, 12), Stage("semantic", (0, 1), 2.0, (0, 0), deduplicated, 10.0)
    tracks = [a_track(length) for length in (50, 3, 20)]
    for track, found in zip(tracks, likelihoods(lm, stage, tracks), strict=True):
        codes = deduplicate(track.codes[None]).codes[0] if deduplicated else track.codes
        assert found.codes == len(codes)
        assert found.nats == pytest.approx(sum(by_hand(lm, codes)), rel=1e-5)
        assert found.per_code == pytest.approx(found.nats / len(codes))


@torch.no_grad()
def test_a_long_recording_counts_each_code_once_given_those_before_it(make_stage_lm: MakeLM) -> None:
    lm, stage = make_stage_lm(1, 12), Stage("semantic", (0, 1), 0.4, (0, 0), False, 25.0)
    track = a_track(24)
    windows = [(0, 0, 10), (7, 10, 17), (14, 17, 24)]  # first read, first counted, end
    wanted = sum(sum(by_hand(lm, track.codes[start:end])[new - start :]) for start, new, end in windows)
    [found] = likelihoods(lm, stage, [track])
    assert found.codes == 24 and found.nats == pytest.approx(wanted, rel=1e-5)


# --- the whole chain


def a_request(
    chain: Chain, prompt: torch.Tensor, tracks: list[Track], num_frames: int | None, **more: object
) -> Request:
    rows = [Row(prompt.shape[-1], num_frames)] * len(prompt)
    seeds = list(range(len(prompt)))
    return Request(tracks, prompt, rows, seeds, StageSampling(), Windows(30, 9), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("spoken", [False, True])
@pytest.mark.parametrize("names", ["semantic coarse fine", "semantic acoustic", "semantic coarse"])
def test_rows_of_unequal_length_are_what_each_would_be_alone(
    make_audiolm: Callable[..., AudioLM], names: str, spoken: bool
) -> None:
    model, rows = make_audiolm(names), [Row(7, 30), Row(0, 12), Row(20, 25), Row(3, 29)]
    draw = torch.Generator().manual_seed(2)
    prompt = torch.randint(model.codec.codebook_size, (4, model.chain.num_codebooks, 20), generator=draw)
    tracks = [
        Track(torch.randint(12, (count,), generator=draw), torch.arange(count) / 25.0)
        for count in ((15, 6, 13, 15) if spoken else (4, 0, 10, 2))
    ]
    request = Request(tracks, prompt, rows, [5, 6, 7, 8], StageSampling(), Windows(30, 9), spoken)
    together = [torch.cat(blocks, dim=-1) for blocks in zip(*model.chain.blocks(request), strict=True)]
    for i, (row, found) in enumerate(zip(rows, together, strict=True)):
        own = replace(request, tracks=[tracks[i]], prompt=prompt[i : i + 1, :, : row.prompt], rows=[row], seeds=[5 + i])
        [alone] = torch.cat(list(model.chain.codes(own)), dim=-1)
        assert torch.equal(found, alone) and found.shape[-1] == row.frames


def test_rows_of_unequal_length_are_of_one_span(audiolm: AudioLM) -> None:
    request = a_request(audiolm.chain, torch.zeros(2, 4, 0, dtype=torch.long), [Track.empty()] * 2, 25)
    with pytest.raises(ValueError, match="rows of unequal length are more than one span"):
        list(audiolm.chain.codes(replace(request, rows=[Row(0, 25), Row(0, 31)])))


def test_a_windows_prefix_is_the_codes_of_its_own_time(audiolm: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.Tensor, int]] = []
    plain = chain_module.generate

    def watched(lm: StreamLM, prompt: torch.Tensor, frames: list[int], *rest: object, **more: object) -> torch.Tensor:
        if lm is audiolm.stages["coarse"][1]:
            seen.append((more["prefix"], *frames))  # type: ignore[arg-type]
        return plain(lm, prompt, frames, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(chain_module, "generate", watched)
    track = Track(torch.randint(12, (50,), generator=torch.Generator().manual_seed(1)), torch.arange(50) / 25.0)
    empty = torch.zeros(1, 4, 0, dtype=torch.long)
    [*_] = audiolm.chain.codes(a_request(audiolm.chain, empty, [track], 80, spoken=True))
    plan = list(spans(0, 80, Windows(30, 9)))
    for span, (prefix, num_frames) in zip(plan, seen, strict=True):
        own = track.codes[-(-span.start // 2) : -(-span.end // 2)]  # a semantic frame lasts two of the codec's
        assert torch.equal(prefix[0, 0], deduplicate(own[None]).codes[0]) and num_frames == span.end - span.start


def test_made_codes_keep_their_rate_and_belong_to_whole_spans(audiolm: AudioLM) -> None:
    chain, told = audiolm.chain, []
    plain = chain._said  # type: ignore[attr-defined]

    def watched(tracks: list[Track], plan: list[Span], request: Request) -> list[Track]:
        told.append((plan[0], plain(tracks, plan, request)))
        return told[-1][1]

    chain._said = watched  # type: ignore[method-assign]
    try:
        blocks = list(chain.codes(a_request(chain, torch.zeros(2, 4, 0, dtype=torch.long), [Track.empty()] * 2, 130)))
    finally:
        del chain._said
    assert torch.cat(blocks, -1).shape == (2, 4, 130)
    for span, tracks in told:
        for track in tracks:
            assert float(track.times[0]) * 50 >= span.known - 100 - 1e-6  # no more than the semantic stage's 2 s
            said = track.between(span.known / 50, span.end / 50).codes
            assert len(said) == round(span.end / 5) - round(span.known / 5)
            assert bool((track.codes[1:] != track.codes[:-1]).all())


def test_nothing_is_read_that_grows_with_the_length(audiolm: AudioLM) -> None:
    request = a_request(audiolm.chain, torch.zeros(1, 4, 0, dtype=torch.long), [Track.empty()], None)
    blocks = list(itertools.islice(audiolm.chain.codes(request), 12))
    assert sum(block.shape[-1] for block in blocks) > 120
    assert all(0 < block.shape[-1] <= 30 for block in blocks)


@pytest.mark.parametrize("names", ["semantic coarse fine", "semantic acoustic", "semantic coarse"])
def test_steps_are_counted_as_they_are_taken(
    make_audiolm: Callable[..., AudioLM], monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    model = make_audiolm(names)
    counts = dict.fromkeys(model.stages, 0)
    plain = StreamLM.predict
    for name, (_, lm) in model.stages.items():

        def counted(states: torch.Tensor, name: str = name, lm: StreamLM = lm) -> torch.Tensor:
            counts[name] += len(states)
            return plain(lm, states)

        monkeypatch.setattr(lm, "predict", counted)
    model.generate(1, 0.9)
    assert counts == model.steps_for(0.9)
    assert counts["semantic"] == 9
    if names == "semantic coarse fine":
        assert counts["coarse"] == 90 and counts["fine"] == 90


# --- sampling


def test_stages_have_the_papers_temperatures_and_no_guidance() -> None:
    sampling = StageSampling()
    heats = {name: getattr(sampling, name).temperature for name in ("semantic", "coarse", "fine", "acoustic")}
    assert heats == {"semantic": 0.6, "coarse": 0.8, "fine": 0.6, "acoustic": 0.8}
    assert StageSampling.of() == sampling
    one = StageSampling.of(Sampling(temperature=3.0, top_k=7), fine=0.1)
    assert (one.fine.temperature, one.coarse.temperature, one.semantic.top_k) == (0.1, 0.8, 7)
    with pytest.raises(ValueError, match="temperatures of middle: the stages are semantic, coarse, fine, acoustic"):
        StageSampling.of(middle=1.0)
    with pytest.raises(
        ValueError, match="guidance_scale and prompt_guidance_scale of the coarse stage are 3.0 and 1.0"
    ):
        replace(sampling, coarse=Sampling())


def test_stages_that_stand_on_semantic_codes_are_guided_by_them() -> None:
    guided = StageSampling.of(Sampling(prefix_guidance_scale=2.0))
    scales = {name: getattr(guided, name).prefix_guidance_scale for name in ("semantic", "coarse", "fine", "acoustic")}
    assert scales == {"semantic": 1, "coarse": 2, "fine": 1, "acoustic": 2}
    assert replace(guided, coarse=StageSampling().coarse, acoustic=StageSampling().acoustic) == StageSampling()
    with pytest.raises(ValueError, match="prefix_guidance_scale of the semantic stage is 2.0, but that stage stands"):
        replace(guided, semantic=guided.coarse)


@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine"])
def test_a_temperature_reaches_its_stage(audiolm: AudioLM, stage: str) -> None:
    def codes(sampling: StageSampling) -> torch.Tensor:
        request = a_request(audiolm.chain, torch.zeros(1, 4, 0, dtype=torch.long), [Track.empty()], 25)
        return torch.cat(list(audiolm.chain.codes(replace(request, sampling=sampling))), -1)

    if stage == "coarse":
        guided = codes(StageSampling.of(Sampling(prefix_guidance_scale=6.0)))
        assert not torch.equal(guided, codes(StageSampling()))
    plain, hotter = codes(StageSampling()), codes(StageSampling.of(**{stage: 4.0}))
    assert not torch.equal(plain[:, 2:], hotter[:, 2:])
    assert torch.equal(plain[:, :2], hotter[:, :2]) == (stage == "fine")
