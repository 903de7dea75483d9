"""Laws of the loop: it is teacher forcing run forward, row by row, prompt kept."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from audiolm_kit.conditioning import Context
from audiolm_kit.lm.generate import generate, steps
from audiolm_kit.lm.guidance import guide
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.transformer import Transformer, TransformerConfig

K, V = 3, 11
NO_PREFIX = Prefix()
PATTERNS = ["parallel", "delay", "flatten"]
GREEDY = Sampling(temperature=0, guidance_scale=1)
DRAWN = Sampling(top_k=7, top_p=0.9, guidance_scale=2.0)


def tiny_lm(
    pattern: str = "delay",
    prefix: Prefix = NO_PREFIX,
    positions: str = "sinusoidal",
    offsets: tuple[int, ...] = (),
) -> StreamLM:
    """A model in float64, where rounding does not decide which code is drawn."""
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=16, heads=2, layers=2, cross_attention=True, positions=positions, dropout=0.1)
    lm = StreamLM(LMConfig(K, V, pattern, transformer, prefix=prefix, offsets=offsets))
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.dim() == 1), std=1.0 if weight.dim() > 1 else 0.1)
    return lm.double().eval()


def codes_of(batch: int, num_frames: int, num_codebooks: int = K, seed: int = 1) -> Tensor:
    return torch.randint(V, (batch, num_codebooks, num_frames), generator=torch.Generator().manual_seed(seed))


def context_of(lengths: list[int]) -> Context:
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(len(lengths), max(lengths), 16, generator=generator, dtype=torch.float64)
    return Context(states, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("given", [0, 3])
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "relative"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_greedy_generation_equals_teacher_forcing(pattern: str, positions: str, given: int, scale: float) -> None:
    lm, context, prompt = tiny_lm(pattern, positions=positions), context_of([4, 2]), codes_of(2, given)
    codes = generate(lm, prompt, 8, Sampling(temperature=0, guidance_scale=scale), context)
    logits = guide([lm(codes), lm(codes, context)], [scale])
    assert torch.equal(logits.argmax(-1)[:, :, given:], codes[:, :, given:])
    assert len(codes.unique()) > 3  # or the test would show little


@pytest.mark.parametrize("pattern", PATTERNS)
def test_greedy_generation_after_a_prefix_equals_teacher_forcing(pattern: str) -> None:
    lm = tiny_lm(pattern, Prefix(2, V))
    prefix, context = codes_of(2, 4, num_codebooks=2), context_of([3, 1])
    codes = generate(lm, codes_of(2, 1), 6, Sampling(temperature=0, guidance_scale=2), context, prefix)
    logits = guide([lm(codes, None, prefix), lm(codes, context, prefix)], [2])
    assert torch.equal(logits.argmax(-1)[:, :, 1:], codes[:, :, 1:])


OFFSETS = [(0, 0, 1), (1, 1, 2), (2, 0, 1), (3, 5, 4), (0, 7, 0)]


@pytest.mark.parametrize("given", [0, 3])
@pytest.mark.parametrize("offsets", OFFSETS)
def test_any_offsets_generate_what_teacher_forcing_says(offsets: tuple[int, ...], given: int) -> None:
    lm, context, prompt = tiny_lm(offsets=offsets), context_of([4, 2]), codes_of(2, given)
    codes = generate(lm, prompt, 8, Sampling(temperature=0), context)
    logits = guide([lm(codes), lm(codes, context)], [3])
    assert torch.equal(logits.argmax(-1)[:, :, given:], codes[:, :, given:])
    assert torch.equal(codes[:, :, :given], prompt)


@pytest.mark.parametrize("offsets", OFFSETS)
def test_with_any_offsets_frames_come_as_soon_as_they_are_whole(offsets: tuple[int, ...]) -> None:
    lm, prompt = tiny_lm(offsets=offsets), codes_of(2, 2)
    last, read = [], lm.read
    lm.read = lambda *arguments: (last.append(arguments[0].shape[-1]), read(*arguments))[1]
    expected = generate(lm, prompt, 6, DRAWN, seeds=[1, 2])
    last.clear()
    for t, frame in enumerate(steps(lm, prompt, 6, DRAWN, seeds=[1, 2]), start=2):
        assert torch.equal(frame, expected[:, :, t])
        assert sum(last) == 1 + lm.pattern.last_step(t)  # steps that were read
    assert t == 5


def test_the_offsets_that_delay_has_anyway_change_nothing() -> None:
    given = generate(tiny_lm(offsets=(0, 1, 2)), codes_of(2, 2), 9, DRAWN, context_of([4, 2]), seeds=[1, 2])
    assert torch.equal(given, generate(tiny_lm(), codes_of(2, 2), 9, DRAWN, context_of([4, 2]), seeds=[1, 2]))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_options_for_each_codebook_are_those_of_one_for_all_where_alike(pattern: str) -> None:
    lm, context, prompt = tiny_lm(pattern), context_of([4, 2]), codes_of(2, 2)
    each = Sampling((0.9,) * K, (7,) * K, (0.9,) * K, (0.01,) * K, (2.0,) * K)
    same = Sampling(0.9, 7, 0.9, 0.01, 2.0)
    found = generate(lm, prompt, 9, each, context, seeds=[1, 2])
    assert torch.equal(found, generate(lm, prompt, 9, same, context, seeds=[1, 2]))


def test_one_codebook_can_be_greedy_while_the_others_are_drawn() -> None:
    lm, prompt = tiny_lm("parallel"), codes_of(2, 1)
    runs = [generate(lm, prompt, 12, Sampling((0, 2, 2)), seeds=[seed, seed]) for seed in (1, 2)]
    for codes in runs:
        likeliest = lm(codes).argmax(-1)
        assert torch.equal(likeliest[:, 0, 1:], codes[:, 0, 1:])
        assert not torch.equal(likeliest[:, 1:, 1:], codes[:, 1:, 1:])
    assert not torch.equal(runs[0], runs[1])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_row_depends_on_its_own_seed_and_not_on_its_batch(pattern: str) -> None:
    lm, context, prompt = tiny_lm(pattern), context_of([4, 2, 1]), codes_of(3, 2)
    together = generate(lm, prompt, 9, DRAWN, context, seeds=[5, 6, 7])
    for i, seed in enumerate([5, 6, 7]):
        alone = Context(context.states[i : i + 1], context.mask[i : i + 1])
        assert torch.equal(generate(lm, prompt[i : i + 1], 9, DRAWN, alone, seeds=[seed])[0], together[i])
    turned = Context(context.states.flip(0), context.mask.flip(0))
    assert torch.equal(generate(lm, prompt.flip(0), 9, DRAWN, turned, seeds=[7, 6, 5]), together.flip(0))


@pytest.mark.parametrize("prefixed", ["nothing", "in front", "beside"])
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "relative"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_rows_of_unequal_length_are_what_each_would_be_alone(pattern: str, positions: str, prefixed: str) -> None:
    """Prompts and lengths, and what stands behind a prompt's own frames has no say."""
    beside = {"beside": True, "in_front": False, "frames_per_code": 1.0}
    prefix_of = {"nothing": NO_PREFIX, "in front": Prefix(2, V), "beside": Prefix(2, V, **beside)}[prefixed]
    lm, context, prompt = tiny_lm(pattern, prefix_of, positions), context_of([4, 2, 1]), codes_of(3, 5)
    given, frames, seeds = [5, 0, 2], [7, 9, 6], [5, 6, 7]
    codes = codes_of(3, 9, num_codebooks=2)
    alike = [codes[i, :, : frames[i]] for i in range(3)]
    prefix = torch.stack([torch.nn.functional.pad(own, (9 - own.shape[-1], 0), value=V) for own in alike])
    together = generate(
        lm,
        prompt,
        frames,
        DRAWN,
        context,
        None if prefixed == "nothing" else prefix,
        seeds=seeds,
        prompt_frames=given,
    )
    assert together.shape == (3, K, 9)
    assert torch.equal(prompt, codes_of(3, 5))
    for i, seed in enumerate(seeds):
        own = Context(context.states[i : i + 1], context.mask[i : i + 1])
        before = None if prefixed == "nothing" else alike[i][None]
        alone = generate(lm, prompt[i : i + 1, :, : given[i]], frames[i], DRAWN, own, before, seeds=[seed])
        assert torch.equal(together[i, :, : frames[i]], alone[0])
        assert torch.equal(together[i, :, frames[i] :], torch.full((K, 9 - frames[i]), lm.special))


