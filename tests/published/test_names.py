"""Models of the package: opened by name wherever a folder is, told where a name is wrong, and a folder here wins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from audiolm_kit import AudioLM, Sampling, audio, hub
from audiolm_kit.cli import main
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.published import names
from audiolm_kit.published.names import Example

EXAMPLE = {"texts": ["a bell rings"], "seconds": 0.3, "sampling": {"temperature": 0.8}}


@pytest.fixture
def shipped(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the model small-bells, seen from an empty folder."""
    folder = Path(shutil.copytree(trained, tmp_path / "published" / "small-bells"))
    (folder / names.EXAMPLE).write_text(json.dumps(EXAMPLE))
    monkeypatch.setattr(names, "FOLDER", folder.parent)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_a_name_opens_what_its_folder_opens(shipped: Path, trained: Path) -> None:
    assert AudioGen.load("small-bells").fingerprints == AudioGen.load(trained).fingerprints
    assert hub.local("small-bells") == hub.checkpoint("small-bells") == shipped


def test_a_folder_or_a_file_of_the_name_wins(shipped: Path) -> None:
    Path("small-bells").write_text("a file")
    assert names.found("small-bells") is None
    Path("small-bells").unlink()
    Path("small-bells").mkdir()
    assert names.found("small-bells") is None and hub.local("small-bells") == Path("small-bells")
    with pytest.raises(FileNotFoundError, match="small-bells holds no config.json"):
        AudioGen.load("small-bells")


@pytest.mark.parametrize("name", ["./small-bells", "published/small-bells", "../small-bells", "Small-bells", "", "-"])
def test_what_is_written_as_a_path_is_none_of_them(name: str, shipped: Path) -> None:
    assert names.found(name) is None
    assert names.found(Path("small-bells")) is None


def test_an_unknown_name_fails_in_one_line_that_lists_what_there_is(
    shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "spoken-digit", "seven", "-o", "seven.wav"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "no checkpoint folder at spoken-digit: give a folder that is there" in told
    assert told.endswith("or a model that comes with the package (small-bells)\n")


def test_where_none_is_shipped_none_is_offered(shipped: Path) -> None:
    shutil.rmtree(shipped)
    assert names.models() == {} and names.offer() == ""
    with pytest.raises(FileNotFoundError, match=r"name on the hub \(owner/model\)$"):
        hub.local("small-bells")


def test_only_whole_models_are_listed(shipped: Path) -> None:
    (shipped.parent / ".small-rain.x" / "small-rain").mkdir(parents=True)  # one that is still being written
    shutil.copytree(shipped, shipped.parent / ".small-rain.x", dirs_exist_ok=True)
    (shipped.parent / "__pycache__").mkdir()
    assert names.models() == {"small-bells": "AudioGen"}


def test_the_help_lists_them(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "  small-bells          AudioGen\n" in capsys.readouterr().out


def test_generate_makes_as_many_seconds_as_the_model_makes_best(shipped: Path) -> None:
    for name, options in {"own": [], "said": ["--seconds", "0.1"], "timed": ["--text", "0-0.2: rain"]}.items():
        texts = [] if name == "timed" else ["a bell"]
        assert main(["generate", "small-bells", *texts, "-o", f"{name}.wav", *options]) == 0
    assert [audio.info(f"{name}.wav")[2] for name in ("own", "said", "timed")] == [2400, 800, 1600]


def test_an_example_says_what_it_says_and_no_more(shipped: Path) -> None:
    assert names.example(shipped) == Example(("a bell rings",), (), 0.3, {"temperature": 0.8})
    (shipped / names.EXAMPLE).write_text('{"text": "x"}')
    with pytest.raises(ValueError, match="example.json has other fields than texts, prompts, seconds, sampling"):
        names.example(shipped)
    (shipped / names.EXAMPLE).write_text("{")
    with pytest.raises(ValueError, match="example.json is not readable as JSON"):
        names.example(shipped)
    (shipped / names.EXAMPLE).unlink()
    assert names.example(shipped) == Example()


def test_every_shipped_model_has_a_card_and_an_example() -> None:
    assert names.models() == {"sound-events": "AudioGen", "spoken-digits": "AudioGen", "spoken-strings": "AudioLM"}
    for name in names.models():
        folder = names.FOLDER / name
        assert {"README.md", names.EXAMPLE} <= {path.name for path in folder.iterdir()}
        example = names.example(folder)
        assert all((folder / prompt).is_file() for prompt in example.prompts) and example.seconds > 0


@pytest.mark.parametrize("name", names.models())
def test_every_shipped_model_makes_sound(name: str) -> None:
    example = names.example(names.FOLDER / name)
    if names.models()[name] == "AudioGen":
        [sound] = AudioGen.load(name).generate(example.texts[:1], 0.4, Sampling(**example.sampling))
    else:
        prompt = audio.read(names.FOLDER / name / example.prompts[0])
        [sound] = AudioLM.load(name).continue_([prompt], prompt.samples.shape[1] / prompt.sample_rate + 0.4)
        assert sound.samples.shape[1] > prompt.samples.shape[1]
    assert sound.samples.shape[1] >= 0.4 * sound.sample_rate and audio.rms_dbfs(sound.samples) > -50


def test_looking_a_name_up_loads_nothing(run_python: Callable[[str], str]) -> None:
    code = "import sys; from audiolm_kit.published import names; names.models(); print('torch' in sys.modules)"
    assert run_python(code) == "False"
