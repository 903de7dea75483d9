"""Laws of the patterns: exact layouts, and back again."""

import pytest
import torch

from audiolm_kit.lm.pattern import Pattern

NAMES = ["parallel", "delay", "flatten"]
_ = 9  # no code here


def numbered(num_codebooks: int, num_frames: int) -> torch.Tensor:
    """Codes that say where they come from: codebook in the tens, frame in the ones."""
    return (10 * torch.arange(1, num_codebooks + 1)[:, None] + torch.arange(num_frames))[None]


@pytest.mark.parametrize(
    "pattern, rows",
    [
        (Pattern.parallel(3), [[10, 11, 12], [20, 21, 22], [30, 31, 32]]),
        (Pattern.delay(3), [[10, 11, 12, _, _], [_, 20, 21, 22, _], [_, _, 30, 31, 32]]),
        (
            Pattern.flatten(3),
            [[10, _, _, 11, _, _, 12, _, _], [_, 20, _, _, 21, _, _, 22, _], [_, _, 30, _, _, 31, _, _, 32]],
        ),
        (Pattern.delay(3, (0, 0, 1)), [[10, 11, 12, _], [20, 21, 22, _], [_, 30, 31, 32]]),
        (Pattern.delay(3, (2, 0, 1)), [[_, _, 10, 11, 12], [20, 21, 22, _, _], [_, 30, 31, 32, _]]),
        (Pattern.delay(3, (1, 1, 1)), [[_, 10, 11, 12], [_, 20, 21, 22], [_, 30, 31, 32]]),
    ],
)
def test_layout_is_exactly_this(pattern: Pattern, rows: list[list[int]]) -> None:
    assert pattern.apply(numbered(3, 3), fill=_).tolist() == [rows]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_codebooks, num_frames", [(1, 1), (1, 5), (4, 1), (4, 7), (3, 0)])
def test_revert_undoes_apply(name: str, num_codebooks: int, num_frames: int) -> None:
    pattern = Pattern.named(name, num_codebooks)
    codes = torch.randint(100, (2, num_codebooks, num_frames), generator=torch.Generator().manual_seed(0))
    sequence = pattern.apply(codes, fill=-1)
    assert sequence.shape[-1] == pattern.num_steps(num_frames)
    assert (sequence >= 0).sum() == codes.numel()
    assert torch.equal(pattern.revert(sequence, num_frames), codes)


@pytest.mark.parametrize("name", NAMES)
def test_each_code_stands_where_the_formula_says(name: str) -> None:
    pattern = Pattern.named(name, 3)
    codes = numbered(3, 4)
    sequence = pattern.apply(codes, fill=-1)
    for codebook in range(3):
        for frame in range(4):
            assert sequence[0, codebook, pattern.step(codebook, frame)] == codes[0, codebook, frame]


@pytest.mark.parametrize("name", NAMES)
def test_first_and_last_step_enclose_a_frame(name: str) -> None:
    pattern = Pattern.named(name, 3)
    held = [pattern.step(codebook, 2) for codebook in range(3)]
    assert (pattern.first_step(2), pattern.last_step(2)) == (min(held), max(held))


def test_offsets_take_the_place_of_those_that_delay_has() -> None:
    stereo = (0, 0, 1, 1, 2, 2, 3, 3)
    assert Pattern.named("delay", 8, stereo).offsets == stereo
    assert Pattern.named("delay", 3, ()) == Pattern.delay(3) == Pattern.delay(3, (0, 1, 2))


def test_number_of_steps() -> None:
    steps = [Pattern.named(name, 4).num_steps(10) for name in NAMES]
    assert steps == [10, 13, 40]


def test_revert_keeps_further_axes() -> None:
    sequence = torch.randn(2, 3, 6, 5)
    reverted = Pattern.delay(3).revert(sequence, 4)
    assert reverted.shape == (2, 3, 4, 5)
    assert torch.equal(reverted[:, 2, 1], sequence[:, 2, 3])


@pytest.mark.parametrize(
    "act",
    [
        lambda: Pattern(0, (0,)),
        lambda: Pattern(1, ()),
        lambda: Pattern(1, (-1, 0)),
        lambda: Pattern(1, (0, 1.0)),
        lambda: Pattern(1, (0, True)),
        lambda: Pattern.named("dealy", 2),
        lambda: Pattern.named("flatten", 2, (0, 1)),
        lambda: Pattern.delay(3, (0, 1)),
        lambda: Pattern.delay(2, (0, -1)),
        lambda: Pattern.delay(2).apply(numbered(3, 4), fill=0),
        lambda: Pattern.delay(3).revert(numbered(3, 5), 4),
    ],
)
def test_what_cannot_be_laid_out_is_refused_in_one_line(act: object) -> None:
    with pytest.raises(ValueError) as refusal:
        act()  # type: ignore[operator]
    assert "\n" not in str(refusal.value)
