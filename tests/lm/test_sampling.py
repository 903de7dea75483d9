"""Laws of drawing codes: the right distribution, the right support, guidance by the book."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
import torch

from audiolm_kit.lm.sampling import Sampling, draw

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


def test_min_p_draws_among_codes_near_the_likeliest() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    supports = {0.0: [0, 1, 2, 3], 0.24: [0, 1, 2, 3], 0.26: [1, 2, 3], 0.6: [1, 3], 0.76: [1], 1.0: [1]}
    for min_p, kept in supports.items():
        found = frequencies(logits, Sampling(top_k=0, min_p=min_p))
        assert found.nonzero()[:, 0].tolist() == kept
        expected = logits.exp().where(torch.isin(torch.arange(4), torch.tensor(kept)), 0)
        torch.testing.assert_close(found, expected / expected.sum(), atol=2 / len(GRID), rtol=0)


def test_min_p_near_one_takes_the_likeliest_and_zero_is_none() -> None:
    logits, uniforms = torch.randn(40, 9), torch.rand(40)
    assert torch.equal(draw(logits, Sampling(min_p=0.999999), uniforms), logits.argmax(-1))
    assert torch.equal(draw(logits, Sampling(min_p=0.0), uniforms), draw(logits, Sampling(), uniforms))


def test_min_p_looks_at_the_tempered_distribution() -> None:
    logits = torch.tensor([0.0, 1.0])  # a share of 0.37, of 0.61 at temperature 2
    assert (frequencies(logits, Sampling(min_p=0.5)) > 0).tolist() == [False, True]
    assert (frequencies(logits, Sampling(temperature=2.0, min_p=0.5)) > 0).tolist() == [True, True]


def test_top_k_top_p_and_min_p_each_cut_what_the_one_before_left() -> None:
    logits = torch.tensor([0.02, 0.40, 0.08, 0.30, 0.20]).log()
    for sampling, kept in [
        (Sampling(top_k=3), [1, 3, 4]),
        (Sampling(top_k=3, top_p=0.77), [1, 3]),  # 7/9 of what top_k left is enough
        (Sampling(top_k=0, top_p=0.77), [1, 3, 4]),
        (Sampling(top_k=4, min_p=0.45), [1, 3, 4]),
        (Sampling(top_k=2, min_p=0.45), [1, 3]),
        (Sampling(top_k=3, top_p=0.77, min_p=0.8), [1]),
        (
            Sampling(top_k=0, top_p=0.93, min_p=0.1),
            [1, 2, 3, 4],
        ),  # min_p first would have left 0.98, of which 3 suffice
    ]:
        assert frequencies(logits, sampling).nonzero()[:, 0].tolist() == kept


EACH = [
    (1.0, 0, 0.0, 0.0),
    (0.0, 250, 0.0, 0.0),
    (0.7, 3, 0.0, 0.0),
    (1.3, 0, 0.8, 0.0),
    (1.0, 9, 1.0, 0.3),
    (1e-40, 5, 0.9, 0.1),
    (0.5, 6, 0.7, 0.05),
    (2.0, 1, 0.0, 1.0),
]


@pytest.mark.parametrize("option", range(5))
def test_options_for_each_codebook_are_each_codebook_drawn_by_its_own(option: int) -> None:
    """All options at once, and each of them alone."""
    names = ["temperature", "top_k", "top_p", "min_p"]
    varied = names if option == 4 else [names[option]]
    generator = torch.Generator().manual_seed(0)
    logits = (2 * torch.randn(500, len(EACH), 12, generator=generator)).round()  # with equals among them
    uniforms = torch.rand(500, len(EACH), generator=generator)
    columns = dict(zip(names, zip(*EACH, strict=True), strict=True))
    codes = draw(logits, Sampling(**{"top_k": 0, **{name: columns[name] for name in varied}}), uniforms)
    for k in range(len(EACH)):
        own = Sampling(**{"top_k": 0, **{name: columns[name][k] for name in varied}})
        assert torch.equal(draw(logits[:, k], own, uniforms[:, k]), codes[:, k])


def test_options_that_are_alike_for_all_codebooks_are_one_for_all() -> None:
    logits, uniforms = torch.randn(20, 3, 9), torch.rand(20, 3)
    one, each = Sampling(0.7, 5, 0.9, 0.1), Sampling((0.7,) * 3, (5,) * 3, (0.9,) * 3, (0.1,) * 3)
    assert torch.equal(draw(logits, one, uniforms), draw(logits, each, uniforms))
    assert torch.equal(draw(logits, Sampling((0, 0, 0)), uniforms), logits.argmax(-1))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(0.5, 20, 0.9, 0.1, 2, 1.5, "interval", guidance_interval=(0.1, 0.5)),
        Sampling((0.5, 1), (20, 0), (0.9, 0), (0, 0.1), (3, 1), guidance_schedule="linear", guidance_last=2.0),
    ],
)
def test_options_survive_json(sampling: Sampling) -> None:
    again = Sampling(**json.loads(json.dumps(asdict(sampling))))
    assert again == sampling and hash(again) == hash(sampling)


def test_options_of_an_earlier_version_read_as_they_were_meant() -> None:
    old = {"temperature": 1.0, "top_k": 250, "top_p": 0.0, "guidance_scale": 3.0}
    assert Sampling(**old) == Sampling()


def test_options_for_another_number_of_codebooks_are_refused() -> None:
    Sampling((1, 2), guidance_scale=3).check_codebooks(2)
    with pytest.raises(ValueError, match="min_p has 3 values, the model 2 codebooks: give one number, or one for each"):
        Sampling(min_p=(0.1, 0.2, 0.3)).check_codebooks(2)


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
        {"temperature": (1.0, -1.0)},
        {"temperature": ()},
        {"temperature": "hot"},
        {"top_k": (1, 2.5)},
        {"top_p": (0.5, 2)},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"min_p": (0.1, math.nan)},
        {"guidance_scale": (3, None)},
        {"prompt_guidance_scale": -1.0},
        {"prompt_guidance_scale": (1.0, 2.0)},
        {"guidance_schedule": "cosine"},
        {"guidance_last": math.inf, "guidance_schedule": "linear"},
        {"guidance_interval": (0.5, 0.5), "guidance_schedule": "interval"},
        {"guidance_interval": (0.5, 1.5), "guidance_schedule": "interval"},
        {"guidance_interval": (0.5,), "guidance_schedule": "interval"},
        {"guidance_interval": 0.5, "guidance_schedule": "interval"},
        {"guidance_last": 2.0},  # without the schedule that it belongs to
        {"guidance_interval": (0.5, 1.0)},
    ],
)
def test_senseless_values_are_refused_by_name_in_one_line(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} is ") as refusal:
        Sampling(**wrong)
    assert "\n" not in str(refusal.value)
