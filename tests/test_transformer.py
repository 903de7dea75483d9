"""Laws of the Transformer: causality, the cache, null contexts, padding in front and behind, positions."""

from __future__ import annotations

import math

import pytest
import torch

from audiolm_kit.positions import relative_buckets, rotary_angles, rotate, sinusoids
from audiolm_kit.transformer import Transformer, TransformerConfig

D, N, S = 16, 5, 7
POSITIONS = ["sinusoidal", "rotary", "relative"]


def tiny(**options: object) -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(TransformerConfig(dim=D, heads=2, layers=3, **options))
    for weight in transformer.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.dim() == 1), std=0.5 if weight.dim() > 1 else 0.1)
    return transformer.double().eval()


def randn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lengths_mask(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("positions", POSITIONS)
def test_causal_steps_see_the_past_alone_and_bidirectional_ones_all(positions: str) -> None:
    x = randn(1, S, D)
    changed = x.clone()
    changed[0, 3] += 1
    for causal in (True, False):
        transformer = tiny(positions=positions, causal=causal)
        moved = (transformer(changed) != transformer(x)).any(dim=-1)[0]
        assert moved.tolist() == [not causal or step >= 3 for step in range(S)]


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("chunks", [[1] * S, [4, 1, 1, 1], [2, 3, 2], [S]])
def test_cached_chunks_equal_one_pass(positions: str, chunks: list[int]) -> None:
    transformer, x = tiny(positions=positions, cross_attention=True), randn(2, S, D)
    context = randn(2, N, D, seed=2), lengths_mask(N, 2)
    cache = transformer.new_cache(2, max_steps=S + 3)
    pieces = [transformer(chunk, context, cache) for chunk in x.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), transformer(x, context))
    assert cache.length == S


def test_cache_projects_its_context_once_and_never_moves_its_buffers() -> None:
    transformer, x, calls = tiny(cross_attention=True), randn(2, S, D), []
    transformer.layers[1].cross_attention.key_value.register_forward_hook(lambda *arguments: calls.append(1))
    cache = transformer.new_cache(2, S)
    where = [layer.data_ptr() for layer in cache.layers]
    transformer(x[:, :3], (randn(2, N, D), lengths_mask(N, 2)), cache)
    for step in range(3, S):
        transformer(x[:, step : step + 1], None, cache)
    assert len(calls) == 1 and [layer.data_ptr() for layer in cache.layers] == where


def test_requests_with_caches_of_their_own_do_not_meet() -> None:
    transformer, x, y = tiny(), randn(2, S, D), randn(2, S, D, seed=2)
    first, second = transformer.new_cache(2, S), transformer.new_cache(2, S)
    ours = [(transformer(x[:, s : s + 1], cache=first), transformer(y[:, s : s + 1], cache=second)) for s in range(S)]
    torch.testing.assert_close(torch.cat([a for a, _ in ours], dim=1), transformer(x))
    torch.testing.assert_close(torch.cat([b for _, b in ours], dim=1), transformer(y))


@pytest.mark.parametrize("attend_padding", [False, True])
def test_a_row_without_context_is_exactly_a_pass_without_context(attend_padding: bool) -> None:
    transformer, x = tiny(cross_attention=True, attend_padding=attend_padding), randn(2, S, D)
    mask = torch.tensor([[True] * N, [False] * N])
    out = transformer(x, (randn(2, N, D), mask))
    assert torch.equal(out[1], transformer(x)[1])
    assert not torch.allclose(out[0], transformer(x)[0])


def test_gradients_through_a_row_without_context_are_finite_and_zero() -> None:
    transformer, states = tiny(cross_attention=True), randn(2, N, D).requires_grad_()
    transformer(randn(2, S, D), (states, torch.tensor([[True] * N, [False] * N]))).sum().backward()
    assert states.grad is not None and states.grad[0].abs().sum() > 0
    assert (states.grad[1] == 0).all()
    assert all(torch.isfinite(weight.grad).all() for weight in transformer.parameters())


