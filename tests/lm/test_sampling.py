"""Laws of drawing codes: the right distribution, the right support, guidance by the book."""

from __future__ import annotations

import math

import pytest
import torch

from audiolm_kit.lm.sampling import Sampling, draw, guide

ALL = Sampling(top_k=0)
GRID = (torch.arange(20_000) + 0.5) / 20_000  # uniform numbers without luck


def frequencies(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """How often each code comes out, over an even grid of uniform numbers."""
    codes = draw(logits.expand(len(GRID), -1), sampling, GRID)
    return torch.bincount(codes, minlength=logits.numel()) / len(GRID)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_drawn_codes_follow_the_softmax(temperature: float) -> None:
    logits = torch.randn(12, generator=torch.Generator().manual_seed(0))
    expected = (logits / temperature).softmax(-1)
    drawn = frequencies(logits, Sampling(temperature=temperature, top_k=0))
    torch.testing.assert_close(drawn, expected, atol=2 / len(GRID), rtol=0)


def test_random_numbers_pass_a_chi_square_test() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, count = torch.randn(10, generator=generator), 50_000
    codes = draw(logits.expand(count, -1), ALL, torch.rand(count, generator=generator))
    expected = count * logits.softmax(-1)
    chi_square = ((torch.bincount(codes, minlength=10) - expected) ** 2 / expected).sum()
    assert chi_square < 27.9  # 9 degrees of freedom, one in a thousand


def test_top_k_draws_among_the_k_likeliest_in_their_proportions() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 2.0, -1.0])
    drawn = frequencies(logits, Sampling(top_k=3))
    expected = torch.tensor([-torch.inf, 3.0, 1.0, 2.0, -torch.inf]).softmax(-1)
    torch.testing.assert_close(drawn, expected, atol=2 / len(GRID), rtol=0)
    assert (drawn > 0).tolist() == [False, True, True, True, False]


def test_top_p_draws_among_the_fewest_that_reach_p() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    supports = {0.05: [1], 0.39: [1], 0.41: [1, 3], 0.69: [1, 3], 0.71: [1, 2, 3], 1.0: [0, 1, 2, 3]}
    for top_p, kept in supports.items():
        drawn = frequencies(logits, Sampling(top_k=0, top_p=top_p))
        assert drawn.nonzero()[:, 0].tolist() == kept


def test_top_p_comes_after_top_k() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    drawn = frequencies(logits, Sampling(top_k=2, top_p=0.56))  # of 4/7 and 3/7 the first is enough
    assert drawn.nonzero()[:, 0].tolist() == [1]


def test_top_k_beyond_the_codebook_is_no_limit() -> None:
    logits = torch.randn(5)
    assert torch.equal(frequencies(logits, Sampling(top_k=250)), frequencies(logits, ALL))


def test_temperature_zero_takes_the_likeliest_and_a_tiny_one_nearly_always() -> None:
    logits = 50 * torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    uniforms = torch.rand(6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(draw(logits, Sampling(temperature=0), uniforms), logits.argmax(-1))
    assert torch.equal(draw(logits, Sampling(temperature=1e-30), uniforms), logits.argmax(-1))


def test_extreme_uniforms_never_draw_an_impossible_code() -> None:
    logits = torch.tensor([-torch.inf, 1.0, -torch.inf, 0.0, -torch.inf])
    last = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    assert draw(logits, ALL, torch.tensor(0.0)) == 1
    assert draw(logits, ALL, last) == 3
    assert draw(logits.bfloat16(), ALL, last) == 3


def test_each_cell_is_decided_by_its_own_uniform_number() -> None:
    logits, uniforms = torch.randn(4, 3, 8), torch.rand(4, 3)
    codes = draw(logits, ALL, uniforms)
    for i in range(4):
        for j in range(3):
            assert draw(logits[i, j], ALL, uniforms[i, j]) == codes[i, j]


def test_guidance_goes_from_null_through_conditional() -> None:
    conditional, null = torch.randn(2, 3, 8, dtype=torch.float64), torch.randn(2, 3, 8, dtype=torch.float64)
    both = torch.cat([conditional, null])
    torch.testing.assert_close(guide(both, 1.0), conditional)
    torch.testing.assert_close(guide(both, 0.0), null)
    torch.testing.assert_close(guide(both, 3.0), 3 * conditional - 2 * null)
    assert torch.equal(guide(both.bfloat16(), 3.0), guide(both.bfloat16().float(), 3.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_k": 2.5},
        {"top_k": True},
        {"top_p": -0.1},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"guidance_scale": -1.0},
        {"guidance_scale": math.nan},
    ],
)
def test_senseless_values_are_refused_by_name_in_one_line(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))) as refusal:
        Sampling(**wrong)
    assert "\n" not in str(refusal.value)
