"""Guidance by the earlier stage's codes: the loop is the written-out formula, whatever way these are read."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from audiolm_kit.conditioning import Context
from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.guidance import GuidedReader
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.transformer import TransformerConfig

K, V, D, T, GIVEN = 2, 11, 16, 6, 2
CODES = 5
"""Of the prefix, 7 different ones."""
PREFIXES = {
    "in front": Prefix(1, 7),
    "beside": Prefix(1, 7, frames_per_code=1.5, beside=True, in_front=False, ahead=2),
    "both": Prefix(1, 7, frames_per_code=1.5, beside=True),
}
GREEDY = Sampling(temperature=0, guidance_scale=1)
TEXT = Context(torch.randn(2, 3, D, generator=torch.Generator().manual_seed(5)).double(), torch.ones(2, 3) > 0)


def tiny_lm(prefix: str, pattern: str = "delay") -> StreamLM:
    """A model in float64, where rounding does not decide which code is drawn."""
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=D, heads=2, layers=2, cross_attention=True)
    lm = StreamLM(LMConfig(K, V, pattern, transformer, prefix=PREFIXES[prefix]))
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.dim() == 1), std=1.0 if weight.dim() > 1 else 0.1)
    return lm.double().eval()


def given(lm: StreamLM) -> tuple[Tensor, Tensor]:
    """Two prompts, and two prefixes of which one is shorter."""
    draw = torch.Generator().manual_seed(1)
    prompt, prefix = torch.randint(V, (2, K, GIVEN), generator=draw), torch.randint(7, (2, 1, CODES), generator=draw)
    prefix[1, :, :2] = lm.config.prefix.codebook_size
    return prompt, prefix


@torch.no_grad()
def by_hand(lm: StreamLM, scale: tuple[float, float], guidance: float, text: Context | None) -> Tensor:
    """Greedy codes of T frames: three full passes a step, nothing kept."""
    prompt, prefix = given(lm)
    nothing = torch.full_like(prefix, 7)
    frames, pattern = F.pad(prompt, (0, T - GIVEN), value=-1), lm.pattern
    for step in range(pattern.num_steps(T)):
        cells = [(k, t) for k in range(K) for t in range(GIVEN, T) if pattern.step(k, t) == step]
        whole = F.pad(pattern.apply(frames, lm.special), (1, 0), value=lm.special)[:, :, : step + 1]
        bare, told, both = (
            lm.step_logits(whole, *each)[:, :, -1] for each in ((None, nothing), (None, prefix), (text, prefix))
        )
        for k, t in cells:
            mixed = bare[:, k] + scale[k] * (told - bare)[:, k] + guidance * (both - told)[:, k]
            frames[:, k, t] = mixed.argmax(-1)
    return frames


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("pattern", ["delay", "flatten"])
@pytest.mark.parametrize("scale", [2.5, 0.5, 0.0, (3.0, 1.0), (1.0, 2.0)])
@pytest.mark.parametrize("text", [None, TEXT], ids=["no text", "text"])
def test_codes_are_those_of_the_formula(
    prefix: str, pattern: str, scale: float | tuple[float, float], text: Context | None
) -> None:
    lm = tiny_lm(prefix, pattern)
    prompt, codes = given(lm)
    sampling = replace(GREEDY, guidance_scale=2.0 if text else 1.0, prefix_guidance_scale=scale)
    expected = by_hand(lm, scale if isinstance(scale, tuple) else (scale, scale), 2.0, text)
    assert torch.equal(generate(lm, prompt, T, sampling, text, codes), expected)


def test_a_scale_changes_what_is_drawn_and_none_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("beside")
    prompt, prefix = given(lm)
    rows: list[int] = []
    read = lm.read
    monkeypatch.setattr(lm, "read", lambda cells, *others: rows.append(len(cells)) or read(cells, *others))
    found = {}
    for scale in (1.0, (1.0, 1.0), 4.0):
        rows.clear()
        found[scale] = generate(lm, prompt, T, replace(GREEDY, prefix_guidance_scale=scale), None, prefix)
        assert max(rows) == (4 if scale == 4.0 else 2)
    plain = generate(lm, prompt, T, GREEDY, None, prefix)
    assert torch.equal(found[1.0], plain) and torch.equal(found[1.0, 1.0], plain) and not torch.equal(found[4.0], plain)


def test_a_row_is_what_it_is_alone() -> None:
    lm = tiny_lm("beside")
    prompt, prefix = given(lm)
    sampling = Sampling(guidance_scale=1, prefix_guidance_scale=2.0)
    together = generate(lm, prompt, [T, T - 2], sampling, None, prefix, [3, 4], prompt_frames=[GIVEN, 1])
    for row, (frames, own) in enumerate(((T, GIVEN), (T - 2, 1))):
        codes = prefix[row : row + 1, :, 2 * row :]  # without its padding
        alone = generate(lm, prompt[row : row + 1, :, :own], frames, sampling, None, codes, [3 + row])
        assert torch.equal(together[row : row + 1, :, :frames], alone)


def test_what_no_stage_stands_on_cannot_guide() -> None:
    lm = StreamLM(LMConfig(K, V, "delay", TransformerConfig(dim=D, heads=2, layers=1))).eval()
    with pytest.raises(ValueError, match="prefix_guidance_scale is 2, but the model stands on no earlier codes"):
        generate(lm, torch.zeros(1, K, 0, dtype=torch.long), T, replace(GREEDY, prefix_guidance_scale=2))
    for wrong in (-1.0, math.nan, ()):
        with pytest.raises(ValueError, match="prefix_guidance_scale is .*: give 1"):
            Sampling(prefix_guidance_scale=wrong)
    lm = tiny_lm("beside")
    prompt, prefix = given(lm)
    with pytest.raises(ValueError, match="prefix_guidance_scale has 3 values, the model 2 codebooks"):
        generate(lm, prompt, T, replace(GREEDY, prefix_guidance_scale=(1.0, 2.0, 3.0)), None, prefix)


def test_readings_that_differ_in_the_prefix_alone_go_side_by_side() -> None:
    lm = tiny_lm("beside")
    prompt, prefix = given(lm)
    passes: list[int] = []
    read = GuidedReader.logits

    def counted(reader: GuidedReader, sequence: Tensor, step: int) -> Tensor:
        before = len(calls)
        found = read(reader, sequence, step)
        passes.append(len(calls) - before)
        return found

    calls: list[int] = []
    own = lm.read
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lm, "read", lambda *given: calls.append(1) or own(*given))
        patched.setattr(GuidedReader, "logits", counted)
        generate(lm, prompt, T, replace(GREEDY, prefix_guidance_scale=2.0), None, prefix)
    assert set(passes) == {1}
