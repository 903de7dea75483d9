"""The loss from states is that from logits, in value and gradient, and never makes all logits."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from audiolm_kit.conditioning import Context
from audiolm_kit.lm import losses
from audiolm_kit.lm.losses import cells_of, codebook_losses, counted_of, entropies, loss, state_loss, told
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.lm.pattern import Pattern
from audiolm_kit.transformer import TransformerConfig

B, K, V, T, D = 2, 3, 11, 5, 8
PATTERNS = ["parallel", "delay", "flatten"]


@pytest.fixture(params=[1, 3 * V, 2**20], ids=["fewest", "few", "all at once"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many logits are looked at together; the law is the same for all."""
    monkeypatch.setitem(losses.LOGITS, "cpu", request.param)
    monkeypatch.setattr(losses, "FEWEST_ROWS", 1)


def tiny_lm(pattern: str = "delay", **options: object) -> StreamLM:
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=16, heads=2, layers=2, cross_attention=True)
    lm = StreamLM(LMConfig(num_codebooks=K, codebook_size=V, pattern=pattern, transformer=transformer, **options))
    return lm.double()


def some_codes(seed: int = 1) -> Tensor:
    return torch.randint(V, (B, K, T), generator=torch.Generator().manual_seed(seed))


def some_context() -> Context:
    states = torch.randn(B, 4, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return Context(states, torch.tensor([[True] * 4, [False] * 4]))


def some_mask(kind: str) -> Tensor:
    """Frames that count, [B, T]; or codes that count, [B, K, T]."""
    mask = torch.arange(T) < torch.tensor([[T], [2]])
    if kind == "frames":
        return mask
    return mask[:, None] & torch.tensor([True, False, True])[:, None]  # nothing of the second codebook


def weighed(cells: list[losses.Cells], num: int) -> list[losses.Cells]:
    """The same cells as a GPU has them: all of them, those that do not count without weight."""
    found = []
    for each in cells:
        rows, codes = torch.arange(num), torch.zeros(num, dtype=torch.long)
        codes[each.rows] = each.codes
        found.append(losses.Cells(rows, codes, torch.zeros(num).index_fill_(0, each.rows, 1.0)))
    return found


# --- from logits ------------------------------------------------------------------------------------------------------


def test_losses_are_masked_means_of_each_codebook() -> None:
    logits, codes = torch.randn(2, K, T, V), some_codes()
    mask = torch.arange(T) < torch.tensor([[T], [2]])
    minus_log = -logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0]
    by_hand = torch.stack([torch.cat([minus_log[0, k], minus_log[1, k, :2]]).mean() for k in range(K)])
    torch.testing.assert_close(codebook_losses(logits, codes, mask), by_hand)
    torch.testing.assert_close(codebook_losses(logits, codes, mask[:, None].expand(2, K, T)), by_hand)
    torch.testing.assert_close(loss(logits, codes, mask), by_hand.mean())


def test_loss_without_any_frame_is_zero() -> None:
    assert loss(torch.randn(2, K, T, V), some_codes(), torch.zeros(2, T, dtype=torch.bool)) == 0


# --- from states ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["frames", "codes"])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.usefixtures("at_once")
def test_the_models_loss_is_that_of_all_its_logits(pattern: str, kind: str) -> None:
    lm, codes, mask, context = tiny_lm(pattern), some_codes(), some_mask(kind), some_context()
    plain = copy.deepcopy(lm)
    logits = plain(codes.masked_fill(~counted_of(codes, mask), lm.special), context)
    # In double precision, of which codebook_losses makes single.
    counted = counted_of(codes, mask)
    minus_log = -logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0] * counted
    expected = (minus_log.sum(dim=(0, 2)) / counted.sum(dim=(0, 2)).clamp(min=1)).mean()
    expected.backward()
    found = lm.loss(codes, mask, context)
    found.backward()
    torch.testing.assert_close(found, expected)
    for (name, weight), other in zip(lm.named_parameters(), plain.parameters(), strict=True):
        assert (weight.grad is None) == (other.grad is None), name
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, other.grad, msg=name)
    assert found.item() == pytest.approx(codebook_losses(logits, codes, mask).mean().item(), rel=1e-6)


def test_with_a_prefix_in_front_too() -> None:
    lm, codes, mask = tiny_lm(prefix=Prefix(1, V)), some_codes(), some_mask("frames")
    prefix = torch.tensor([[[3, 1, 4]], [[V, V, 5]]])
    logits = lm(codes.masked_fill(~mask[:, None], lm.special), prefix=prefix)
    torch.testing.assert_close(lm.loss(codes, mask, prefix=prefix).float(), loss(logits, codes, mask))


