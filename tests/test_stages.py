"""Stages: what stands in front of what."""

from __future__ import annotations

import pytest

from audiolm_kit.stages import Stage


def test_each_stage_stands_on_the_one_before_it() -> None:
    stages = [
        Stage("semantic", (0, 1), 30.0),
        Stage("coarse", (0, 4), 10.0, (0, 1)),
        Stage("fine", (4, 12), 3.0, (0, 4)),
        Stage("acoustic", (0, 12), 10.0, (0, 1)),
    ]
    assert [stage.source for stage in stages] == ["semantic", "codec", "codec", "codec"]
    assert [stage.prefix for stage in stages] == ["", "semantic", "codec", "semantic"]


def test_lists_as_json_has_them_make_the_same_stage() -> None:
    assert Stage("fine", [4, 8], 3.0, [0, 4]) == Stage("fine", (4, 8), 3.0, (0, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("semantic", (0, 0), 1.0), "codebooks of stage semantic"),
        (("semantic", (0, 1), 1.0, (0, 1)), "wanted none"),
        (("coarse", (0, 4), 1.0), "wanted those of the semantic codes"),
        (("fine", (4, 8), 0.0, (0, 4)), "seconds of stage fine is 0.0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: tuple[object, ...], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        Stage(*given)  # type: ignore[arg-type]
