"""Model cards: filled from the checkpoint's own files, never at odds with them, and a card by hand is left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from audiolm_kit import checkpoint, model_card, provenance
from audiolm_kit.evaluation.contrastive import ContrastiveScorer
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.model_card import write_card

RUN: dict[str, Any] = {
    "task": "LMTask",
    "steps": 4000,
    "batches": 4000,
    "seed": 7,
    "ranks": 2,
    "precision": "bf16-mixed",
    "data": {
        "kind": "TokenData",
        "shards": "build/tokens",
        "batch_size": 16,
        "rows": 120,
        "recordings": 40,
        "hours": 2.5,
    },
    "validated": {"step": 3900, "valid/loss": 2.25},
    "recipe": {"model": {"class_path": "audiolm_kit.training.lm.LMTask", "init_args": {"export": "build/model"}}},
}


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A checkpoint that says how it was made."""
    copied = Path(shutil.copytree(trained, tmp_path / "model"))
    provenance.write(copied, RUN)
    return copied


def written(folder: Path, **options: Any) -> str:
    return write_card(folder, "owner/bells", options.pop("licence", "mit"), **options).read_text()


def front_matter(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_the_front_matter_is_what_the_hub_reads(folder: Path) -> None:
    about = front_matter(written(folder, licence="cc-by-nc-4.0"))
    assert about == {
        "license": "cc-by-nc-4.0",
        "library_name": "audiolm_kit",
        "tags": ["audiolm_kit", "audio", "audiogen", "audio-generation"],
        "pipeline_tag": "text-to-audio",
    }


def test_a_scorer_has_a_card_and_a_row_in_that_of_the_model_that_brings_it(
    trained: Path, scorer_folder: Path, tmp_path: Path
) -> None:
    scorer, whole = ContrastiveScorer.load(scorer_folder), AudioGen.load(trained)
    AudioGen(whole.codec, whole.lm, whole.conditioner, scorer).save(tmp_path / "bringing")
    row = "a small CLAP that chooses among takes, 0.4 s at 8000 Hz"
    assert f"| scorer | {row} |" in written(tmp_path / "bringing")
    copied = Path(shutil.copytree(scorer_folder, tmp_path / "scorer"))
    text = written(copied)
    assert f"| model | {row} |" in text and 'ContrastiveScorer.load(hub.local("owner/bells"))' in text


def test_the_hubs_own_reader_takes_the_card(folder: Path) -> None:
    from huggingface_hub import ModelCard

    read = ModelCard(written(folder))
    assert (read.data.license, read.data.library_name) == ("mit", "audiolm_kit")


def test_the_card_tells_data_training_recipe_and_results(folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "metrics.json"
    results.write_text('{"clap": {"mean": 0.31, "each": [0.1, 0.2]}, "fad": 4.5, "good": true, "note": "x"}')
    text = written(folder, results=[results])
    assert "- shards build/tokens; 40 recordings, 120 rows, 2.5 hours (TokenData)" in text
    assert "LMTask, 4000 steps of 16 items on each of 2 devices, seed 7, precision bf16-mixed, audiolm_kit" in text
    assert "| valid/loss | 2.25 | validation after step 3900 |" in text
    assert "| clap/mean | 0.31 | measured |" in text and "| fad | 4.5 | measured |" in text
    assert "good" not in text.split("## Results")[1] and "each |" not in text
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]) == RUN["recipe"]


def test_the_card_tells_the_parts_with_their_fingerprints(folder: Path) -> None:
    text, model = written(folder), AudioGen.load(folder)
    assert "codec (convnext), 2 codebooks of 16 at 50 Hz, 8000 Hz, mono, 0.4 kbit/s" in text
    assert "2 codebooks of 16, pattern delay, 1 layers of 8, 1 heads, captions by small" in text
    assert all(f"`{model.fingerprints[part]}` |" in text for part in ("codec", "lm"))


def test_what_it_shows_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(folder)
    monkeypatch.chdir(folder.parent)
    (folder.parent / "owner").mkdir()
    folder.rename(folder.parent / "owner" / "bells")
    code = text.split("```python\n")[1].split("```")[0]
    exec(compile(code.replace("seconds=5", "seconds=0.1"), "card.md", "exec"), {})
    assert Path("sound.wav").is_file()


@pytest.mark.parametrize("part", ["codec", "lm"])
def test_a_part_by_itself_has_a_card_whose_code_runs(
    folder: Path, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = written(folder / part)
    (tmp_path / "owner").mkdir()
    shutil.copytree(folder / part, tmp_path / "owner" / "bells")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(text.split("```python\n")[1].split("```")[0], "card.md", "exec"), names)
    assert checkpoint.fingerprint(names["model"]) in text
    assert "The checkpoint does not say what it was trained on." in text and "None are recorded." in text


def test_an_imported_model_names_its_source_and_its_licence(folder: Path) -> None:
    provenance.write(folder, {"imported": {"source": "facebook/audiogen-medium", "layout": "audiocraft"}})
    text = written(folder)
    assert front_matter(text)["base_model"] == ["facebook/audiogen-medium"]
    assert "imported from facebook/audiogen-medium (audiocraft)" in text
    assert "They come of facebook/audiogen-medium, whose own licence holds too." in text


def test_a_fine_tuned_model_names_its_base(folder: Path) -> None:
    run = {**RUN, "recipe": {"model": {"init_args": {"base": "owner/base"}}}}
    provenance.write(folder, run)
    text = written(folder)
    assert front_matter(text)["base_model"] == ["owner/base"] and "; it began with owner/base." in text


def test_the_stages_of_an_audiolm_are_told_one_by_one(folder: Path) -> None:
    provenance.write(folder, {"stages": {"semantic": RUN, "coarse": {**RUN, "steps": 9}}})
    text = written(folder)
    assert "Stage semantic: LMTask, 4000 steps" in text and "Stage coarse: LMTask, 9 steps" in text
    assert "| valid/loss | 2.25 | stage coarse validation after step 3900 |" in text


def test_a_card_is_the_same_each_time_and_one_by_hand_stays(folder: Path) -> None:
    first = written(folder)
    assert written(folder) == first
    (folder / "README.md").write_text(first.replace(model_card.MARK, "") + "What I have heard in it.")
    assert written(folder).endswith("What I have heard in it.")


def test_a_damaged_checkpoint_gets_no_card(folder: Path) -> None:
    with open(folder / "text.model", "ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="text.model is not what the checkpoint was made of"):
        written(folder)
    assert not (folder / "README.md").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"licence": "MIT License"}, "licence is 'MIT License', wanted the hub's name for it, such as mit"),
        ({"licence": ""}, "licence is ''"),
        ({"results": ["nowhere.json"]}, "no results at nowhere.json"),
    ],
)
def test_what_a_card_cannot_say_is_told(folder: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        written(folder, **options)
    with pytest.raises(ValueError, match="name is 'bells', wanted owner/model"):
        write_card(folder, "bells", "mit")


def test_results_without_numbers_are_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"scores": [1, 2]}))
    with pytest.raises(ValueError, match="x.json holds no numbers"):
        written(folder, results=[tmp_path / "x.json"])


def test_another_programs_folder_gets_no_card(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "musicgen"}')
    with pytest.raises(ValueError, match="holds a foreign checkpoint"):
        written(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint folder at"):
        written(tmp_path / "nowhere")
