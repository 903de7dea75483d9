"""docs/audiolm.md keeps its word: its commands parse, name files that there are, and ask for what can be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from pages import ROOT, page

from audiolm_kit import audio, cli
from audiolm_kit.commands import sound

PAGE = page("docs/audiolm.md")


class Reached(Exception):
    """Nothing was wrong with an order before its model was opened."""


@pytest.mark.parametrize(
    "command", [words for words in PAGE.kit() if words[0] in ("generate", "continue")], ids=" ".join
)
def test_every_sound_is_an_order_that_can_be_filled(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(order: object, folder: str, *opening: object) -> None:
        raise Reached(folder)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "build/mine/audiolm").mkdir(parents=True)
    (tmp_path / "build/mine/audiolm/config.json").write_text('{"kind": "AudioLM"}')
    audio.write("prompt.wav", audio.Sound(torch.zeros(1, 8000), 8000))
    monkeypatch.setattr(sound, "make_unscripted", make)
    with pytest.raises(Reached, match="build/mine/audiolm"):
        cli.main(command)


def test_the_page_names_recipes_and_tools_that_there_are() -> None:
    named = {word for words in PAGE.commands() for word in words if word.startswith(("recipes/", "tools/"))}
    assert len(named) >= 4
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_way_leads_from_recordings_to_a_score() -> None:
    verbs = [words[0] for words in PAGE.kit()]
    assert list(dict.fromkeys(verbs)) == [
        *("manifest", "kmeans", "fit", "tokenize", "assemble"),
        *("continue", "generate", "score"),
    ]


def test_the_masked_model_has_as_many_frames_as_its_targets() -> None:
    [targets] = [words for words in PAGE.kit() if words[0] == "kmeans" and "build/mine/targets" in words]
    recipe = yaml.safe_load((ROOT / "recipes/audiolm_digits/masked.yaml").read_text(encoding="utf-8"))
    masked = recipe["model"]["init_args"]["masked"]
    rates = [float(targets[targets.index(f"--{name}") + 1]) for name in ("sample_rate", "frame_rate")]
    assert rates == [masked["sample_rate"], masked["sample_rate"] / masked["hop"]]
