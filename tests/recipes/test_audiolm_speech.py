"""recipes/audiolm_speech: how voices are compared, and when the rule is met."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from reading import load

results = load("audiolm_speech", "results")


def test_likeness_is_of_the_own_prompt_or_in_the_mean_of_others() -> None:
    voices = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    speakers = ["a", "a", "b", "c"]
    assert results.own(voices, voices).tolist() == pytest.approx([1, 1, 1, 1])
    assert results.others(voices, voices, speakers, same=True).tolist() == [1, 1]  # b and c have no other recording
    other = results.others(voices, voices, speakers, same=False)
    assert other.tolist() == pytest.approx([0.3, 0.3, 0.8 / 3, (0.6 + 0.6 + 0.8) / 3])


def write_arm(folder: Path, before: np.ndarray, behind: np.ndarray, speakers: list[str]) -> None:
    folder.mkdir(parents=True)
    np.save(folder / "voices.npy", np.stack([before, behind], 1))
    sounds = [{"path": f"{number}.flac", "labels": [who]} for number, who in enumerate(speakers)]
    (folder / "voices.json").write_text(json.dumps({"asked": {}, "sounds": sounds}))


@pytest.mark.parametrize("kept", [True, False])
def test_the_rule_is_met_by_models_that_keep_the_voice_alone(tmp_path: Path, kept: bool) -> None:
    draw, speakers = np.random.default_rng(0), ["a", "b", "c"] * 6
    voices = np.eye(8)[[0, 1, 2] * 6] + 0.05 * draw.normal(size=(18, 8))
    voices /= np.linalg.norm(voices, axis=1, keepdims=True)
    for name in ("real", "reconstruction"):
        write_arm(tmp_path / "recordings" / name, voices, voices, speakers)
    for seed in range(3):
        write_arm(tmp_path / "voices" / f"audiolm-{seed}", voices, voices if kept else -voices, speakers)
        write_arm(tmp_path / "voices" / f"only-{seed}", voices, -voices, speakers)
    rows = results.voices(ModuleType("judges"), tmp_path)
    [ruled] = [row for row in rows if "rule" in row]
    assert ruled["rule"]["passed"] is kept and ruled["count"] == 54
    by_name = {row["what"].partition(": ")[2]: row["value"] for row in rows}
    assert by_name["real recording, as it goes on (ceiling)"] == pytest.approx(1)
    assert by_name["recordings of the other speakers (floor)"] < 0.1
    assert (by_name["AudioLM less acoustic codes alone"] > 0.9) is kept
