"""A quantised StreamLM: nearly the same logits, the same loop, far less memory; what cannot be is refused."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from audiolm_kit import checkpoint
from audiolm_kit.conditioning import Context, TextConfig, TextInput
from audiolm_kit.lm import quantize as module
from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.lora import LoRAConfig, add, merge
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.lm.packed import How, PackedLinear
from audiolm_kit.lm.quantize import quantize, quantized, refuse_quantized
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.transformer import TransformerConfig

HOWS: list[How] = ["int8", "int4"]
CLOSE = {"int8": 0.02, "int4": 0.2}
CONFIG = LMConfig(
    num_codebooks=2,
    codebook_size=11,
    transformer=TransformerConfig(dim=48, heads=2, layers=2, cross_attention=True),
    text=TextConfig(kind="t5", dim=12, name="none is loaded"),
)
SMALLEST = LMConfig(num_codebooks=1, codebook_size=3, transformer=TransformerConfig(dim=6, heads=3, layers=1))


def make_lm(config: LMConfig = CONFIG) -> StreamLM:
    torch.manual_seed(0)
    return StreamLM(config).eval()


def some_codes(frames: int = 5) -> Tensor:
    return torch.randint(11, (2, 2, frames), generator=torch.Generator().manual_seed(1))


def context_of(lm: StreamLM) -> Context:
    states = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(2))
    return lm.condition(TextInput(states, torch.tensor([[True, True, True], [True, False, False]])))


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@torch.no_grad()
@pytest.mark.parametrize("how", HOWS)
def test_logits_stay_close(how: How) -> None:
    lm = make_lm()
    wanted = lm(some_codes(), context_of(lm))
    assert quantize(lm, how) is lm
    found = lm(some_codes(), context_of(lm))
    assert found.dtype == torch.float32 and 0 < error(found, wanted) < CLOSE[how]
    mask = torch.ones(2, 5, dtype=torch.bool)
    assert bool(torch.isfinite(lm.log_likelihood(some_codes(), mask, context_of(lm))).all())


@torch.no_grad()
@pytest.mark.parametrize("how", HOWS)
def test_the_kernels_logits_are_those_of_the_restored_matrices(how: How) -> None:
    lm = make_lm()
    exact = copy.deepcopy(lm)
    quantize(lm, how)
    for name, layer in lm.named_modules():
        if isinstance(layer, PackedLinear):
            exact.get_submodule(name).weight.copy_(layer.weight)  # type: ignore[operator, union-attr]
    sequence = torch.nn.functional.pad(some_codes(), (1, 0), value=11)
    found, wanted = (each.step_logits(sequence, context_of(each)) for each in (lm, exact))
    assert 0 < error(found, wanted) < 0.02


@torch.no_grad()
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loop_runs_in_either_dtype(how: How, dtype: torch.dtype) -> None:
    lm = quantize(make_lm(), how).to(dtype)
    assert lm.dtype == lm.heads.weight.dtype == dtype
    cold = Sampling(temperature=0, guidance_scale=2.0)
    codes = generate(lm, some_codes(2), 8, cold, context_of(lm), seeds=[1, 2])
    assert codes.shape == (2, 2, 8) and torch.equal(codes[..., :2], some_codes(2))
    if dtype == torch.float32:  # what was drawn is the likeliest code: cache and whole sequence agree
        logits = lm(codes, context_of(lm))
        assert bool(torch.isfinite(logits).all())


@torch.no_grad()
@pytest.mark.parametrize("how", HOWS)
def test_a_model_with_a_prefix_of_odd_widths_is_quantised(how: How) -> None:
    transformer = TransformerConfig(dim=20, heads=2, layers=1, feed_forward=3, positions="rotary")
    lm = make_lm(LMConfig(3, 7, "flatten", transformer, prefix=Prefix(1, 5)))
    prefix, codes = torch.tensor([[[0, 4, 5]]]).flip(-1), torch.randint(7, (1, 3, 4))
    wanted = lm(codes, prefix=prefix)
    assert error(quantize(lm, how)(codes, prefix=prefix), wanted) < CLOSE[how]
    tiny = quantize(make_lm(SMALLEST), how)
    assert tiny(torch.zeros(1, 1, 2, dtype=torch.long)).shape == (1, 1, 2, 3)


@pytest.mark.parametrize("how", HOWS)
def test_all_matrices_and_nothing_else_are_replaced(how: How) -> None:
    lm = make_lm()
    kept = {name for name, _ in lm.named_parameters() if "transformer" not in name or "norm" in name} - {"heads.weight"}
    matrices = sum(isinstance(each, nn.Linear) for each in lm.transformer.modules()) + 1
    assert quantized(lm) is None
    quantize(lm, how)
    assert quantized(lm) == how
    assert {name for name, _ in lm.named_parameters()} == kept
    assert sum(isinstance(each, PackedLinear) for each in lm.modules()) == matrices
    assert not any(weight.requires_grad for weight in lm.parameters()) and not lm.training


def test_each_matrix_is_freed_before_the_next_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, seen = make_lm(), []
    pack = module.packed

    def watched(linear: nn.Linear, how: How) -> PackedLinear:
        gc.collect()
        assert all(each() is None for each in seen[:-1])
        seen.append(weakref.ref(linear.weight))
        return pack(linear, how)

    monkeypatch.setattr(module, "packed", watched)
    quantize(lm, "int8")
    gc.collect()
    assert len(seen) == 15 and all(each() is None for each in seen)


def test_memory_falls() -> None:
    config = LMConfig(1, 16, transformer=TransformerConfig(dim=256, heads=4, layers=1))

    def size(lm: StreamLM) -> int:
        return sum(each.numel() * each.element_size() for each in (*lm.parameters(), *lm.buffers()))

    whole = size(make_lm(config))
    assert size(quantize(make_lm(config), "int8")) < 0.28 * whole
    assert size(quantize(make_lm(config), "int4")) < 0.19 * whole


def test_adapters_are_merged_first() -> None:
    lora = LoRAConfig(rank=2)
    lm = add(make_lm(), lora)
    with pytest.raises(ValueError, match="the model has adapters.*merge them first"):
        quantize(lm, "int8")
    assert quantized(quantize(merge(lm, lora), "int8")) == "int8"


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    lm = make_lm()
    with pytest.raises(ValueError, match="quantize is 'int2': give one of int8, int4"):
        quantize(lm, "int2")  # type: ignore[arg-type]
    refuse_quantized(lm)
    quantize(lm, "int4")
    with pytest.raises(ValueError, match=r"quantised already \(int4\): load it anew"):
        quantize(lm, "int8")
    with pytest.raises(ValueError, match=r"the model is quantised \(int4\) and cannot be saved"):
        refuse_quantized(lm)
    with pytest.raises(ValueError, match="lacks tensors"):
        checkpoint.save(lm, tmp_path / "lm")
    assert not (tmp_path / "lm").exists()
    other = make_lm()
    other.heads = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="layers are Identity already: load it anew, and quantise it first"):
        quantize(other, "int8")