def test_context_padding_does_not_matter_unless_attended_to_as_audiocraft_does() -> None:
    x, states = randn(1, S, D), randn(1, 3, D, seed=2)
    padded = torch.cat([states, randn(1, 2, D, seed=3)], dim=1), lengths_mask(3, 5)[:1]
    bare = states, padded[1][:, :3]
    ours, theirs = tiny(cross_attention=True), tiny(cross_attention=True, attend_padding=True)
    torch.testing.assert_close(ours(x, padded), ours(x, bare))
    assert not torch.allclose(theirs(x, padded), theirs(x, bare), atol=1e-3)
    torch.testing.assert_close(theirs(x, bare), ours(x, bare))  # where nothing is padded they are one


@pytest.mark.parametrize("positions", POSITIONS)
def test_bidirectional_padding_does_not_matter_and_an_empty_row_stays_finite(positions: str) -> None:
    transformer, x = tiny(causal=False, positions=positions), randn(3, S, D)
    out = transformer(x, mask=lengths_mask(S, 3, 0))
    torch.testing.assert_close(out[1:2, :3], transformer(x[1:2, :3]))
    assert torch.isfinite(out).all()


def test_sinusoids_are_those_of_musicgen() -> None:
    table = sinusoids(torch.arange(4), 8)
    for position in range(4):
        for i in range(4):
            angle = position / 10000 ** (i / 3)
            assert table[position, i].item() == pytest.approx(math.cos(angle), abs=1e-6)
            assert table[position, 4 + i].item() == pytest.approx(math.sin(angle), abs=1e-6)


def test_rotary_products_depend_on_the_distance_alone() -> None:
    query, key = randn(1, 1, 1, 8), randn(1, 1, 1, 8, seed=2)
    turned = lambda x, position: rotate(x, rotary_angles(torch.tensor([position]), 8).double())  # noqa: E731
    product = lambda i, j: (turned(query, i) * turned(key, j)).sum()  # noqa: E731
    torch.testing.assert_close(product(7, 3), product(104, 100), rtol=1e-4, atol=1e-4)
    assert (product(7, 3) - product(7, 4)).abs() > 1e-3
    assert torch.equal(turned(query, 0), query)


# --- relative positions -----------------------------------------------------------------------------------------------


def test_buckets_are_exactly_these() -> None:
    offsets = torch.arange(-9, 10)
    past = [5, 5, 5, 4, 4, 3, 3, 2, 1, 0]  # 0, 1, 2 by themselves; then from 3, from 3 * 3^(1/3) = 4.3, from 6.2
    assert relative_buckets(offsets, 6, 9, causal=True).tolist() == past + [0] * 9
    both = relative_buckets(offsets, 12, 9, causal=False).tolist()
    assert both == past + [6 + bucket for bucket in past[-2::-1]]


def test_the_table_is_one_for_all_layers_small_and_there_for_relative_positions_alone() -> None:
    for positions in POSITIONS:
        transformer = Transformer(TransformerConfig(dim=D, heads=2, layers=3, positions=positions, relative_buckets=6))
        tables = {name: each for name, each in transformer.state_dict().items() if "relative" in name}
        assert [each.shape for each in tables.values()] == ([(6, 2)] if positions == "relative" else [])
        assert all(0 < each.abs().max() < 1 for each in tables.values())


@pytest.mark.parametrize("positions", POSITIONS)
def test_an_empty_table_leaves_steps_without_any_order(positions: str) -> None:
    transformer, x = tiny(positions=positions, causal=False), randn(1, S, D)
    turned = transformer(x.flip(1)).flip(1)
    assert not torch.allclose(turned, transformer(x), atol=1e-3)
    if positions == "relative":
        torch.nn.init.zeros_(transformer.relative_positions.weight)
        torch.testing.assert_close(transformer(x.flip(1)).flip(1), transformer(x))


