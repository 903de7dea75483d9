"""One run, the same on one process, on two and sharded over two: by the real command line, its processes over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_runs import CAPTIONS, a_codec

import audiolm_kit
from audiolm_kit import checkpoint
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.data.shards import TokenFormat, TokenRow, write_shards
from audiolm_kit.lm.model import StreamLM

pytestmark = pytest.mark.slow

STEPS = 6
RECIPE: dict[str, Any] = {
    "seed_everything": 1,
    "model": {
        "class_path": "audiolm_kit.training.lm.LMTask",
        "init_args": {
            "lm": {
                "num_codebooks": 2,
                "codebook_size": 16,
                "pattern": "delay",
                "transformer": {"dim": 32, "heads": 2, "layers": 2, "cross_attention": True},
                "text": {"kind": "small", "dim": 16, "layers": 1, "heads": 2, "pieces": 60},
            },
            "codec": "codec",
            "context_dropout": 0.0,  # coins belong to their rank
            "gradient_checkpointing": True,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}},
            "scheduler": {
                "class_path": "audiolm_kit.training.optim.WarmupInverseSquareRoot",
                "init_args": {"warmup_steps": 2},
            },
        },
    },
    "data": {
        "class_path": "audiolm_kit.data.modules.TokenData",
        "init_args": {"shards": "tokens", "valid_shards": "valid", "frames": 6},
    },
    "trainer": {
        "accelerator": "cpu",
        "gradient_clip_val": 0.3,
        "logger": False,
        "val_check_interval": 3,
        "check_val_every_n_epoch": None,
        "callbacks": [
            {"class_path": "audiolm_kit.training.averaging.MovingAverage", "init_args": {"decay": 0.8}},
            {
                "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
                "init_args": {"save_last": True, "save_top_k": 0, "every_n_train_steps": 3},
            },
        ],
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe, a codec and shards of its codes."""
    path = tmp_path_factory.mktemp("ranks")
    torch.manual_seed(0)
    codec = NeuralCodec(a_codec())
    checkpoint.save(codec, path / "codec")
    token_format = TokenFormat(checkpoint.fingerprint(codec), 2, 16, codec.frame_rate, codec.sample_rate)
    rows = [TokenRow(torch.randint(0, 16, (2, 6 + number)), CAPTIONS[number % 4]) for number in range(8)]
    write_shards(path / "tokens", rows, token_format)
    write_shards(path / "valid", rows[:3], token_format)
    (path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return path


def fit(folder: Path, strategy: str, root: Path, steps: int = STEPS, **options: Any) -> dict[str, torch.Tensor]:
    """Train up to a step, four items in each, in one process or in two; what is exported."""
    ranks = 1 if strategy == "auto" else 2
    options = {
        "trainer.strategy": strategy,
        "trainer.devices": ranks,
        "trainer.max_steps": steps,
        "trainer.default_root_dir": root / "run",
        "model.export": root / "model",
        "data.batch_size": 4 // ranks,
        **options,
    }
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "audiolm_kit", "fit", "-c", "recipe.yaml", *given]
    source = str(Path(audiolm_kit.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return checkpoint.load(StreamLM, root / "model" / "lm").state_dict()


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What one process learns."""
    return fit(folder, "auto", tmp_path_factory.mktemp("alone"))


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_ranks_learn_what_one_learns_and_export_its_average(
    folder: Path, tmp_path: Path, alone: dict[str, torch.Tensor], strategy: str
) -> None:
    assert_same(fit(folder, strategy, tmp_path, **{"model.export_every": 4}), alone)


@pytest.mark.parametrize(("first", "then"), [("ddp", "fsdp2"), ("fsdp2", "auto")])
def test_a_killed_run_goes_on_also_by_another_strategy(
    folder: Path, tmp_path: Path, alone: dict[str, torch.Tensor], first: str, then: str
) -> None:
    fit(folder, first, tmp_path, steps=3)
    assert_same(fit(folder, then, tmp_path), alone)


def test_shards_in_half_precision_learn_too(folder: Path, tmp_path: Path, alone: dict[str, torch.Tensor]) -> None:
    found = fit(folder, "fsdp2", tmp_path, **{"trainer.precision": "bf16-mixed"})
    assert all(value.dtype == torch.float32 for value in found.values())
    torch.testing.assert_close(found, alone, rtol=0.1, atol=0.02)
