"""Relative positions against T5 of transformers: the same buckets, and from the same table the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from audiolm_kit.transformer import Transformer, TransformerConfig, relative_buckets

transformers = pytest.importorskip("transformers")
t5 = pytest.importorskip("transformers.models.t5.modeling_t5")

HEADS, S = 3, 150
SIZES = [(32, 128), (32, 20), (8, 30), (4, 3), (64, 800), (20, 1000)]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("buckets, distance", SIZES)
def test_buckets_are_those_of_t5(buckets: int, distance: int, causal: bool) -> None:
    offsets = torch.arange(-2000, 2000)
    expected = t5.T5Attention._relative_position_bucket(offsets, not causal, buckets, distance)
    found = relative_buckets(offsets, buckets, distance, causal)
    assert torch.equal(found, expected)
    assert found.unique().numel() > buckets / 2


@pytest.mark.parametrize("causal", [True, False])
def test_what_is_added_to_scores_is_what_t5_adds(causal: bool) -> None:
    torch.manual_seed(0)
    config = transformers.T5Config(d_model=12, d_kv=4, num_heads=HEADS, is_decoder=causal)
    theirs = t5.T5Attention(config, has_relative_attention_bias=True)
    nn.init.normal_(theirs.relative_attention_bias.weight)
    ours = Transformer(TransformerConfig(12, HEADS, 1, positions="relative", causal=causal))
    ours.relative_positions.load_state_dict(theirs.relative_attention_bias.state_dict())
    added, expected = ours._relative(0, S, None), theirs.compute_bias(S, S)
    if causal:
        expected = expected.masked_fill(torch.ones(S, S).triu(1).bool(), -torch.inf)
    assert torch.equal(added, expected)
    if causal:  # the last steps alone, as with a cache
        assert torch.equal(ours._relative(S - 4, 4, None), expected[:, :, -4:])


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_that_of_t5(causal: bool) -> None:
    torch.manual_seed(0)
    config = transformers.T5Config(d_model=12, d_kv=4, num_heads=HEADS, is_decoder=causal)
    theirs = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0).eval()
    ours = Transformer(TransformerConfig(12, HEADS, 1, positions="relative", causal=causal)).eval()
    ours.relative_positions.load_state_dict(theirs.relative_attention_bias.state_dict())
    attention = ours.layers[0].attention
    fused = [theirs.q.weight * 2, theirs.k.weight, theirs.v.weight]  # they do not divide by the root of 4
    attention.load_state_dict({"query_key_value.weight": torch.cat(fused), "output.weight": theirs.o.weight})
    views: list[tuple[object, ...]] = []
    attention.register_forward_pre_hook(lambda module, inputs: views.append(inputs))
    ours(torch.randn(2, 40, 12))
    x = torch.randn(2, 40, 12)
    expected = theirs(x, mask=torch.full((40, 40), -torch.inf).triu(1)[None, None] if causal else None)[0]
    torch.testing.assert_close(attention(x, *views[0][1:]), expected, rtol=1e-4, atol=1e-5)