@pytest.mark.parametrize("causal", [True, False])
def test_the_table_learns_with_the_right_gradient(causal: bool) -> None:
    buckets = 6 if causal else 8
    transformer = tiny(positions="relative", causal=causal, relative_buckets=buckets, relative_distance=6)
    x, table = randn(2, S, D), transformer.relative_positions.weight
    padding = {"lead": torch.tensor([0, 3])} if causal else {"mask": lengths_mask(S, 3)}
    weight = randn(2, S, D, seed=2)
    (transformer(x, **padding) * weight).sum().backward()
    numeric = torch.zeros_like(table)
    with torch.no_grad():
        for place in range(table.numel()):
            moved = []
            for by in (1e-6, -1e-6):
                table.view(-1)[place] += by
                moved.append((transformer(x, **padding) * weight).sum())
                table.view(-1)[place] -= by
            numeric.view(-1)[place] = (moved[0] - moved[1]) / 2e-6
    used = torch.arange(buckets) != (-1 if causal else 4)  # no step is ahead at distance 0
    assert torch.equal((numeric.abs() > 1e-4).all(1), used)
    torch.testing.assert_close(table.grad, numeric, rtol=1e-4, atol=1e-6)


def test_relative_positions_go_with_lower_precision() -> None:
    transformer, x = tiny(positions="relative").float(), randn(2, S, D).float()
    expected = transformer(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(transformer(x).float(), expected, rtol=0.1, atol=0.1)
    half = transformer.bfloat16()
    assert half(x.bfloat16()).dtype == torch.bfloat16


# --- padding in front -------------------------------------------------------------------------------------------------

LEAD = [0, 3, S, 5]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("positions", POSITIONS)
def test_a_row_is_the_same_behind_padding_as_alone(positions: str, causal: bool) -> None:
    transformer = tiny(positions=positions, cross_attention=True, causal=causal)
    x, states, seen = randn(4, S, D), randn(4, N, D, seed=2), lengths_mask(N, 2, 0, 3)
    out = transformer(x, (states, seen), lead=torch.tensor(LEAD))
    assert torch.isfinite(out).all()
    for row, lead in enumerate(LEAD[:2] + LEAD[3:]):
        row += row == 2
        alone = transformer(x[row : row + 1, lead:], (states[row : row + 1], seen[row : row + 1]))
        torch.testing.assert_close(out[row : row + 1, lead:], alone)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("chunks", [[1] * S, [4, 1, 1, 1], [2, 3, 2], [6, 1], [S]])
def test_behind_padding_too_cached_chunks_equal_one_pass(positions: str, chunks: list[int]) -> None:
    transformer, x, lead = tiny(positions=positions), randn(4, S, D), torch.tensor(LEAD)
    cache, pieces = transformer.new_cache(4, S), []
    for chunk in x.split(chunks, dim=1):
        pieces.append(transformer(chunk, cache=cache, lead=None if pieces else lead))
    torch.testing.assert_close(torch.cat(pieces, dim=1), transformer(x, lead=lead))


@pytest.mark.parametrize("positions", POSITIONS)
def test_what_padding_holds_reaches_nothing_and_learns_nothing(positions: str) -> None:
    transformer, x, lead = tiny(positions=positions), randn(4, S, D).requires_grad_(), torch.tensor(LEAD)
    real = torch.arange(S) >= lead[:, None]
    transformer(x, lead=lead)[real].square().sum().backward()
    assert (x.grad[~real] == 0).all() and (x.grad[real].abs().sum(-1) > 0).all()
    assert all(torch.isfinite(weight.grad).all() for weight in transformer.parameters())
    other = torch.where(real[..., None], x, 100.0)
    torch.testing.assert_close(transformer(other, lead=lead)[real], transformer(x, lead=lead)[real])


@pytest.mark.parametrize("positions", POSITIONS)
def test_no_padding_is_bit_for_bit_as_nothing_said_and_needs_no_mask(positions: str) -> None:
    transformer, x, views = tiny(positions=positions), randn(2, S, D), []
    transformer.layers[0].attention.register_forward_pre_hook(lambda module, inputs: views.append(inputs[1]))
    cache, none = transformer.new_cache(2, S), torch.zeros(2, dtype=torch.long)
    assert torch.equal(transformer(x, lead=none), transformer(x))
    transformer(x[:, :4], cache=cache, lead=none)
    transformer(x[:, 4:5], cache=cache)
    if positions == "relative":
        assert all(len(view.mask) == 1 for view in views)  # one for all rows
    else:
        assert [(view.mask, view.past) for view in views] == [(None, True)] * 3 + [(None, False)]


def test_dropout_is_for_training_alone() -> None:
    transformer, x = tiny(dropout=0.5), randn(1, S, D)
    assert torch.equal(transformer(x), transformer(x))
    transformer.train()
    assert not torch.equal(transformer(x), transformer(x))


def test_depth_keeps_the_scale_of_the_residual_stream() -> None:
    torch.manual_seed(0)
    scales = []
    for layers in (1, 16):
        transformer = Transformer(TransformerConfig(dim=64, heads=4, layers=layers))
        seen: list[torch.Tensor] = []
        transformer.norm.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        transformer(torch.randn(2, 20, 64))
        scales.append(seen[0].std().item())
    assert scales[1] / scales[0] < 1.2


def test_no_projection_has_a_bias() -> None:
    biased = [name for name, _ in tiny(cross_attention=True).named_parameters() if name.endswith("bias")]
    assert biased and all("norm" in name for name in biased)


@pytest.mark.parametrize(
    "act",
    [
        lambda: TransformerConfig(dim=10, heads=3),
        lambda: TransformerConfig(layers=0),
        lambda: TransformerConfig(dim=3, heads=1),
        lambda: TransformerConfig(dim=6, heads=2, positions="rotary"),
        lambda: TransformerConfig(positions="learned"),
        lambda: TransformerConfig(dropout=1.0),
        lambda: TransformerConfig(positions="relative", relative_buckets=0),
        lambda: TransformerConfig(positions="relative", relative_buckets=7),
        lambda: TransformerConfig(positions="relative", relative_buckets=6, causal=False),
        lambda: TransformerConfig(positions="relative", relative_distance=16),
        lambda: TransformerConfig(positions="relative", relative_distance=8, causal=False),
        lambda: tiny()(randn(1, S, D), (randn(1, N, D), lengths_mask(N))),
        lambda: tiny()(randn(1, S, D), mask=lengths_mask(S)),
        lambda: tiny(causal=False).new_cache(1, S),
        lambda: tiny()(randn(2, S, D), lead=torch.tensor([1])),
        lambda: tiny()(randn(2, S, D), lead=torch.tensor([1, -1])),
        lambda: (lambda lm: lm(randn(1, S, D), cache=lm.new_cache(1, S - 1)))(tiny()),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(act: object) -> None:
    with pytest.raises(ValueError) as refusal:
        act()  # type: ignore[operator]
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("positions", POSITIONS)
def test_gradients_are_the_same_when_layers_are_computed_again_on_the_way_back(positions: str) -> None:
    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        transformer = tiny(dropout=0.3, cross_attention=True, positions=positions).train()
        transformer.checkpointing = checkpointing
        states = randn(2, N, D, seed=2).requires_grad_()
        torch.manual_seed(3)
        transformer(randn(2, S, D), (states, lengths_mask(N, 2))).square().sum().backward()
        return [states.grad, *(weight.grad for weight in transformer.parameters()), torch.rand(())]

    plain, again = gradients(False), gradients(True)  # and what is drawn after it is the same, too
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_layers_are_computed_again_in_training_alone() -> None:
    transformer, x, calls = tiny(), randn(2, S, D), []
    transformer.checkpointing = True
    for layer in transformer.layers:
        layer.attention.register_forward_hook(lambda *arguments: calls.append(1))
    transformer(x).sum().backward()
    with torch.no_grad():
        transformer.train()(x)
    transformer(x, cache=transformer.new_cache(2, S))
    assert len(calls) == 3 * 3
    transformer(x).sum().backward()
    assert len(calls) == 3 * 3 + 2 * 3


def test_computing_again_keeps_a_layers_input_and_no_more() -> None:
    def kept(checkpointing: bool) -> int:
        transformer = tiny().train()
        transformer.checkpointing = checkpointing
        ours = {weight.data_ptr() for weight in transformer.parameters()}
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.data_ptr() not in ours:
                sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            transformer(randn(2, S, D)).sum()
        return sum(sizes.values())

    # Inputs are kept outside of what the hooks see: three layers have one each, 2 * S * D numbers.
    assert kept(True) + 3 * 2 * S * D < kept(False) / 4
