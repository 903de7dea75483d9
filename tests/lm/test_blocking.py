"""Matrices in blocks are the same matrices: products, checkpoints, generation."""

from __future__ import annotations

import pytest
import torch

from audiolm_kit.checkpoint import fingerprint
from audiolm_kit.conditioning import Context
from audiolm_kit.lm import lora
from audiolm_kit.lm.blocking import BlockedLinear, block, has_blocks
from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.transformer import TransformerConfig

K, V, D = 3, 11, 32
NARROW = pytest.mark.skipif(
    not has_blocks(torch.ones(2, 2, dtype=torch.bfloat16)), reason="this processor has no bf16 products of its own"
)
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=NARROW)]


def tiny_lm() -> StreamLM:
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=D, heads=2, layers=2, cross_attention=True)
    lm = StreamLM(LMConfig(K, V, transformer=transformer))
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.dim() == 1), std=0.5 if weight.dim() > 1 else 0.1)
    return lm.eval()


def context() -> Context:
    states = torch.randn(2, 4, D, generator=torch.Generator().manual_seed(2))
    return Context(states, torch.ones(2, 4, dtype=torch.bool))


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 3, 17])
def test_products_are_those_of_the_matrix(rows: int, dtype: torch.dtype) -> None:
    linear = torch.nn.Linear(70, 50, bias=False, dtype=dtype)
    blocked, x = BlockedLinear(linear), torch.randn(rows, 5, 70, dtype=dtype)
    torch.testing.assert_close(blocked(x), linear(x))
    torch.testing.assert_close(blocked(x[:, 0]), linear(x[:, 0]))
    assert torch.equal(blocked.weight, linear.weight)
    other = torch.bfloat16 if dtype == torch.float32 else torch.float32
    torch.testing.assert_close(blocked.to(other)(x.to(other)), linear.to(other)(x.to(other)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_keeps_its_weights_and_its_fingerprint(dtype: torch.dtype) -> None:
    lm = tiny_lm().to(dtype)
    before, mark = {name: each.clone() for name, each in lm.state_dict().items()}, fingerprint(lm)
    after = block(lm).state_dict()
    assert isinstance(lm.heads, BlockedLinear) and isinstance(lm.transformer.layers[0].feed_forward.up, BlockedLinear)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert fingerprint(lm) == mark


def test_generated_codes_are_the_same() -> None:
    plain, blocked, prompt = tiny_lm(), block(tiny_lm()), torch.zeros(2, K, 0, dtype=torch.long)
    for sampling in (Sampling(temperature=0), Sampling(top_k=5)):
        expected = generate(plain, prompt, 12, sampling, context(), seeds=[1, 2])
        assert torch.equal(generate(blocked, prompt, 12, sampling, context(), seeds=[1, 2]), expected)


def test_a_model_that_moves_to_another_dtype_goes_on() -> None:
    lm, plain, codes = block(tiny_lm()), tiny_lm().double(), torch.randint(V, (2, K, 5))
    lm.double()
    with torch.no_grad():
        torch.testing.assert_close(lm(codes), plain(codes))


def test_what_has_no_blocks_is_left_and_adapters_are_refused() -> None:
    assert isinstance(block(tiny_lm().double()).heads, torch.nn.Linear)
    adapted = lora.add(tiny_lm(), lora.LoRAConfig(rank=2))
    with pytest.raises(ValueError, match="merge them first"):
        block(adapted)
