"""The verbs about checkpoints, from end to end: import, export, verify, push, and models of the hub by name."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch

from audiolm_kit import audio, checkpoint, hub, provenance
from audiolm_kit.cli import main
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.adapters import Adapters, save_adapters
from audiolm_kit.lm.lora import LoRAConfig, add, trained_weights
from audiolm_kit.lm.model import StreamLM

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    """A codec that EnCodec of transformers can be."""
    torch.manual_seed(0)
    body = SEANetConfig(ratios=(4, 2), filters=2, dim=4, lstm=1)
    quantizer = QuantizerConfig(num_codebooks=2, codebook_size=16, dim=4)
    made = NeuralCodec(CodecConfig(8000, body="seanet", seanet=body, quantizer=quantizer))
    checkpoint.save(made, tmp_path / "codec")
    return tmp_path / "codec"


@pytest.fixture
def published(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """Put a folder into a hub cache as the client lays it out, links to blobs included."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(name: str, folder: Path) -> None:
        model = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (model / "refs").mkdir(parents=True)
        (model / "refs" / "main").write_text(COMMIT)
        shutil.copytree(folder, model / "blobs")
        for path in sorted((model / "blobs").rglob("*")):
            if path.is_file():
                link = model / "snapshots" / COMMIT / path.relative_to(model / "blobs")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)

    return put


def test_export_and_import_are_one_command_each(
    codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(codec), "--to", "transformers", "-o", str(tmp_path / "theirs")]) == 0
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "again"), "--unsafe-pickle"]) == 0
    told = capsys.readouterr().out
    assert told.count("NeuralCodec, 2 codebooks of 16 at 1000 Hz, 8000 Hz mono") == 2
    first, again = (checkpoint.load(NeuralCodec, each) for each in (codec, tmp_path / "again"))
    assert checkpoint.fingerprint(first) == checkpoint.fingerprint(again)


