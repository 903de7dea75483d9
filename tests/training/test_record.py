"""Records: an export says what its run knows, the same each time, and nothing of the machine or of who ran it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from audiolm_kit import checkpoint, provenance
from audiolm_kit.cli import main
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.data.manifest import Row
from audiolm_kit.data.modules import AudioData
from audiolm_kit.data.shards import TokenFormat, TokenRow, write_shards
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.training.record import data_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*")
RATE = 100.0


@pytest.fixture
def recipe(audiogen_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of a language model as small as they get, on shards of two recordings, one in two variants."""
    monkeypatch.chdir(tmp_path)
    codec = checkpoint.load(NeuralCodec, audiogen_folder / "codec")
    made_by = TokenFormat(checkpoint.fingerprint(codec), 2, 16, RATE, 8000)
    draw = torch.Generator().manual_seed(0)
    rows = [
        TokenRow(torch.randint(16, (2, 36), generator=draw), path=f"/home/somebody/{name}.wav", variant=variant)
        for name, variant in (("a", 0), ("a", 1), ("b", 0))
    ]
    write_shards("build/tokens", rows, made_by)
    write_shards(tmp_path / "valid", rows[:1], made_by)
    lm = {"num_codebooks": 2, "codebook_size": 16, "transformer": {"dim": 8, "heads": 1, "layers": 1}}
    model = {"lm": lm, "codec": str(audiogen_folder / "codec"), "export": "build/model"}
    shards = {"shards": "build/tokens", "valid_shards": str(tmp_path / "valid"), "frames": 8, "batch_size": 2}
    logger = {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": str(tmp_path / "log")}}
    trainer = {"accelerator": "cpu", "max_steps": 3, "val_check_interval": 2, "limit_val_batches": 1}
    quiet = {"logger": logger, "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": "run"}
    whole = {
        "seed_everything": 7,
        "model": {"class_path": "audiolm_kit.training.lm.LMTask", "init_args": model},
        "data": {"class_path": "audiolm_kit.data.modules.TokenData", "init_args": shards},
        "trainer": {**trainer, **quiet},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(whole))
    return path


def test_an_export_says_how_it_was_made(recipe: Path) -> None:
    assert main(["fit", "-c", str(recipe)]) == 0
    facts = provenance.read("build/model")
    assert (facts["task"], facts["steps"], facts["batches"], facts["seed"], facts["ranks"]) == ("LMTask", 3, 3, 7, 1)
    data = facts["data"]
    assert (data["rows"], data["recordings"], data["hours"]) == (3, 2, round(3 * 0.36 / 3600, 3))
    assert (data["shards"], data["valid_shards"], data["batch_size"]) == ("build/tokens", "valid", 2)
    assert facts["validated"]["step"] == 2
    assert 0 < facts["validated"]["valid/loss"] < 10 and "train/loss" not in facts["validated"]
    settings = facts["recipe"]["model"]["init_args"]
    assert settings["lm"]["transformer"]["dim"] == 8 and settings["codec"] == "codec"
    assert facts["recipe"]["trainer"]["max_steps"] == 3 and "logger" not in facts["recipe"]["trainer"]
    assert AudioGen.load("build/model").lm.config.num_codebooks == 2


def test_it_names_no_place_of_the_machine(recipe: Path) -> None:
    assert main(["fit", "-c", str(recipe)]) == 0
    text = Path("build/model", provenance.FILE).read_text()
    assert str(recipe.parent) not in text and "somebody" not in text and '"/' not in text


def test_a_run_that_was_stopped_and_one_that_was_not_say_the_same(recipe: Path) -> None:
    assert main(["fit", "-c", str(recipe), "--trainer.max_steps", "2"]) == 0
    assert main(["fit", "-c", str(recipe)]) == 0  # goes on
    resumed = provenance.read("build/model")
    assert main(["fit", "-c", str(recipe), "--fresh"]) == 0
    assert json.dumps(provenance.read("build/model")) == json.dumps(resumed)


def test_recordings_and_hours_of_a_manifest_are_counted() -> None:
    data = AudioData("/home/somebody/sounds.jsonl", 8000)
    data.rows = [Row("a.wav", 1800.0, "rain"), Row("a.wav", 1800.0, "heavy rain"), Row("b.wav", 3600.0)]
    told = data_of(data)
    assert (told["manifest"], told["rows"], told["recordings"], told["hours"]) == ("sounds.jsonl", 3, 2, 2.0)