def test_rows_of_unequal_length_read_no_more_steps_than_the_longest_takes() -> None:
    lm, read = tiny_lm("flatten"), []
    with patch.object(lm, "read", lambda *given: (read.append(given[0].shape[-1]), StreamLM.read(lm, *given))[1]):
        generate(lm, codes_of(2, 3), [4, 6], Sampling(guidance_scale=1), seeds=[1, 2], prompt_frames=[3, 1])
    assert read == [1 + 1 * K, *[1] * (5 * K - 1)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prompt_frames": [1, 3]}, "prompt_frames are 1 to 3, the prompt has 2 frames"),
        ({"prompt_frames": [1]}, "prompt_frames: 1 for 2 rows of the prompt"),
        ({"num_frames": [4]}, "num_frames: 1 for 2 rows of the prompt"),
        ({"num_frames": [4, 0], "prompt_frames": [2, 0]}, "0 frames of 2 rows were asked for"),
        ({"num_frames": [4, 1]}, "the prompt has 2 frames, 1 in all were asked for"),
        ({"num_frames": [4, 5], "sampling": Sampling(prompt_guidance_scale=2)}, "rows of unequal length with"),
        ({"num_frames": [4, 5], "sampling": Sampling(guidance_schedule="linear")}, "rows of unequal length with"),
    ],
)
def test_rows_of_unequal_length_that_cannot_be_made_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        steps(tiny_lm(), codes_of(2, 2), **{"num_frames": 4, "sampling": DRAWN} | options)


