"""Laws of guidance: the loop is the written-out formula, and reads no row that weighs nothing."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from audiolm_kit.conditioning import Context
from audiolm_kit.lm.generate import generate, steps
from audiolm_kit.lm.guidance import GuidedReader, guide, scales_by_frame
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.transformer import TransformerConfig

K, V, D, T = 3, 11, 16, 7
NO_PREFIX = Prefix()
LAYOUTS = {
    "parallel": ("parallel", ()),
    "delay": ("delay", ()),
    "flatten": ("flatten", ()),
    "any order": ("delay", (2, 1, 3)),
    "with gaps": ("delay", (0, 6, 1)),
}
GREEDY = Sampling(temperature=0, guidance_scale=1)
DRAWN = Sampling(top_k=7, top_p=0.9, guidance_scale=2.0)
SAMPLINGS = {
    "plain": Sampling(temperature=0, guidance_scale=3),
    "away from the text": Sampling(temperature=0, guidance_scale=0),
    "each codebook": Sampling(temperature=0, guidance_scale=(3, 1, 0.5)),
    "linear": Sampling(temperature=0, guidance_scale=4, guidance_schedule="linear", guidance_last=0.5),
    "interval": Sampling(temperature=0, guidance_schedule="interval", guidance_interval=(0.5, 0.8)),
    "prompt": Sampling(temperature=0, guidance_scale=3, prompt_guidance_scale=2),
    "prompt alone": Sampling(temperature=0, guidance_scale=1, prompt_guidance_scale=3),
    "prompt and text alike": Sampling(temperature=0, guidance_scale=2, prompt_guidance_scale=2),
    "no prompt": Sampling(temperature=0, guidance_scale=2, prompt_guidance_scale=0),
    "all": Sampling(
        temperature=0,
        guidance_scale=(3, 2, 1),
        prompt_guidance_scale=2,
        guidance_schedule="interval",
        guidance_interval=(0.5, 0.8),
    ),
}


def tiny_lm(layout: str = "delay", prefix: Prefix = NO_PREFIX) -> StreamLM:
    """A model in float64, where rounding does not decide which code is drawn."""
    torch.manual_seed(0)
    pattern, offsets = LAYOUTS[layout]
    transformer = TransformerConfig(dim=D, heads=2, layers=2, cross_attention=True)
    lm = StreamLM(LMConfig(K, V, pattern, transformer, prefix=prefix, offsets=offsets))
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.dim() == 1), std=1.0 if weight.dim() > 1 else 0.1)
    return lm.double().eval()


def codes_of(batch: int, num_frames: int, num_codebooks: int = K) -> Tensor:
    return torch.randint(V, (batch, num_codebooks, num_frames), generator=torch.Generator().manual_seed(1))


def context_of(lengths: list[int], seed: int = 2) -> Context:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(len(lengths), max(lengths), D, generator=generator, dtype=torch.float64)
    return Context(states, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def rows_of(context: Context, *rows: int) -> Context:
    return Context(context.states[list(rows)], context.mask[list(rows)])


def repeated(context: Context, batch: int) -> Context:
    return Context(context.states.expand(batch, -1, -1), context.mask.expand(batch, -1))


TEXT, NEGATIVE = context_of([4, 2]), context_of([3, 5], seed=3)


def scale_by_hand(sampling: Sampling, codebook: int, frame: int, first: int) -> float:
    """The scale of one code, as the options are documented."""
    scale = sampling.guidance_scale
    scale = scale[codebook] if isinstance(scale, tuple) else scale
    if sampling.guidance_schedule == "linear":
        return scale + (sampling.guidance_last - scale) * (frame - first) / (T - 1 - first)
    if sampling.guidance_schedule == "interval":
        return scale if sampling.guidance_interval[0] <= frame / T < sampling.guidance_interval[1] else 1.0
    return scale


@torch.no_grad()
def by_hand(
    lm: StreamLM, prompt: Tensor, sampling: Sampling, text: Context | None, away: Context | None
) -> tuple[Tensor, dict[tuple[int, int], Tensor]]:
    """Greedy codes of T frames and the logits of each (codebook, frame): three full passes a step, nothing kept."""
    length, pattern, p = prompt.shape[-1], lm.pattern, sampling.prompt_guidance_scale
    frames, logits = F.pad(prompt, (0, T - length), value=-1), {}
    for step in range(pattern.num_steps(T)):
        cells = [(k, t) for k in range(K) for t in range(length, T) if pattern.step(k, t) == step]
        if not cells:
            continue
        whole = F.pad(pattern.apply(frames, lm.special), (1, 0), value=lm.special)[:, :, : step + 1]
        behind = F.pad(pattern.apply(frames[:, :, length:], lm.special), (1, 0), value=lm.special)
        textless = lm.step_logits(whole, away)[:, :, -1]
        both = lm.step_logits(whole, text)[:, :, -1] if text is not None or away is not None else textless
        none = lm.step_logits(behind[:, :, : step + 1 - pattern.stride * length], away)[:, :, -1]
        for k, t in cells:
            g = scale_by_hand(sampling, k, t, length)
            if length and p != 1:
                mixed = none[:, k] + p * (textless - none)[:, k] + g * (both - textless)[:, k]
            else:
                mixed = textless[:, k] + g * (both - textless)[:, k]
            logits[k, t], frames[:, k, t] = mixed, mixed.argmax(-1)
    return frames, logits


def check_by_hand(
    lm: StreamLM, prompt: Tensor, sampling: Sampling, text: Context | None = None, negative: Context | None = None
) -> None:
    codes, expected = by_hand(lm, prompt, sampling, text, repeated(negative, len(prompt)) if negative else None)
    found: dict[int, Tensor] = {}
    logits_of = GuidedReader.logits

    def kept(reader: GuidedReader, sequence: Tensor, step: int) -> Tensor:
        return found.setdefault(step, logits_of(reader, sequence, step))

    with patch.object(GuidedReader, "logits", kept):
        assert torch.equal(generate(lm, prompt, T, sampling, text, negative=negative), codes)
    assert len(found) == len({lm.pattern.step(k, t) for k, t in expected})
    for (k, t), logits in expected.items():
        torch.testing.assert_close(found[1 + lm.pattern.step(k, t)][:, k], logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_loop_is_the_formula_written_out(name: str) -> None:
    check_by_hand(tiny_lm("any order"), codes_of(2, 3), SAMPLINGS[name], TEXT, NEGATIVE)


@pytest.mark.parametrize("name", ["each codebook", "interval", "all"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_formula_holds_wherever_the_codes_stand(layout: str, name: str) -> None:
    check_by_hand(tiny_lm(layout), codes_of(2, 3), SAMPLINGS[name], TEXT, NEGATIVE)


@pytest.mark.parametrize("text, negative", [(TEXT, None), (None, rows_of(NEGATIVE, 1)), (None, None)])
@pytest.mark.parametrize("name", ["prompt", "all"])
@pytest.mark.parametrize("given", [0, 3])
def test_the_formula_holds_with_less_given(
    given: int, name: str, text: Context | None, negative: Context | None
) -> None:
    check_by_hand(tiny_lm("any order"), codes_of(2, given), SAMPLINGS[name], text, negative)


@pytest.mark.parametrize("layout", ["parallel", "flatten", "any order"])
@pytest.mark.parametrize("name", ["each codebook", "linear", "interval"])
def test_greedy_codes_after_a_prefix_equal_teacher_forcing_with_a_scale_for_each_frame(layout: str, name: str) -> None:
    lm, prefix, sampling = tiny_lm(layout, Prefix(2, V)), codes_of(2, 4, num_codebooks=2), SAMPLINGS[name]
    codes = generate(lm, codes_of(2, 2), T, sampling, TEXT, prefix)
    scales = scales_by_frame(sampling, K, 2, T)[..., None]
    logits = guide([lm(codes, None, prefix), lm(codes, TEXT, prefix)], [scales])
    assert torch.equal(logits.argmax(-1)[:, :, 2:], codes[:, :, 2:])


# --- laws between settings --------------------------------------------------------------------------------------------


def drawn(sampling: Sampling, text: Context | None = TEXT, negative: Context | None = None, given: int = 3) -> Tensor:
    return generate(tiny_lm(), codes_of(2, given), 11, sampling, text, seeds=[1, 2], negative=negative)


@pytest.mark.parametrize(
    "one, other",
    [
        (replace(DRAWN, guidance_scale=(1, 1, 1)), replace(DRAWN, guidance_scale=1)),
        (replace(DRAWN, guidance_scale=(2.0, 2.0, 2.0)), DRAWN),
        (replace(DRAWN, guidance_schedule="interval"), DRAWN),
        (replace(DRAWN, guidance_schedule="linear", guidance_last=2.0), DRAWN),
        (replace(DRAWN, guidance_schedule="linear", guidance_scale=1), replace(DRAWN, guidance_scale=1)),
    ],
)
def test_settings_that_mean_the_same_draw_the_same(one: Sampling, other: Sampling) -> None:
    assert torch.equal(drawn(one), drawn(other))
    assert torch.equal(drawn(one, negative=NEGATIVE), drawn(other, negative=NEGATIVE))


def test_scale_one_is_the_model_with_text_alone_whatever_the_negative() -> None:
    lm, sampling = tiny_lm(), replace(DRAWN, guidance_scale=1)
    unguided = drawn(sampling)
    assert torch.equal(drawn(sampling, negative=NEGATIVE), unguided)
    assert not torch.equal(drawn(sampling, None), unguided)
    greedy = generate(lm, codes_of(2, 3), T, GREEDY, TEXT)
    assert torch.equal(lm(greedy, TEXT).argmax(-1)[:, :, 3:], greedy[:, :, 3:])


@pytest.mark.parametrize("scale", [0.0, 2.0, 7.0])
def test_a_negative_that_is_the_text_itself_leaves_the_model_with_text(scale: float) -> None:
    guided = replace(DRAWN, guidance_scale=scale)
    assert torch.equal(drawn(guided, negative=TEXT), drawn(replace(DRAWN, guidance_scale=1)))
    prompted = {factor: replace(guided, guidance_scale=factor, prompt_guidance_scale=2.0) for factor in (1.5, scale)}
    assert torch.equal(drawn(prompted[scale], negative=TEXT), drawn(prompted[1.5], negative=TEXT))


def test_an_empty_negative_is_none_and_a_single_one_is_for_all_rows() -> None:
    empty = Context(torch.randn(1, 6, D, dtype=torch.float64), torch.zeros(1, 6, dtype=torch.bool))
    for sampling in (DRAWN, replace(DRAWN, prompt_guidance_scale=2.0)):
        assert torch.equal(drawn(sampling, negative=empty), drawn(sampling))
        single = rows_of(NEGATIVE, 1)
        assert torch.equal(drawn(sampling, negative=single), drawn(sampling, negative=repeated(single, 2)))
        assert not torch.equal(drawn(sampling, negative=single), drawn(sampling))


def test_a_negative_alone_guides_away_from_it() -> None:
    assert torch.equal(drawn(replace(DRAWN, guidance_scale=1), None, NEGATIVE), drawn(DRAWN, None))
    assert not torch.equal(drawn(DRAWN, None, NEGATIVE), drawn(DRAWN, None))


def test_prompt_guidance_is_none_with_scale_one_or_without_a_prompt() -> None:
    stronger = replace(DRAWN, prompt_guidance_scale=2.0)
    assert torch.equal(drawn(replace(DRAWN, prompt_guidance_scale=1.0)), drawn(DRAWN))
    assert torch.equal(drawn(stronger, given=0), drawn(DRAWN, given=0))
    assert not torch.equal(drawn(stronger), drawn(DRAWN))


def test_without_prompt_guidance_and_text_the_prompt_is_as_if_it_were_not_there() -> None:
    greedy = Sampling(temperature=0, prompt_guidance_scale=0)
    codes = generate(tiny_lm(), codes_of(2, 3), T, greedy)
    assert torch.equal(codes[:, :, 3:], generate(tiny_lm(), codes_of(2, 0), T - 3, greedy))


@pytest.mark.parametrize("layout", ["any order", "flatten"])
@pytest.mark.parametrize("name", ["plain", "interval", "all"])
def test_a_row_depends_on_its_own_text_and_negative_alone(layout: str, name: str) -> None:
    lm, prompt, sampling = tiny_lm(layout), codes_of(3, 2), replace(SAMPLINGS[name], temperature=1)
    text, negative = context_of([4, 2, 1]), context_of([1, 6, 3], seed=4)
    together = generate(lm, prompt, T, sampling, text, seeds=[5, 6, 7], negative=negative)
    for i, (tokens, others) in enumerate([(4, 1), (2, 6), (1, 3)]):
        own = Context(text.states[i : i + 1, :tokens], text.mask[i : i + 1, :tokens])
        away = Context(negative.states[i : i + 1, :others], negative.mask[i : i + 1, :others])
        alone = generate(lm, prompt[i : i + 1], T, sampling, own, seeds=[5 + i], negative=away)
        assert torch.equal(alone[0], together[i])


def test_a_longer_request_begins_with_the_shorter_one_under_constant_guidance() -> None:
    lm, prompt, seeds = tiny_lm(), codes_of(2, 2), [1, 2]
    sampling = replace(DRAWN, guidance_scale=(3, 2, 1), prompt_guidance_scale=2.0)
    long = generate(lm, prompt, 20, sampling, TEXT, seeds=seeds, negative=NEGATIVE)
    short = generate(lm, prompt, 9, sampling, TEXT, seeds=seeds, negative=NEGATIVE)
    assert torch.equal(short[:, :, : 9 - (K - 1)], long[:, :, : 9 - (K - 1)])


# --- schedules --------------------------------------------------------------------------------------------------------


def test_scales_by_frame_are_exactly_these() -> None:
    constant = Sampling(guidance_scale=(3, 1))
    assert scales_by_frame(constant, 2, 1, 3).tolist() == [[3, 3, 3], [1, 1, 1]]
    linear = Sampling(guidance_scale=(5, 1), guidance_schedule="linear", guidance_last=3)
    assert scales_by_frame(linear, 2, 1, 4).tolist() == [[5, 5, 4, 3], [1, 1, 2, 3]]
    assert scales_by_frame(linear, 2, 3, 4)[:, 3].tolist() == [5, 1]  # one new frame is the first one
    interval = Sampling(guidance_scale=2, guidance_schedule="interval", guidance_interval=(0.3, 0.6))
    assert scales_by_frame(interval, 1, 0, 10).tolist() == [[1, 1, 1, 2, 2, 2, 1, 1, 1, 1]]


# --- rows that are read -----------------------------------------------------------------------------------------------


def passes(monkeypatch: pytest.MonkeyPatch, lm: StreamLM, sampling: Sampling, given: int = 0, **more: object) -> str:
    """The passes of a request for one row, each as rows x steps, one line for each drawn step."""
    seen: list[str] = []
    read = lm.read

    def counted(sequence: Tensor, *others: object) -> Tensor:
        seen.append(f"{sequence.shape[0]}x{sequence.shape[-1]}")
        return read(sequence, *others)

    monkeypatch.setattr(lm, "read", counted)
    list(steps(lm, codes_of(1, given), **{"num_frames": 8, "sampling": sampling, **more}))
    return " ".join(seen)


ONE = rows_of(TEXT, 0)


@pytest.mark.parametrize(
    "sampling, expected",
    [
        (Sampling(guidance_scale=1), "1x1 " * 8),
        (Sampling(guidance_scale=(1, 1, 1)), "1x1 " * 8),
        (Sampling(guidance_scale=0), "1x1 " * 8),
        (Sampling(guidance_scale=3), "2x1 " * 8),
        (Sampling(guidance_scale=3, prompt_guidance_scale=2), "2x1 " * 8),  # no prompt, no third row
        (Sampling(guidance_schedule="interval", guidance_interval=(0.0, 0.25)), "2x1 2x1 " + "1x1 " * 6),
        (
            Sampling(guidance_schedule="interval", guidance_interval=(0.25, 0.5)),
            "1x1 1x1 1x1 1x3 2x1 1x1 1x1 1x1 1x1",  # caught up in one pass, read beside, dropped
        ),
        (Sampling(guidance_schedule="linear", guidance_last=1), "2x1 " * 7 + "1x1"),
    ],
)
def test_only_rows_that_weigh_something_are_read(
    monkeypatch: pytest.MonkeyPatch, sampling: Sampling, expected: str
) -> None:
    assert passes(monkeypatch, tiny_lm("parallel"), sampling, context=ONE) == expected.strip()


@pytest.mark.parametrize(
    "sampling, text, expected",
    [
        (Sampling(guidance_scale=3), ONE, "2x6 2x1 2x1"),
        (Sampling(guidance_scale=3), None, "1x6 1x1 1x1"),
        (Sampling(prompt_guidance_scale=2), None, "1x6 1x1 1x1 1x1 1x1 1x1"),
        (Sampling(guidance_scale=3, prompt_guidance_scale=2), ONE, "2x6 1x1 2x1 1x1 2x1 1x1"),
        (Sampling(guidance_scale=1, prompt_guidance_scale=2), ONE, "2x6 1x1 2x1 1x1 2x1 1x1"),
        (Sampling(guidance_scale=2, prompt_guidance_scale=2), ONE, "1x6 1x1 1x1 1x1 1x1 1x1"),
        (Sampling(prompt_guidance_scale=0), None, "1x1 1x1 1x1"),
    ],
)
def test_a_reading_without_the_prompt_never_reads_it(
    monkeypatch: pytest.MonkeyPatch, sampling: Sampling, text: Context | None, expected: str
) -> None:
    assert passes(monkeypatch, tiny_lm("parallel"), sampling, given=5, context=text) == expected


def test_codebooks_without_guidance_leave_the_textless_row_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(guidance_scale=(3, 1, 1))
    found = passes(monkeypatch, tiny_lm("flatten"), sampling, context=ONE, num_frames=3)
    assert found == "2x1 1x1 1x1 1x1 1x3 1x1 1x1 1x1 1x3 1x1 1x1"


def test_steps_without_a_new_code_are_not_read_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    found = passes(monkeypatch, tiny_lm("with gaps"), Sampling(guidance_scale=1), given=4, num_frames=5)
    assert found == "1x5 1x1 1x5"  # offsets 0, 6, 1


def test_guide_takes_one_condition_after_the_other() -> None:
    none, prompt, both = torch.randn(3, 2, K, V, dtype=torch.float64)
    assert guide([both], []) is both
    torch.testing.assert_close(guide([none, both], [0.0]), none)
    torch.testing.assert_close(guide([none, both], [1.0]), both)
    torch.testing.assert_close(guide([none, both], [3.0]), 3 * both - 2 * none)
    a, b = 3.0, 5.0  # double guidance as MusicGen-Style writes it
    torch.testing.assert_close(
        guide([none, prompt, both], [a, a * b]), none + a * (prompt + b * (both - prompt) - none)
    )
    torch.testing.assert_close(guide([none, prompt, both], [2.0, 2.0]), guide([none, both], [2.0]))
    half = [none.bfloat16(), both.bfloat16()]
    assert torch.equal(guide(half, [3.0]), guide([each.float() for each in half], [3.0]))


# --- what cannot be asked ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, words",
    [
        ({"negative": context_of([1, 2, 3])}, "negative: 3 for 2 rows"),
        ({"negative": Context(torch.zeros(2, 3, 8), torch.ones(2, 3).bool())}, "negative: states are .*make it with"),
        ({"context": Context(torch.zeros(2, 3, D), torch.ones(2, 4).bool())}, "context: states are"),
        ({"context": context_of([1])}, "context: 1 for 2 rows"),
        ({"sampling": Sampling(guidance_scale=(3, 1))}, "guidance_scale has 2 values, the model 3 codebooks"),
        ({"sampling": Sampling(temperature=(1, 1, 1, 1))}, "temperature has 4 values"),
        ({"sampling": Sampling(top_k=(5,))}, "top_k has 1 values"),
        ({"sampling": Sampling(prompt_guidance_scale=2), "prefix": codes_of(2, 3)}, "prompt_guidance_scale to 1"),
    ],
)
def test_impossible_guidance_is_refused_at_once_in_one_line(change: dict[str, object], words: str) -> None:
    request = {"prompt": codes_of(2, 3), "num_frames": 6, "sampling": DRAWN, **change}
    lm = tiny_lm(prefix=Prefix(3, V)) if "prefix" in change else tiny_lm()
    with pytest.raises(ValueError, match=words) as refusal:
        steps(lm, **request)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["context", "negative"])
def test_a_model_without_text_takes_no_text(name: str) -> None:
    lm = StreamLM(LMConfig(K, V, transformer=TransformerConfig(dim=D, heads=2, layers=1))).double().eval()
    with pytest.raises(ValueError, match=f"{name}: the model reads no text"):
        steps(lm, codes_of(2, 0), 3, DRAWN, **{name: TEXT})
