"""Laws of the prefix, padded in front: a row is the same whatever stands beside it; and laws of log-likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from audiolm_kit.conditioning import Context
from audiolm_kit.lm.generate import generate, steps
from audiolm_kit.lm.guidance import guide
from audiolm_kit.lm.losses import loss
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.transformer import TransformerConfig

K, V, T, D = 3, 11, 5, 16
PREFIX = Prefix(num_codebooks=2, codebook_size=7)
PAD = PREFIX.codebook_size
PATTERNS = ["parallel", "delay", "flatten"]
POSITIONS = ["sinusoidal", "rotary", "relative", "timed", "beside", "aside"]
"""Of the transformer. Timed: relative ones, and codes in front and behind have times; beside: steps have codes, too;
aside: none stands in front, and steps have those of two frames later, too."""
LENGTHS = [4, 0, 6, 1]
GREEDY = Sampling(temperature=0, guidance_scale=1)
SAMPLINGS = {
    "unguided": GREEDY,
    "guided": replace(GREEDY, guidance_scale=3),
    "each codebook": replace(GREEDY, guidance_scale=(3, 1, 0.5)),
    "interval": replace(GREEDY, guidance_scale=3, guidance_schedule="interval", guidance_interval=(0.5, 0.8)),
    "drawn": Sampling(top_k=7, guidance_scale=2.0),
}


def tiny_lm(pattern: str = "delay", positions: str = "relative", prefix: Prefix = PREFIX) -> StreamLM:
    """A model in float64, whose every weight matters and where rounding does not decide which code is drawn."""
    torch.manual_seed(0)
    if positions in ("timed", "beside", "aside"):
        prefix = replace(prefix, frames_per_code=2.5, beside=positions != "timed")
        prefix = replace(prefix, in_front=positions != "aside", ahead=2 * (positions == "aside"))
        positions = "relative"
    transformer = TransformerConfig(
        dim=D, heads=2, layers=2, cross_attention=True, positions=positions, relative_buckets=8, relative_distance=20
    )
    lm = StreamLM(LMConfig(K, V, pattern, transformer, prefix=prefix))
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.dim() == 1), std=1.0 if weight.dim() > 1 else 0.1)
    return lm.double().eval()


def codes_of(batch: int, num_frames: int, num_codebooks: int = K, size: int = V, seed: int = 1) -> Tensor:
    return torch.randint(size, (batch, num_codebooks, num_frames), generator=torch.Generator().manual_seed(seed))


def context_of(lengths: list[int]) -> Context:
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(len(lengths), max(lengths), D, generator=generator, dtype=torch.float64)
    return Context(states, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def prefixes(lengths: list[int]) -> list[Tensor]:
    """One ``[1, K, T]`` for each length."""
    return [codes_of(1, length, 2, PAD, seed=10 + row) for row, length in enumerate(lengths)]


def padded(rows: list[Tensor], more: int = 0) -> Tensor:
    longest = max(row.shape[-1] for row in rows) + more
    return torch.cat([F.pad(row, (longest - row.shape[-1], 0), value=PAD) for row in rows])


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_row_has_the_same_logits_alone_and_beside_longer_prefixes(pattern: str, positions: str) -> None:
    lm, codes, context, rows = tiny_lm(pattern, positions), codes_of(4, T), context_of([4, 2, 3, 1]), prefixes(LENGTHS)
    together = lm(codes, context, padded(rows))
    for i, row in enumerate(rows):
        own = Context(context.states[i : i + 1], context.mask[i : i + 1])
        torch.testing.assert_close(lm(codes[i : i + 1], own, row), together[i : i + 1])
    torch.testing.assert_close(lm(codes, context, padded(rows, more=3)), together)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_with_padded_prefixes_cached_steps_equal_one_pass(pattern: str, positions: str) -> None:
    lm, codes, prefix = tiny_lm(pattern, positions), codes_of(4, T), padded(prefixes(LENGTHS))
    sequence = lm.pattern.apply(codes, lm.special)
    cache = lm.new_cache(4, T, prefix)
    chunks = sequence.split([2, 1, sequence.shape[-1] - 3], dim=-1)
    pieces = [lm.step_logits(chunk, None, prefix, cache) for chunk in chunks]
    torch.testing.assert_close(torch.cat(pieces, dim=2), lm.step_logits(sequence, None, prefix))


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_each_row_generates_what_it_does_alone(positions: str, name: str) -> None:
    lm, context, rows = tiny_lm("flatten", positions), context_of([4, 2, 3, 1]), prefixes(LENGTHS)
    prompt, seeds = codes_of(4, 2), [5, 6, 7, 8]
    together = generate(lm, prompt, 6, SAMPLINGS[name], context, padded(rows), seeds)
    for i, row in enumerate(rows):
        own = Context(context.states[i : i + 1], context.mask[i : i + 1])
        alone = generate(lm, prompt[i : i + 1], 6, SAMPLINGS[name], own, row, seeds[i : i + 1])
        assert torch.equal(alone[0], together[i])


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_greedy_generation_after_padded_prefixes_equals_teacher_forcing(pattern: str, positions: str) -> None:
    lm, context, prefix = tiny_lm(pattern, positions), context_of([3, 1, 2, 2]), padded(prefixes(LENGTHS))
    codes = generate(lm, codes_of(4, 1), 6, SAMPLINGS["guided"], context, prefix)
    logits = guide([lm(codes, None, prefix), lm(codes, context, prefix)], [3])
    assert torch.equal(logits.argmax(-1)[:, :, 1:], codes[:, :, 1:])
    assert len(codes.unique()) > 3  # or the test would show little


def test_without_text_and_after_nothing_rows_are_as_those_of_an_empty_prefix() -> None:
    lm, prompt = tiny_lm(), codes_of(2, 1)
    empty, blank = torch.zeros(2, 2, 0, dtype=torch.long), torch.full((2, 2, 3), PAD)
    expected = generate(lm, prompt, 6, GREEDY, prefix=empty)
    assert torch.equal(generate(lm, prompt, 6, GREEDY, prefix=blank), expected)
    torch.testing.assert_close(lm(expected, prefix=blank), lm(expected, prefix=empty))
    plain = StreamLM(replace(lm.config, prefix=Prefix())).double().eval()
    plain.load_state_dict({name: each for name, each in lm.state_dict().items() if "prefix" not in name})
    assert torch.equal(lm(expected, prefix=empty), plain(expected))


def test_padding_teaches_nothing_and_needs_no_embedding_of_its_own() -> None:
    lm, codes = tiny_lm(), codes_of(2, T)
    prefix = torch.tensor([[[PAD, PAD, 3], [PAD, PAD, 4]], [[1, 5, 3], [2, 6, 1]]])
    loss(lm(codes, prefix=prefix), codes, torch.ones(2, T)).backward()
    assert lm.prefix_embedding.weight.shape == (2 * PAD, D)
    touched = lm.prefix_embedding.weight.grad.abs().sum(dim=1).nonzero()[:, 0]
    assert touched.tolist() == [1, 3, 5, PAD + 1, PAD + 2, PAD + 4, PAD + 6]
    assert all(torch.isfinite(weight.grad).all() for weight in lm.parameters() if weight.grad is not None)


def test_lead_counts_steps_and_prefixes_of_one_length_have_none() -> None:
    lm = tiny_lm()
    assert lm.lead(padded(prefixes(LENGTHS))).tolist() == [2 * (6 - length) for length in LENGTHS]
    assert lm.lead(padded(prefixes([3, 3]))).tolist() == [0, 0]
    assert tiny_lm(prefix=Prefix()).lead(None) is None


# --- log-likelihood ---------------------------------------------------------------------------------------------------


def by_hand(lm: StreamLM, codes: Tensor, prefix: Tensor) -> float:
    """Of one row without any padding."""
    return float(lm(codes, prefix=prefix).log_softmax(-1).gather(-1, codes[..., None]).sum())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_log_likelihood_is_the_sum_over_the_codes_of_each_row_alone(pattern: str) -> None:
    lm, codes, rows, lengths = tiny_lm(pattern), codes_of(4, T), prefixes(LENGTHS), [5, 2, 0, 3]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        found = lm.log_likelihood(codes, mask, prefix=padded(rows))
        expected = [by_hand(lm, codes[i : i + 1, :, :n], rows[i]) if n else 0 for i, n in enumerate(lengths)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_log_likelihood_does_not_depend_on_what_is_behind() -> None:
    lm, codes, prefix = tiny_lm(), codes_of(2, T), padded(prefixes([3, 1]))
    mask = torch.arange(T) < torch.tensor([[4], [2]])
    expected = lm.log_likelihood(codes, mask, prefix=prefix)
    longer = torch.cat([codes, codes_of(2, 4, seed=9)], dim=-1)
    torch.testing.assert_close(lm.log_likelihood(longer, F.pad(mask, (0, 4)), prefix=prefix), expected)
    special = longer.masked_fill(~F.pad(mask, (0, 4))[:, None], lm.special)
    assert torch.equal(
        lm.log_likelihood(special, F.pad(mask, (0, 4)), prefix=prefix),
        lm.log_likelihood(longer, F.pad(mask, (0, 4)), prefix=prefix),
    )


def test_likelihoods_of_all_there_is_sum_up_to_one() -> None:
    lm = tiny_lm("flatten", prefix=Prefix())
    values = torch.arange(V)
    everything = torch.stack(torch.meshgrid(values, values, values, indexing="ij")).flatten(1).T[..., None]
    with torch.no_grad():
        found = lm.log_likelihood(everything, torch.ones(V**K, 1))
    assert found.double().exp().sum().item() == pytest.approx(1, abs=1e-4)


# --- what cannot be asked ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix, words",
    [
        (torch.tensor([[[1, PAD], [1, PAD]]]), "put it in front"),
        (torch.tensor([[[PAD, 1, PAD], [PAD, 1, PAD]]]), "put it in front"),
        (torch.tensor([[[PAD, 1], [2, 1]]]), "in all codebooks"),
        (torch.tensor([[[2, 1], [PAD, 1]]]), "in all codebooks"),
        (codes_of(1, 2, num_codebooks=1), "prefix of 2 codebooks, got one of 1"),
        (None, "prefix of 2 codebooks, got none"),
    ],
)
def test_a_prefix_that_does_not_fit_is_refused_in_one_line(prefix: Tensor | None, words: str) -> None:
    lm = tiny_lm()
    for act in (
        lambda: lm(codes_of(1, T), prefix=prefix),
        lambda: steps(lm, codes_of(1, 0), T, GREEDY, prefix=prefix),
        lambda: lm.log_likelihood(codes_of(1, T), torch.ones(1, T), prefix=prefix),
    ):
        with pytest.raises(ValueError, match=words) as refusal:
            act()
        assert "\n" not in str(refusal.value)


def test_a_code_beyond_padding_is_refused_by_generation() -> None:
    with pytest.raises(ValueError, match="codes of the prefix are 8 to 8"):
        steps(tiny_lm(), codes_of(1, 0), T, GREEDY, prefix=torch.full((1, 2, 3), PAD + 1))


# --- times ------------------------------------------------------------------------------------------------------------


def test_what_belongs_together_has_one_time() -> None:
    """Behind 2 frames of 2 codes each, 3 frames long, flattened codes: each frame has 2 steps in front and 3 behind."""
    prefix = replace(PREFIX, frames_per_code=3.0)
    lm = tiny_lm("flatten", "timed", prefix)
    lm.config = replace(lm.config, prefix=prefix)
    seen: list[Tensor] = []
    lm._timed = lambda frames: (seen.append(frames), torch.zeros(*frames.shape, D))[1]  # type: ignore[method-assign]
    lm(codes_of(1, 6), None, padded([codes_of(1, 2, 2, PAD), codes_of(1, 1, 2, PAD)])[:1])
    behind, in_front = seen
    assert in_front.tolist() == [[0.0, 1.5, 3.0, 4.5]]
    assert torch.allclose(behind, torch.arange(18) / 3)  # the step at time t tells the first code of frame t


def losses_of(prefix: Prefix, steps: int, task: Callable[[], tuple[Tensor, Tensor, Tensor]]) -> list[float]:
    """The losses of a small model that learns codes ``[B, 1, T]`` (those of a mask) behind or beside others."""
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=32, heads=2, layers=2, positions="relative")
    lm, losses = StreamLM(LMConfig(1, 8, "delay", transformer, prefix=prefix)), []
    optimizer = torch.optim.AdamW(lm.parameters(), 3e-3)
    for _ in range(steps):
        codes, mask, front = task()
        loss = lm.loss(codes, mask, prefix=front)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def repeated() -> tuple[Tensor, Tensor, Tensor]:
    """Codes that say those of their time in the prefix, two frames each."""
    front = torch.randint(8, (16, 1, int(torch.randint(8, 17, ()))))
    codes = front.repeat_interleave(2, -1)
    return codes, torch.ones(codes[:, 0].shape, dtype=torch.bool), front


def later() -> tuple[Tensor, Tensor, Tensor]:
    """Codes that say those of two frames later in the prefix, as long as there are any."""
    front = torch.randint(8, (16, 1, 20))
    return front.roll(-2, -1), torch.arange(20).expand(16, 20) < 18, front


@pytest.mark.parametrize(("frames_per_code", "learned"), [(2.0, True), (0.0, False)])
def test_a_model_that_is_told_times_soon_reads_what_is_in_front(frames_per_code: float, learned: bool) -> None:
    """Codes say those of their time in front: with times that is learned in 200 steps, without it is not."""
    losses = losses_of(Prefix(1, 8, frames_per_code), 200, repeated)
    assert (sum(losses[-20:]) / 20 < 0.1) == learned


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("frames_per_code", [0.5, 1.0, 3.0])
def test_a_step_is_given_the_code_of_its_time_and_nothing_behind_the_last(pattern: str, frames_per_code: float) -> None:
    """Without layers in between, only steps whose time a changed code has come out otherwise."""
    lm = StreamLM(
        LMConfig(2, V, pattern, TransformerConfig(dim=D, heads=2, layers=1), prefix=Prefix(2, 7, frames_per_code, True))
    )
    lm.transformer = Straight()  # type: ignore[assignment]
    prefix = padded([codes_of(1, 3, 2, 7), codes_of(1, 5, 2, 7)])
    other = prefix.clone()
    other[:, 1, -1] = (other[:, 1, -1] + 1) % 7
    num_steps = lm.pattern.num_steps(16)
    sequence = codes_of(2, num_steps + 1, 2, V)
    one, two = (lm.read(sequence, prefix=each) for each in (prefix, other))
    for row, place in enumerate((2, 4)):
        times = torch.arange(num_steps + 1) // lm.pattern.stride
        theirs = [int(time / frames_per_code + 1e-6) == place for time in times.tolist()]
        assert any(theirs) and (one[row] != two[row]).any(-1).tolist() == theirs


@pytest.mark.parametrize("in_front", [True, False])
def test_a_model_with_codes_beside_reads_them_at_once(in_front: bool) -> None:
    """What takes 200 steps to learn of codes in front takes 40 of codes beside."""
    assert losses_of(Prefix(1, 8, 2.0, beside=True, in_front=in_front), 40, repeated)[-1] < 0.1


def test_codes_beside_need_times() -> None:
    for wrong in ({"num_codebooks": 1}, {"frames_per_code": 1.0}):
        with pytest.raises(
            ValueError, match=r"^beside is true, but the prefix has no codes or no times: give frames_per_code$"
        ):
            Prefix(**wrong, beside=True)  # type: ignore[arg-type]
    for wrong in ({"in_front": False}, {"ahead": 1}):
        with pytest.raises(ValueError, match="^in_front false and ahead are about codes beside the steps: set beside"):
            Prefix(1, 8, 1.0, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^ahead of the prefix is -1: give 0 or more frames$"):
        Prefix(1, 8, 1.0, beside=True, ahead=-1)


def test_what_is_ahead_is_given_as_well() -> None:
    """Codes say those of two frames later: nobody who sees the past alone, and those of now, could know."""
    prefix = Prefix(1, 8, 1.0, beside=True, in_front=False, ahead=2)
    assert losses_of(prefix, 60, later)[-1] < 0.2
    assert losses_of(replace(prefix, ahead=0), 60, later)[-1] > 1.9  # the logarithm of 8 is 2.08


def test_without_codes_in_front_there_are_fewer_steps() -> None:
    prefix = padded([codes_of(1, 3, 2, 7), codes_of(1, 5, 2, 7)])
    lm = tiny_lm("delay", "aside")
    assert lm.lead(prefix) is None and lm.new_cache(2, T, prefix).max_steps == 1 + lm.pattern.num_steps(T)
    other = prefix.clone()
    other[0, :, -1] = (other[0, :, -1] + 1) % 7
    one, two = (lm(codes_of(2, 9), prefix=each) for each in (prefix, other))
    assert torch.equal(one[1], two[1]) and not torch.equal(one[0], two[0])


class Straight(torch.nn.Module):
    """In the place of a transformer: nothing."""

    def forward(self, x: Tensor, *given: object, **more: object) -> Tensor:
        return x


@pytest.mark.parametrize("frames_per_code", [-1.0, float("inf"), float("nan")])
def test_times_that_are_none_are_refused(frames_per_code: float) -> None:
    with pytest.raises(ValueError, match="^frames_per_code of the prefix is .*: give 0 or more$"):
        Prefix(1, 8, frames_per_code)