@pytest.mark.parametrize("device_like", [lambda cells: cells, lambda cells: weighed(cells, 4)], ids=["cpu", "gpu"])
@pytest.mark.usefixtures("at_once")
def test_gradients_are_those_of_finite_differences(device_like: Callable[[list[losses.Cells]], list]) -> None:
    torch.manual_seed(0)
    codes, mask = torch.randint(4, (1, 2, 3)), torch.tensor([[[True, True, False], [False, True, True]]])
    states = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)  # four steps: T + K - 1
    heads = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    cells = device_like(cells_of(Pattern.delay(2), 4, codes, mask))
    assert torch.autograd.gradcheck(lambda *given: 3 * state_loss(*given, cells), (states, heads))


def test_cells_without_weight_are_as_none() -> None:
    torch.manual_seed(0)
    states, heads = torch.randn(B * 7, D, requires_grad=True), torch.randn(K, V, D, requires_grad=True)
    cells = cells_of(Pattern.delay(K), 7, some_codes(), some_mask("codes"))
    found = []
    for each in (cells, weighed(cells, B * 7)):
        value = state_loss(states, heads, each)
        found.append((value, *torch.autograd.grad(value, (states, heads)), *told(states, heads, each)))
    torch.testing.assert_close(found[0], found[1])


def test_what_is_not_learned_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    softmax = Tensor.log_softmax
    monkeypatch.setattr(Tensor, "log_softmax", lambda x, dim: made.append(x.numel()) or softmax(x, dim=dim))
    lm, codes, mask = tiny_lm(), some_codes(), some_mask("frames")
    lm.loss(codes, mask, some_context()).backward()
    assert sum(made) == (T + 2) * K * V


def test_frozen_heads_cost_no_gradient_and_frozen_states_none_either() -> None:
    states, heads = torch.randn(B * 7, D, requires_grad=True), torch.randn(K, V, D)
    cells = cells_of(Pattern.delay(K), 7, some_codes(), some_mask("frames"))
    state_loss(states, heads, cells).backward()
    assert states.grad is not None and heads.grad is None
    heads.requires_grad_()
    state_loss(states.detach(), heads, cells).backward()
    assert heads.grad is not None


def test_without_gradients_the_value_is_the_same() -> None:
    lm, codes, mask = tiny_lm(), some_codes(), some_mask("frames")
    with torch.no_grad():
        found = lm.loss(codes, mask, some_context())
    assert not found.requires_grad
    torch.testing.assert_close(found, lm.loss(codes, mask, some_context()).detach(), rtol=0, atol=0)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.usefixtures("at_once")
def test_told_has_losses_and_hits_of_each_codebook(pattern: str) -> None:
    lm, codes, mask, context = tiny_lm(pattern), some_codes(), some_mask("frames"), some_context()
    logits = lm(codes.masked_fill(~mask[:, None], lm.special), context)
    likeliest = logits.argmax(-1)
    codes = torch.where(torch.arange(T) < 2, likeliest, codes)  # some that are right, which changes what comes later
    logits = lm(codes.masked_fill(~mask[:, None], lm.special), context)
    found = lm.told(codes, mask, context)
    assert not found.losses.requires_grad
    torch.testing.assert_close(found.losses.float(), codebook_losses(logits, codes, mask).detach())
    right = (logits.argmax(-1) == codes) & mask[:, None]
    assert found.right.tolist() == right.sum(dim=(0, 2)).tolist() and bool(found.right.any())


def test_nothing_that_counts_is_no_loss_and_no_gradient() -> None:
    lm = tiny_lm()
    value = lm.loss(some_codes(), torch.zeros(B, T, dtype=torch.bool))
    value.backward()
    assert value == 0 and not lm.heads.weight.grad.any()


def test_half_precision_stays_near_and_keeps_the_weights_type() -> None:
    lm, codes, mask = tiny_lm().float(), some_codes(), some_mask("frames")
    exact = lm.loss(codes, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = lm.loss(codes, mask)
    rounded.backward()
    assert rounded.dtype == torch.float32 and lm.heads.weight.grad.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02) and rounded.item() != exact.item()


def test_the_way_back_scales_and_can_be_gone_twice() -> None:
    states, heads = torch.randn(B * 7, D, requires_grad=True), torch.randn(K, V, D, requires_grad=True)
    cells = cells_of(Pattern.delay(K), 7, some_codes(), some_mask("frames"))
    value = state_loss(states, heads, cells)
    once = torch.autograd.grad(value, heads, retain_graph=True)[0]
    twice = torch.autograd.grad(2 * value, heads)[0]
    torch.testing.assert_close(twice, 2 * once)


def test_entropies_are_zero_where_nothing_counts() -> None:
    codes, mask = some_codes(), some_mask("codes")
    found = entropies(torch.randn(B, K, T, V), codes, mask)
    assert torch.equal(found != 0, mask)
