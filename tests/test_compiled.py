"""Compiled steps draw the codes of plain ones; without a compiler they say so."""

from __future__ import annotations

import shutil

import pytest
import torch

from audiolm_kit import compiled
from audiolm_kit.conditioning import Context
from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.transformer import TransformerConfig

K, V, D = 2, 7, 16
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def tiny_lm(positions: str = "sinusoidal") -> StreamLM:
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=D, heads=2, layers=1, cross_attention=True, positions=positions)
    lm = StreamLM(LMConfig(K, V, transformer=transformer))
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.dim() == 1), std=0.5 if weight.dim() > 1 else 0.1)
    return lm.eval()


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("positions", ["sinusoidal", "relative"])
def test_codes_are_the_same(positions: str, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    lm = tiny_lm(positions).to(device)
    states = torch.randn(1, 3, D, generator=torch.Generator().manual_seed(2)).to(device)
    context = Context(states, torch.ones(1, 3, dtype=torch.bool, device=device))
    prompt = torch.zeros(1, K, 0, dtype=torch.long, device=device)
    schedule = Sampling(top_k=5, guidance_schedule="interval", guidance_interval=(0.2, 0.6))
    given = [(Sampling(temperature=0), 9), (schedule, 14)]
    expected = [generate(lm, prompt, frames, sampling, context, seeds=[1]) for sampling, frames in given]
    lm.transformer.compiling = True
    found = [generate(lm, prompt, frames, sampling, context, seeds=[1]) for sampling, frames in given]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_without_a_compiler_it_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    lm = tiny_lm()
    lm.transformer.compiling = True
    with pytest.raises(ValueError, match="compiled steps need a compiler, found is none of") as refusal:
        generate(lm, torch.zeros(1, K, 0, dtype=torch.long), 3, Sampling())
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match="compiled steps need a compiler"):
        compiled.require(torch.device("cuda"))


def test_a_compiler_that_does_not_work_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("\n  no working compiler found in [g++]\nand a hundred lines more")

    monkeypatch.setattr(torch, "compile", lambda function, **settings: broken)
    with pytest.raises(
        ValueError, match=r"no working compiler found in \[g\+\+\]\): install a C\+\+ compiler"
    ) as caught:
        compiled.attempt(torch.device("cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_compiler_that_is_there_is_found() -> None:
    compiled.require(torch.device("cpu"))
    compiled.attempt(torch.device("cpu"))
