"""A checkpoint that is cut off, incomplete, or of another kind: one line that says so, and no sound is begun."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from audiolm_kit import checkpoint
from audiolm_kit.cli import main
from audiolm_kit.codec.model import NeuralCodec

Damage = Callable[[Path], object]


def refusal(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a generation from the checkpoint is refused."""
    assert main(["generate", str(folder), "a bell", "-o", str(tmp_path / "out.wav"), "--seconds", "0.1"]) == 2
    told, complaints = capsys.readouterr()
    assert told == "" and complaints.count("\n") == 1 and complaints.startswith("audiolm-kit generate: "), complaints
    assert not list(tmp_path.glob("*out*"))
    return complaints


def cut(name: str, share: float = 0.5) -> Damage:
    """Keep the beginning of a file."""

    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return damage


def change(name: str, **changes: object) -> Damage:
    """Change entries of a JSON file."""

    def damage(folder: Path) -> None:
        (folder / name).write_text(json.dumps({**checkpoint.read_json(folder / name), **changes}))

    return damage


def remove(name: str) -> Damage:
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def double_the_codec(folder: Path) -> None:
    codec = checkpoint.load(NeuralCodec, folder / "codec")
    next(codec.parameters()).data.mul_(2)
    checkpoint.save(codec, folder / "codec")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (shutil.rmtree, "no checkpoint folder at"),
        (remove("config.json"), "holds no config.json"),
        (cut("config.json"), "is not readable as JSON"),
        (cut("config.json", 0), "is not readable as JSON"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"), "is not readable as JSON"),
        (lambda folder: (folder / "config.json").write_text("[1, 2]"), "holds a list, wanted a JSON object"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "musicgen"}'), "wanted an AudioGen"),
        (change("config.json", kind="NeuralCodec"), "holds a NeuralCodec, wanted an AudioGen"),
        (change("config.json", format=99), "has format 99"),
        (remove("codec"), "no checkpoint folder at"),
        (remove("lm/model.safetensors"), "model.safetensors is missing"),
        (cut("lm/model.safetensors"), "is not a whole safetensors file"),
        (cut("codec/model.safetensors", 0), "is not a whole safetensors file"),
        (cut("lm/config.json"), "is not readable as JSON"),
        (change("lm/config.json", config={"wings": 2}), "has unknown fields ['wings']"),
        (change("lm/config.json", config=None), "lm/config.json: config is None"),
        (change("lm/config.json", config={"num_codebooks": "four"}), "lm/config.json"),
        (change("lm/config.json", config={"pattern": "dealy"}), "dealy"),
        (change("lm/config.json", config={"num_codebooks": 5}), "weights and config.json must be of one model"),
        (remove("text.model"), "no text vocabulary at"),
        (cut("text.model"), "text.model"),
        (cut("text.model", 0), "text.model"),
        (lambda folder: (folder / "text.model").write_text("not a vocabulary"), "is not a sentencepiece model"),
        (double_the_codec, "codec is not what the checkpoint was made of"),
    ],
)
def test_a_damaged_or_foreign_checkpoint(
    damage: Damage, told: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(trained, tmp_path / "model")
    damage(folder)
    assert told in refusal(folder, tmp_path, capsys)


def test_a_part_of_a_checkpoint_in_place_of_the_whole(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds a StreamLM, wanted an AudioGen" in refusal(trained / "lm", tmp_path, capsys)