def test_other_seeds_give_other_codes_and_rows_of_one_seed_the_same() -> None:
    lm, prompt = tiny_lm(), codes_of(1, 0).repeat(3, 1, 1)
    first, second, third = generate(lm, prompt, 12, DRAWN, seeds=[1, 1, 2])
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_without_seeds_the_global_seed_decides() -> None:
    lm, prompt = tiny_lm(), codes_of(2, 0)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(generate(lm, prompt, 12, DRAWN))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0][0], runs[0][1])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_prompt_is_kept_cell_by_cell(pattern: str) -> None:
    prompt = codes_of(2, 5)
    codes = generate(tiny_lm(pattern), prompt, 7, DRAWN, seeds=[1, 2])
    assert codes.shape == (2, K, 7)
    assert torch.equal(codes[:, :, :5], prompt)
    assert torch.equal(generate(tiny_lm(pattern), prompt, 5, DRAWN), prompt)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_longer_request_begins_with_the_shorter_one(pattern: str) -> None:
    lm, prompt = tiny_lm(pattern), codes_of(2, 1)
    long = generate(lm, prompt, 30, DRAWN, seeds=[1, 2])
    alike = 6 - (K - 1) if pattern == "delay" else 6  # the last frames are drawn beside cells that hold no code
    assert torch.equal(generate(lm, prompt, 6, DRAWN, seeds=[1, 2])[:, :, :alike], long[:, :, :alike])


def test_no_guidance_is_the_conditional_model_and_takes_no_second_row() -> None:
    lm, context, rows = tiny_lm(), context_of([4, 2]), []
    lm.transformer.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    generate(lm, codes_of(2, 1), 6, GREEDY, context)
    assert set(rows) == {2}
    rows.clear()
    generate(lm, codes_of(2, 1), 6, DRAWN, None)  # nothing to be guided by
    assert set(rows) == {2}
    rows.clear()
    generate(lm, codes_of(2, 1), 6, DRAWN, context)
    assert set(rows) == {4}


def test_prompt_is_read_in_one_pass_and_then_one_step_at_a_time() -> None:
    lm, widths = tiny_lm("delay"), []
    lm.transformer.register_forward_pre_hook(lambda module, inputs: widths.append(inputs[0].shape[1]))
    generate(lm, codes_of(2, 4), 7, GREEDY)
    assert widths == [5, 1, 1, 1, 1]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_frames_come_one_by_one_as_soon_as_they_are_whole(pattern: str) -> None:
    lm, prompt, passes = tiny_lm(pattern), codes_of(2, 2), []
    expected = generate(lm, prompt, 6, DRAWN, seeds=[1, 2])
    lm.transformer.register_forward_hook(lambda *arguments: passes.append(1))
    for t, frame in enumerate(steps(lm, prompt, 6, DRAWN, seeds=[1, 2]), start=2):
        assert torch.equal(frame, expected[:, :, t])
        assert len(passes) == lm.pattern.last_step(t) - lm.pattern.first_step(2) + 1
    assert t == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("sampling", [Sampling(temperature=0), GREEDY, DRAWN], ids=["guided", "greedy", "drawn"])
