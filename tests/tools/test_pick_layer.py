"""Picking a layer: words are told apart on recordings that were not fitted on, and bad requests are told why."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pick_layer as tool
import pytest
import torch

from audiolm_kit import checkpoint
from audiolm_kit.audio import Sound, write
from audiolm_kit.data.manifest import Row, read_manifest, write_manifest
from audiolm_kit.evaluation.abx import AbxScore, Counts, Interval, Intervals, Tables
from audiolm_kit.semantic.masked import MaskedConfig, MaskedModel

RATE = 8000
SECONDS = 0.2
WORDS = {"low": (300.0, 300.0), "high": (1500.0, 1500.0), "rising": (300.0, 1500.0)}
VOICES = {"ann": 1.0, "bob": 1.15}


def tone(word: str, voice: str, take: int) -> Sound:
    """A tone that stays or glides, higher in one voice than in the other, with some noise."""
    steps = torch.linspace(0, 1, round(SECONDS * RATE))
    start, end = (VOICES[voice] * hertz for hertz in WORDS[word])
    phase = 2 * math.pi * torch.cumsum(start + (end - start) * steps, dim=0) / RATE
    noise = torch.randn(len(steps), generator=torch.Generator().manual_seed(take))
    return Sound((0.5 * torch.sin(phase + take) + 0.01 * noise)[None], RATE)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two voices say three words four times, two takes of each for training."""
    folder, rows = tmp_path_factory.mktemp("tones"), []
    for word in WORDS:
        for voice in VOICES:
            for take in range(4):
                path = folder / f"{word}_{voice}_{take}.wav"
                write(path, tone(word, voice, take))
                split = "train" if take < 2 else "valid"
                rows.append(Row(str(path), SECONDS, transcript=f"it is {word}", label=word, speaker=voice, split=split))
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked model of random weights and two layers."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("masked") / "model"
    sizes = {"num_mels": 20, "dim": 16, "heads": 2, "layers": 2, "codebook_size": 8, "class_dim": 8}
    checkpoint.save(MaskedModel(MaskedConfig(sample_rate=RATE, hop=160, **sizes)), folder)
    return folder


def changed(manifest: Path, folder: Path, **columns: str | None) -> Path:
    """The manifest with other columns in every row."""
    rows = [Row(**{**vars(row), **columns}) for row in read_manifest(manifest)]
    write_manifest(folder / "changed.jsonl", rows)
    return folder / "changed.jsonl"


def run(manifest: Path, *options: str, features: str = "mfcc") -> None:
    tool.main([str(manifest), "--features", features, "--codebook_size", "8", *options])


