"""The demonstration lets every model of the package be heard, and says how long it took."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import demo
import pytest
import torch
from listening_items import read_items

from audiolm_kit import AudioGen, Sampling, Sound, audio
from audiolm_kit.published import names

TEXTS = ["a bell rings", "rain falls"]


@pytest.fixture
def shelf(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's models: one that says two texts."""
    folder = tmp_path / "published"
    shutil.copytree(trained, folder / "bells")
    example = {"texts": TEXTS, "seconds": 0.4, "sampling": {"temperature": 0.5}}
    (folder / "bells" / names.EXAMPLE).write_text(json.dumps(example))
    monkeypatch.setattr(names, "FOLDER", folder)
    return folder


class Continuing:
    """In the place of an AudioLM: prompts come back longer, by silence."""

    @classmethod
    def load(cls, name: str, frozen: bool) -> Continuing:
        return cls()

    def continue_(self, prompts: list[Sound], seconds: float, sampling: object, seed: int) -> list[Sound]:
        return [self._padded(prompt.samples, seconds) for prompt in prompts]

    def generate(self, count: int, seconds: float, sampling: object, seed: int) -> list[Sound]:
        return [self._padded(torch.full((1, 800), 0.1), seconds) for _ in range(count)]

    def sidecar(self, seconds: float, sampling: object, seed: int, prompt: str) -> dict[str, object]:
        return {"seconds": seconds, "seed": seed, "prompt": prompt}

    @staticmethod
    def _padded(samples: torch.Tensor, seconds: float) -> Sound:
        return Sound(torch.nn.functional.pad(samples, (0, round(8000 * seconds) - samples.shape[1])), 8000)


@pytest.fixture
def wordless(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One more, that continues."""
    folder = shelf / "voices"
    folder.mkdir()
    (folder / "config.json").write_text('{"kind": "AudioLM"}')
    audio.write(folder / "prompt-1.wav", Sound(0.3 * torch.sin(torch.arange(1600) * 0.3)[None], 8000))
    (folder / names.EXAMPLE).write_text(json.dumps({"prompts": ["prompt-1.wav"], "seconds": 0.5}))
    monkeypatch.setattr(demo, "AudioLM", Continuing)
    return folder


def test_it_makes_what_the_models_examples_ask_for(
    shelf: Path, wordless: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.main(["-o", str(tmp_path / "out"), "--seed", "3"])
    items = {(item.role, item.name): item for item in read_items(tmp_path / "out" / "sounds")}
    assert items.keys() == {
        ("generated", "bells-1"),
        ("generated", "bells-2"),
        ("prompt", "voices-1"),
        ("continuation", "voices-1"),
    }
    assert [items["generated", f"bells-{n}"].text for n in (1, 2)] == TEXTS
    assert items["generated", "bells-2"].facts["seed"] == 4
    told = capsys.readouterr().out.splitlines()
    assert told[0] == demo.HEAD and told[1].split()[:4] == ["bells", "AudioGen", "2", "0.8"]
    assert told[2].split()[:4] == ["voices", "AudioLM", "1", "0.3"]  # of 0.5 s 0.2 were given
    assert told[-1] == str(tmp_path / "out" / "page" / "index.html")
    page = (tmp_path / "out" / "page" / "index.html").read_text()
    assert "4 sounds, grouped by text." in page and TEXTS[0] in page


def test_its_sounds_are_those_of_the_library(shelf: Path, tmp_path: Path) -> None:
    demo.main(["-o", str(tmp_path / "out")])
    about = json.loads((tmp_path / "out" / "sounds" / "generated" / "bells-2.json").read_text())
    model, sampling = AudioGen.load(shelf / "bells"), Sampling(**about["sampling"])
    [sound] = model.generate([about["text"]], about["seconds"], sampling, about["seed"])
    heard = audio.read(tmp_path / "out" / "sounds" / "generated" / "bells-2.wav")
    torch.testing.assert_close(heard.samples, sound.samples.clamp(-1, 1), rtol=0, atol=1e-3)


def test_an_audiolm_without_prompts_begins_by_itself(wordless: Path, tmp_path: Path) -> None:
    (wordless / names.EXAMPLE).write_text('{"seconds": 0.5}')
    demo.main(["voices", "-o", str(tmp_path / "out")])
    sounds = sorted(path.name for path in (tmp_path / "out" / "sounds" / "generated").glob("*.wav"))
    assert sounds == ["voices-1.wav", "voices-2.wav"]


def test_a_second_run_replaces_the_sounds_of_the_first(shelf: Path, tmp_path: Path) -> None:
    demo.main(["-o", str(tmp_path / "out")])
    (tmp_path / "out" / "sounds" / "generated" / "old.wav").write_bytes(b"")
    demo.main(["-o", str(tmp_path / "out")])
    assert not (tmp_path / "out" / "sounds" / "generated" / "old.wav").exists()


@pytest.mark.parametrize("known", [True, False])
def test_what_is_not_there_is_told(
    known: bool, shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not known:
        shutil.rmtree(shelf / "bells")
    with pytest.raises(SystemExit) as stop:
        demo.main(["rain", "-o", str(tmp_path / "out")])
    wanted = "there are bells" if known else "no model comes with this package yet: make -C recipes/hello trains one"
    assert stop.value.code == 2 and wanted in capsys.readouterr().err