def test_merge_puts_adapters_into_their_base(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, config = checkpoint.load(StreamLM, trained / "lm"), LoRAConfig(rank=2)
    adapted = add(copy.deepcopy(base), config)
    with torch.no_grad():
        for weight in trained_weights(adapted).values():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    codes = torch.zeros(1, base.config.num_codebooks, 5, dtype=torch.long)
    wanted = adapted(codes)
    learned = Adapters(config, checkpoint.fingerprint(base), trained_weights(adapted))
    save_adapters(learned, tmp_path / "adapters")
    assert main(["merge", str(trained), str(tmp_path / "adapters"), "-o", str(tmp_path / "merged")]) == 0
    count = sum(weight.numel() for weight in base.parameters())
    assert (
        f"{tmp_path / 'merged'}: {trained} with {tmp_path / 'adapters'}, {count:,} weights" in capsys.readouterr().out
    )
    torch.testing.assert_close(AudioGen.load(tmp_path / "merged").lm(codes), wanted, rtol=1e-4, atol=1e-5)
    assert main(["merge", str(tmp_path / "merged"), str(tmp_path / "adapters"), "-o", str(tmp_path / "twice")]) == 2


def test_verify_says_by_its_exit_code_whether_two_are_equal(
    codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("audiolm_kit.official.verify")
    assert main(["export", str(codec), "--to", "transformers", "-o", str(tmp_path / "theirs")]) == 0
    assert main(["verify", str(codec), str(tmp_path / "theirs")]) == 0
    other = checkpoint.load(NeuralCodec, codec)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn(weight.shape))
    checkpoint.save(other, tmp_path / "other")
    assert main(["verify", str(codec), str(tmp_path / "other")]) == 1
    assert "Equal in all" in (told := capsys.readouterr().out) and "Not equal: " in told.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["import", "nowhere", "x"], "audiolm-kit import: no checkpoint folder at nowhere: give a folder"),
        (["import", "."], "the following arguments are required: folder"),
        (["export", "nowhere", "--to", "onnx", "-o", "x"], "audiolm-kit export: "),
        (
            ["export", "nowhere", "--to", "transformers"],
            "audiolm-kit export: the following arguments are required: out",
        ),
        (["push", "nowhere", "owner/bells"], "audiolm-kit push: the following arguments are required: licence"),
        (["push", "nowhere", "owner/bells", "--licence", "mit"], "audiolm-kit push: no checkpoint folder at nowhere"),
    ],
)
def test_a_mistake_is_one_line(
    command: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_a_dry_run_writes_the_card_and_uploads_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(trained, tmp_path / "model")
    uploaded: list[Any] = []
    monkeypatch.setattr(hub, "upload", lambda *given: uploaded.append(given) or "https://hf.co/owner/bells")
    assert main(["push", str(folder), "owner/bells", "--licence", "mit", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"{folder / 'README.md'}: written; nothing is uploaded\n" and uploaded == []
    assert main(["push", str(folder), "owner/bells", "--licence", "mit", "--private"]) == 0
    assert uploaded == [(str(folder), "owner/bells", True)]
    assert "https://hf.co/owner/bells" in capsys.readouterr().out


def test_a_push_without_the_hub_is_one_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(trained, tmp_path / "model")
    assert main(["push", str(folder), "owner/bells", "--licence", "mit"]) == 2
    error = capsys.readouterr().err
    assert "owner/bells cannot be uploaded: HF_HUB_OFFLINE is set" in error and error.count("\n") == 1


def test_what_was_pushed_is_opened_by_its_name(
    trained: Path, tmp_path: Path, published: Callable[[str, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    assert main(["push", str(folder), "owner/bells", "--licence", "mit", "--dry_run"]) == 0
    published("owner/bells", folder)
    assert AudioGen.load("owner/bells").fingerprints == AudioGen.load(folder).fingerprints
    made = ["a bell rings", "--seconds", "0.2", "--seed", "3", "-o"]
    assert main(["generate", "owner/bells", *made, "hub.wav"]) == 0
    assert main(["generate", str(folder), *made, "here.wav"]) == 0
    assert torch.equal(audio.read("hub.wav").samples, audio.read("here.wav").samples)
    assert main(["import", "owner/bells", "fetched"]) == 0
    assert provenance.read("fetched")["imported"] == {"source": "owner/bells", "layout": "ours"}
    assert not any(path.is_symlink() for path in Path("fetched").rglob("*"))


def test_a_codec_of_the_hub_tokenizes(codec: Path, tmp_path: Path, published: Callable[[str, Path], None]) -> None:
    published("owner/codec", codec)
    tone = torch.sin(torch.arange(8000) * 0.1)[None] * 0.5
    audio.write(tmp_path / "sounds" / "tone.wav", audio.Sound(tone, 8000))
    assert main(["manifest", "sounds", "-o", "m.jsonl"]) == 0
    assert main(["tokenize", "owner/codec", "m.jsonl", "-o", "shards"]) == 0
    assert list((tmp_path / "shards").glob("*.parquet"))


def test_a_model_that_is_not_in_the_cache_is_one_line(
    published: Callable[[str, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "owner/nowhere", "rain", "-o", "x.wav"]) == 2
    error = capsys.readouterr().err
    assert "no checkpoint folder at owner/nowhere, nor such a model of the hub" in error and error.count("\n") == 1


def test_assembled_stages_keep_what_each_says_of_its_making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from audiolm_kit.inference import audiolm

    class Assembled:
        stages = {"semantic": None, "coarse": None}

        @classmethod
        def assemble(cls, folders: list[Path]) -> Assembled:
            return cls()

        def save(self, folder: str) -> None:
            checkpoint.write_json(Path(folder) / "config.json", {"kind": "AudioLM"})

    monkeypatch.setattr(audiolm, "AudioLM", Assembled)
    for name, steps in (("coarse", 3), ("semantic", 5)):
        checkpoint.write_json(tmp_path / name / "config.json", {"stage": {"name": name}})
        provenance.write(tmp_path / name, {"steps": steps})
    given = [str(tmp_path / name) for name in ("coarse", "semantic")]
    assert main(["assemble", *given, "-o", str(tmp_path / "model")]) == 0
    told = json.loads((tmp_path / "model" / "training.json").read_text())["stages"]
    assert {name: run["steps"] for name, run in told.items()} == {"semantic": 5, "coarse": 3}