def test_words_are_told_apart(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(manifest, "--sample_rate", str(RATE), "-o", str(tmp_path / "layers.json"))
    head, _, row = capsys.readouterr().out.strip().split("\n")
    assert head.startswith("| layer | features, within | features, across | centroids, within")
    assert row.startswith("| **none** | **0.0 %**")
    told = json.loads((tmp_path / "layers.json").read_text())
    assert told["best"] is None and told["options"]["features"] == "mfcc"
    [scores] = told["layers"]
    for kind in ("features", "centroids", "codes"):
        assert scores[kind]["counts"] == {"items": 12, "categories": 3, "speakers": 2, "within": 48, "across": 96}
        assert scores[kind]["within"]["error"] < 0.2 and scores[kind]["across"]["error"] < 0.4
        assert len(scores[kind]["across"]["interval"]) == 2


def test_what_spectra_become_is_compared_too_and_models_refuse_it(
    manifest: Path, masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shaped = ("--dynamic_range_db", "43", "--standardised", "--context", "2")
    run(manifest, "--sample_rate", str(RATE), *shaped, "-o", str(tmp_path / "layers.json"))
    told = json.loads((tmp_path / "layers.json").read_text())
    assert [told["options"][name] for name in ("dynamic_range_db", "standardised", "context")] == [43, True, 2]
    run(manifest, "--sample_rate", str(RATE), "-o", str(tmp_path / "plain.json"))
    plain = json.loads((tmp_path / "plain.json").read_text())["layers"]
    assert told["layers"] != plain
    run(manifest, "--sample_rate", str(RATE), "--frame_rate", "25", "-o", str(tmp_path / "slow.json"))
    assert json.loads((tmp_path / "slow.json").read_text())["layers"] != plain
    with pytest.raises(SystemExit):
        run(manifest, "--layers", "1", *shaped, features=str(masked))
    assert "is a model, whose frames stay as they are" in capsys.readouterr().err


def test_each_layer_of_a_masked_model_has_its_row(
    manifest: Path, masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(manifest, "--layers", "2", "0", "1", "-o", str(tmp_path / "layers.json"), features=str(masked))
    rows = capsys.readouterr().out.strip().split("\n")[2:]
    told = json.loads((tmp_path / "layers.json").read_text())
    assert [one["layer"] for one in told["layers"]] == [0, 1, 2] and len(rows) == 3
    bold = [row for row in rows if "**" in row]
    assert len(bold) == 1 and bold[0].startswith(f"| **{told['best']}** |")
    across = {one["layer"]: one["codes"]["across"]["error"] for one in told["layers"]}
    assert across[told["best"]] == min(across.values())


def score(within: float, across: float) -> AbxScore:
    nowhere = Interval(0, 1)
    tables = Tables(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), ("a",), ("b",))
    return AbxScore(within, across, Intervals(nowhere, nowhere), Counts(1, 1, 1, 1, 1), tables)


@pytest.mark.parametrize(
    ("errors", "best"),
    [
        ([(0.1, 0.3), (0.2, 0.2)], 1),
        ([(0.2, 0.2), (0.1, 0.2)], 1),
        ([(0.2, math.nan), (0.1, math.nan), (0.3, math.nan)], 1),
        ([(math.nan, 0.2), (math.nan, 0.3)], 0),
    ],
)
def test_the_best_has_the_fewest_errors_across_then_within(errors: list[tuple[float, float]], best: int) -> None:
    measured = [tool.Measured(place, {"codes": score(*both)}) for place, both in enumerate(errors)]
    assert tool.pick(measured, "codes").layer == best


def test_what_cannot_be_measured_is_null_and_none() -> None:
    told = tool.as_json(score(0.25, math.nan))
    assert told["across"] == {"error": None, "interval": None} and told["within"]["error"] == 0.25
    measured = tool.Measured(3, {kind: score(0.25, math.nan) for kind in tool.KINDS})
    assert tool.table([measured], measured).endswith("| **3** |" + " **25.0 %** | **none** |" * 3)


def test_what_is_fitted_on_is_not_compared_and_no_sound_counts_twice(manifest: Path) -> None:
    options = tool.Options("mfcc", fit_rows=5, per_cell=1)
    train, held = tool.training(manifest, options), tool.held_out(manifest, options)
    assert len(train) == 5 and len(held) == 6
    assert {row.split for row in train} == {"train"} and {row.split for row in held} == {"valid"}
    again = read_manifest(manifest)
    assert tool.once([*again, *again]) == again


def test_rows_without_words_or_speaker_are_left_out_aloud(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_manifest(manifest)
    strange = [Row(**{**vars(row), "speaker": None, "start": 0.01}) for row in rows]
    write_manifest(tmp_path / "mixed.jsonl", [*rows, *strange])
    assert len(tool.held_out(tmp_path / "mixed.jsonl", tool.Options("mfcc"))) == 12
    assert "12 of 24 rows are left out: no label or speaker" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"label": None}, [], "name the label in the manifest, or give --category transcript"),
        ({"speaker": None}, [], "name the speaker in the manifest"),
        ({"label": None, "transcript": None}, ["--category", "transcript"], "name the transcript in the manifest\n"),
        ({"label": "same"}, [], "make no triplet"),
        ({"split": "train"}, [], "no rows of split 'valid' (it has train): give another --split"),
        ({"split": "valid"}, [], "no rows to train on"),
        ({}, ["--codebook_size", "0"], "--codebook_size is 0"),
        ({}, ["--layers", "1"], "mfcc has no layers"),
        ({}, ["--codebook_size", "5000"], "too few for 5000 centroids"),
    ],
)  # fmt: skip
def test_bad_requests_are_answered_in_one_line(
    manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    columns: dict[str, str | None],
    options: list[str],
    said: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(changed(manifest, tmp_path, **columns), *options, "-o", str(tmp_path / "layers.json"))
    message = capsys.readouterr().err
    assert stop.value.code == 2 and said in message and message.count("\n") == 1
    assert not (tmp_path / "layers.json").exists()