def test_in_any_dtype_steps_of_the_short_way_draw_what_those_of_the_long_way_do(
    dtype: torch.dtype, sampling: Sampling
) -> None:
    lm, context = tiny_lm().to(dtype), context_of([4, 2])
    context = context._replace(states=context.states.to(dtype))
    codes = generate(lm, codes_of(2, 3), 9, sampling, context, seeds=[1, 2])
    assert lm.dtype == dtype
    with patch.object(Transformer, "_steady", return_value=False):
        assert torch.equal(generate(lm, codes_of(2, 3), 9, sampling, context, seeds=[1, 2]), codes)


class Waits(TorchDispatchMode):
    """Notes every operation for whose outcome the host of a GPU would wait."""

    NAMES = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "item")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in self.NAMES:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "sampling",
    [DRAWN, Sampling((0.0, 1.0, 2.0), (7, 0, 5), (0.9, 0.5, 0.0), (0.1, 0.0, 0.2), (3.0, 1.0, 2.0))],
    ids=["one for all", "for each codebook"],
)
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "relative"])
def test_the_host_never_waits_for_a_step(positions: str, sampling: Sampling) -> None:
    prefix = torch.full((2, 2, 3), V)
    prefix[0] = codes_of(1, 3, num_codebooks=2)[0]
    frames = steps(tiny_lm("delay", Prefix(2, V), positions), codes_of(2, 2), 9, sampling, context_of([4, 2]), prefix)
    with Waits() as first:
        next(frames)
    with Waits() as then:
        next(frames), next(frames)
    assert first.found and not then.found


def test_generation_leaves_no_trace() -> None:
    lm, prompt = tiny_lm(), codes_of(2, 2)
    before = {name: weight.clone() for name, weight in lm.state_dict().items()}
    frames = steps(lm, prompt, 6, DRAWN)
    next(frames)
    assert torch.is_grad_enabled()
    codes = generate(lm, prompt, 6, DRAWN)
    assert torch.equal(prompt, codes_of(2, 2))
    assert not codes.is_inference()
    lm(codes).sum().backward()  # the codes can be trained on
    assert all(torch.equal(before[name], weight) for name, weight in lm.state_dict().items())


def test_codes_far_beyond_any_trained_length_stay_in_range() -> None:
    codes = generate(tiny_lm("parallel"), codes_of(1, 0), 300, DRAWN, seeds=[0])
    assert 0 <= codes.min() and codes.max() < V


@pytest.mark.parametrize(
    "change, words",
    [
        ({"num_frames": 2}, "prompt has 3 frames"),
        ({"num_frames": 0, "prompt": codes_of(2, 0)}, "0 frames"),
        ({"prompt": codes_of(0, 3)}, "0 rows"),
        ({"prompt": codes_of(2, 3) + V}, "codes of the prompt"),
        ({"prompt": codes_of(2, 3) - V}, "codes of the prompt"),
        ({"prompt": codes_of(2, 3, num_codebooks=2)}, "int64 codes"),
        ({"prompt": codes_of(2, 3).float()}, "int64 codes"),
        ({"seeds": [1]}, "seeds: 1 for 2"),
        ({"context": context_of([2])}, "context: 1 for 2"),
        ({"prefix": codes_of(1, 3)}, "prefix: 1 for 2"),
    ],
)
def test_impossible_requests_are_refused_at_once_in_one_line(change: dict[str, object], words: str) -> None:
    request = {"prompt": codes_of(2, 3), "num_frames": 6, "sampling": DRAWN, **change}
    lm = tiny_lm(prefix=Prefix(3, V)) if "prefix" in change else tiny_lm()
    with pytest.raises(ValueError, match=words) as refusal:
        steps(lm, **request)
    assert "\n" not in str(refusal.value)


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="eval"):
        generate(tiny_lm().train(), codes_of(1, 1), 3, GREEDY)
