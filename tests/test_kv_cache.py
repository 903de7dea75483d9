"""Laws of the cache: a step of the short way is one of the long way, in every dtype, for every kind of row."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from audiolm_kit import compiled
from audiolm_kit.kv_cache import KVCache
from audiolm_kit.transformer import Transformer, TransformerConfig

D, N, S = 16, 5, 9
POSITIONS = ["sinusoidal", "rotary", "relative"]
LENGTHS = [N, 0, 3, 0]
LEADS = {"no padding": None, "padding in front": [0, 3, 1, 2]}


def tiny(**options: object) -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(TransformerConfig(dim=D, heads=2, layers=3, cross_attention=True, **options))
    for weight in transformer.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.dim() == 1), std=0.5 if weight.dim() > 1 else 0.1)
    return transformer.double().eval()


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def context_of(lengths: list[int]) -> tuple[Tensor, Tensor]:
    return randn(len(lengths), N, D, seed=2), torch.arange(N) < torch.tensor(lengths)[:, None]


def lead_of(name: str) -> Tensor | None:
    lead = LEADS[name]
    return None if lead is None else torch.tensor(lead)


@torch.no_grad()
def in_steps(transformer: Transformer, x: Tensor, cache: KVCache, first: int = 4, **given: object) -> Tensor:
    """A first call, and one for each step behind it."""
    pieces = [transformer(x[:, :first], cache=cache, **given)]
    return torch.cat([*pieces, *(transformer(each, cache=cache) for each in x[:, first:].split(1, dim=1))], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("attend_padding", [False, True])
@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_first_call_and_steps_equal_one_pass(positions: str, lead: str, attend_padding: bool) -> None:
    transformer, x = tiny(positions=positions, attend_padding=attend_padding), randn(4, S, D)
    given = {"context": context_of(LENGTHS), "lead": lead_of(lead)}
    with patch.object(Transformer, "_step", autospec=True, side_effect=Transformer._step) as short:
        found = in_steps(transformer, x, transformer.new_cache(4, S), **given)
    assert short.call_count == S - 4
    torch.testing.assert_close(found, transformer(x, **given))


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_long_way_is_taken_where_gradients_are_wanted_and_gives_the_same(positions: str) -> None:
    transformer, x, context = tiny(positions=positions), randn(4, S, D), context_of(LENGTHS)
    cache = transformer.new_cache(4, S)
    with patch.object(Transformer, "_step") as short:
        pieces = [transformer(each, context, cache) for each in x.split(1, dim=1)]
    assert not short.called
    torch.testing.assert_close(
        torch.cat(pieces, dim=1), in_steps(transformer, x, transformer.new_cache(4, S), 1, context=context)
    )


def test_rows_without_a_context_at_the_end_are_not_sent_through_cross_attention() -> None:
    transformer, x, seen = tiny(), randn(4, S, D), []
    transformer.layers[1].cross_attention.query.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0]))
    )
    for lengths, expected in (([4, 0, 2, 0], {3}), ([2, 0, 0, 0], {1}), ([0, 0, 0, 0], set()), ([1, 1, 1, 1], {4})):
        seen.clear()
        found = in_steps(transformer, x, transformer.new_cache(4, S), context=context_of(lengths))
        assert set(seen) == expected
        torch.testing.assert_close(found[1], transformer(x[1:2], tuple(each[1:2] for each in context_of(lengths)))[0])


def test_a_context_is_read_once_and_lies_as_attention_reads_it() -> None:
    transformer, x, calls = tiny(), randn(4, S, D), []
    transformer.layers[2].cross_attention.key_value.register_forward_hook(lambda *arguments: calls.append(1))
    cache = transformer.new_cache(4, S)
    in_steps(transformer, x, cache, context=context_of(LENGTHS))
    assert len(calls) == 1
    assert all(each.is_contiguous() and len(each) == 3 for pair in cache.attended for each in pair)


@torch.no_grad()
@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_parts_of_a_cache_are_read_as_the_whole(positions: str, lead: str) -> None:
    transformer, x = tiny(positions=positions), randn(4, S, D)
    given = {"context": context_of([3, 0, 0, 0]), "lead": lead_of(lead)}
    whole = transformer.new_cache(4, S)
    transformer.remember(whole, **given)
    parts = [whole.rows(0, 2), whole.rows(2, 4)]
    found = torch.cat([in_steps(transformer, x[2 * i : 2 * i + 2], part) for i, part in enumerate(parts)])
    torch.testing.assert_close(found, transformer(x, **given))
    assert parts[1].memory is None and parts[1].layers[0].data_ptr() != whole.layers[0].data_ptr()
    whole.length = S - 1  # and it holds what its parts have written
    torch.testing.assert_close(transformer(x[:, -1:], cache=whole), found[:, -1:])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("positions", POSITIONS)
def test_steps_have_the_dtype_of_the_weights_and_a_cpus_cache_is_float32(positions: str, dtype: torch.dtype) -> None:
    transformer, x = tiny(positions=positions).to(dtype), randn(4, S, D).to(dtype)
    states, seen = context_of(LENGTHS)
    given = {"context": (states.to(dtype), seen), "lead": torch.tensor(LEADS["padding in front"])}
    cache = transformer.new_cache(4, S)
    found = in_steps(transformer, x, cache, **given)
    assert found.dtype == dtype and {layer.dtype for layer in cache.layers} == {torch.float32}
    assert {each.dtype for pair in cache.attended for each in pair} == {torch.float32}
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.2, torch.float16: 0.03}[dtype]
    torch.testing.assert_close(found, transformer(x, **given), atol=tolerance, rtol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("first", [1, S])
def test_a_step_that_does_not_fit_is_refused_in_one_line(first: int) -> None:
    transformer, x = tiny(), randn(2, S + 1, D)
    with pytest.raises(ValueError, match=f"^{S + 1} steps do not fit a cache of {S}: ask new_cache for more$"):
        in_steps(transformer, x, transformer.new_cache(2, S), first)


@torch.no_grad()
@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("count", [S, S + 3])
def test_a_step_of_fixed_shapes_is_the_same(positions: str, lead: str, count: int) -> None:
    """What is compiled, uncompiled: the position is a tensor, and steps to come are masked."""
    transformer, x = tiny(positions=positions), randn(4, S, D)
    cache = transformer.new_cache(4, S + 3)
    given = {"context": context_of(LENGTHS), "lead": lead_of(lead)}
    transformer(x[:, :4], cache=cache, **given)
    inputs, pieces = compiled.Inputs(cache), []
    for step in range(4, S):
        pieces.append(compiled.fixed_step(transformer, x[:, step], torch.tensor([step]), count, inputs))
    torch.testing.assert_close(torch.stack(pieces, dim=1), transformer(x, **given)[:, 4:])
