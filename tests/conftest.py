"""What every test gets: no network, one thread, a fresh interpreter on request, and no gpu test without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # transformers and datasets read it when they are imported, which is later
torch.set_num_threads(1)  # small tensors are slower on several


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def run_python() -> Callable[[str], str]:
    """Run code in a fresh interpreter and return what it prints."""

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
