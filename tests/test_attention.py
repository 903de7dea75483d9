"""Attention in bfloat16 on a CPU is attention: values, derivatives, and where it stands in for torch's own."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from audiolm_kit import attention
from audiolm_kit.attention import BLOCK, attend
from audiolm_kit.transformer import Transformer, TransformerConfig

B, H, E = 2, 3, 8
LONG = 2 * BLOCK + 5  # two whole blocks, and one of five


def given(steps: int, keys: int, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = [(B, steps, H, E), (B, keys, H, E), (B, keys, H, E)]
    # Not contiguous, as they are in the layers.
    return [
        torch.randn(shape, generator=draw).to(torch.bfloat16).to(dtype).transpose(1, 2).requires_grad_()
        for shape in shapes
    ]


def biases(steps: int, keys: int) -> dict[str, Tensor | None]:
    draw = torch.Generator().manual_seed(1)
    seen = torch.rand(B, 1, steps, keys, generator=draw) < 0.7
    seen[..., 0] = True
    return {
        "none": None,
        "of pairs": seen,
        "of keys": seen[:, :, :1],
        "added": torch.randn(1, H, steps, keys, generator=draw),
        "added, of keys": torch.randn(1, H, 1, keys, generator=draw),
        "added, one for all": torch.randn(B, 1, 1, 1, generator=draw),
    }


def spelled_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, past: bool) -> Tensor:
    scores = query @ key.transpose(-1, -2) / math.sqrt(E)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    if past:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
    return scores.softmax(-1) @ value


def slopes(mixed: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weight = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(2)).to(mixed.dtype)
    return list(torch.autograd.grad((mixed * weight).sum(), inputs))


def far(found: Tensor, wanted: Tensor) -> float:
    """Deviation as a share of the size."""
    return float((found.detach().double() - wanted.detach()).norm() / wanted.detach().norm())


@pytest.mark.parametrize("mask", biases(1, 1))
@pytest.mark.parametrize(("steps", "keys", "past"), [(5, 5, True), (LONG, LONG, True), (LONG, 7, False), (1, 9, False)])
def test_values_and_slopes_are_those_of_the_formula(steps: int, keys: int, past: bool, mask: str) -> None:
    bias = biases(steps, keys)[mask]
    learned = bias is not None and bias.dtype != torch.bool
    if past and bias is not None:  # it stands in the mask, too
        ahead = torch.ones(steps, keys, dtype=torch.bool).triu(1)
        bias = bias & ~ahead if bias.dtype == torch.bool else bias.masked_fill(ahead, -math.inf)
    found_inputs, exact_inputs = given(steps, keys), given(steps, keys, torch.float64)
    found_mask = bias.clone().requires_grad_() if learned and bias is not None else bias
    exact_mask = bias.double().requires_grad_() if learned and bias is not None else bias
    found = attend(*found_inputs, found_mask, past)
    exact = spelled_out(*exact_inputs, exact_mask, past)
    assert found.dtype == torch.bfloat16 and far(found, exact) < 0.01
    more = [each for each in (found_mask,) if learned and each is not None]
    exact_more = [each for each in (exact_mask,) if learned and each is not None]
    pairs = zip(slopes(found, found_inputs + more), slopes(exact, exact_inputs + exact_more), strict=True)
    for number, (own, wanted) in enumerate(pairs):
        assert own.dtype == (torch.float32 if number == 3 else torch.bfloat16) and own.shape == wanted.shape
        if wanted.norm() > 1e-9:  # what is added to all scores alike changes nothing
            assert far(own, wanted) < 0.02


def test_it_is_no_further_off_than_attention_spelled_out_in_bfloat16() -> None:
    inputs, exact_inputs = given(LONG, LONG), given(LONG, LONG, torch.float64)
    exact = spelled_out(*exact_inputs, None, True)
    plain = spelled_out(*inputs, None, True)
    assert far(attend(*inputs, None, True), exact) < 1.2 * far(plain, exact)


def test_it_stands_in_where_bfloat16_is_learned_on_a_cpu_alone() -> None:
    def used(inputs: list[Tensor]) -> bool:
        with patch.object(attention._Attention, "apply", side_effect=attention._Attention.apply) as ours:
            attend(*inputs, None, True)
        return ours.called

    assert used(given(5, 5))
    assert not used([each.detach() for each in given(5, 5)])
    assert not used(given(5, 5, torch.float32))
    with torch.no_grad():
        assert not used(given(5, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert used(given(5, 5, torch.float32))  # rotated queries are, where products are not
    with torch.autocast("cpu", dtype=torch.float16):
        assert not used(given(5, 5, torch.float32))
    with patch.object(attention, "KEPT", 2 * B * H * 25 - 1):
        assert not used(given(5, 5))


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "relative"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [False, True])
def test_a_transformer_learns_the_same_with_it(positions: str, causal: bool, padded: bool) -> None:
    torch.manual_seed(0)
    config = TransformerConfig(dim=24, heads=3, layers=2, positions=positions, causal=causal, cross_attention=True)  # type: ignore[arg-type]
    model = Transformer(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.dim() == 1), std=0.3 if weight.dim() > 1 else 0.1)
    x, states = torch.randn(2, BLOCK + 9, 24), torch.randn(2, 6, 24)
    context = states, torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    lead = torch.tensor([0, 4]) if padded else None
    found = {}
    for kept in (0, attention.KEPT):
        with patch.object(attention, "KEPT", kept), torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(x, context, lead=lead).float().square()[:, 5:].mean()
        found[kept] = [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]
    for own, torchs in zip(found[attention.KEPT], found[0], strict=True):
        assert torch.isfinite(own).all() and far(own, torchs.double()) < 0.05


def test_there_is_one_way_back_and_no_second() -> None:
    inputs = given(LONG, LONG)
    attend(*inputs, None, True).sum().backward()
    assert all(each.grad is not None and torch.isfinite(each.grad).all() for each in inputs)
    with pytest.raises(RuntimeError, match="once_differentiable|does not require grad|trying to differentiate twice"):
        mixed = attend(*inputs, None, True)
        [slope] = torch.autograd.grad(mixed.square().sum(), inputs[:1], create_graph=True)
        slope.sum().backward()


def test_what_torch_does_is_left_to_torch() -> None:
    query, key, value = given(6, 6, torch.float32)
    assert torch.equal(
        attend(query, key, value, None, True), F.scaled_dot_product_attention(query, key, value, is_causal=True)
    )
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    assert torch.equal(
        attend(query, key, value, mask, True), F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    )
