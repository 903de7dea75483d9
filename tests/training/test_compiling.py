"""A missing compiler is told in one line, before training."""

from __future__ import annotations

import pytest
import torch

from audiolm_kit.training import compiling


def test_a_missing_compiler_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("\n  no working compiler found in [g++]\nand a hundred lines more")

    monkeypatch.setattr(compiling, "_trifle", broken)
    with pytest.raises(
        ValueError, match=r"no working compiler found in \[g\+\+\]\): install a C\+\+ compiler"
    ) as caught:
        compiling.check_compiler(torch.device("cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_compiler_that_is_there_is_found() -> None:
    compiling.check_compiler(torch.device("cpu"))
