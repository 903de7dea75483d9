"""A chain of stages knows how far it looks around and how much it must be given at first."""

from __future__ import annotations

import pytest

from audiolm_kit.codec.stage import Stage, context, first_piece, stateless

SAME = stateless(lambda frames: frames)
CONV = Stage(SAME, kept=6, late=3)
CAUSAL = Stage(SAME, kept=6)
MIRRORED = Stage(SAME, kept=6, start=7)
UP = Stage(SAME, kept=1, late=1, hop=4)


@pytest.mark.parametrize(
    ("stages", "around", "first"),
    [
        ([Stage(SAME)], (0, 0), 1),
        ([CONV], (3, 3), 4),
        ([CONV, CONV], (6, 6), 7),
        ([CAUSAL, CAUSAL], (12, 0), 1),
        ([MIRRORED], (6, 0), 7),
        ([CONV, MIRRORED], (9, 3), 10),
        ([UP], (1, 1), 1),
        ([UP, CONV], (2, 1), 2),
        ([CONV, UP, MIRRORED], (6, 4), 5),
    ],
)
def test_the_context_and_the_first_piece_of_a_chain(stages: list[Stage], around: tuple[int, int], first: int) -> None:
    assert context(stages) == around
    assert first_piece(stages) == first


def test_needed_frames_are_those_that_make_outputs_final() -> None:
    for stage in (CONV, CAUSAL, UP):
        for outputs in range(1, 20):
            frames = stage.needed(outputs)
            assert frames * stage.hop - stage.late >= outputs > (frames - 1) * stage.hop - stage.late
