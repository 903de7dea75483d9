"""The recipe's own scripts: windows in which something is heard, and pairs that are never mixed in training."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from reading import ROOT, content, load, planned

from audiolm_kit import NeuralCodec, audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.data.manifest import Row, read_manifest, write_manifest

RECIPE = Path(__file__).parents[2] / "recipes" / "sound_events"


windows = load("sound_events", "windows")
sizes = load("sound_events", "sizes")


def recording(tmp_path: Path, loud: slice, seconds: float = 5.0) -> Row:
    """Noise in one part of a recording of 1 kHz, near silence elsewhere."""
    generator = torch.Generator().manual_seed(0)
    samples = 1e-4 * torch.randn(1, round(seconds * 1000), generator=generator)
    samples[:, loud] = 0.3 * torch.randn(samples[:, loud].shape, generator=generator).clamp(-3, 3)
    audio.write(tmp_path / "a.wav", Sound(samples, 1000))
    return Row(str(tmp_path / "a.wav"), seconds, caption="a person sneezing", label="sneezing", split="train")


def places(rows: list[Row]) -> list[tuple[float, float]]:
    return [(row.start, row.duration) for row in rows]


def test_windows_without_the_event_are_left_out(tmp_path: Path) -> None:
    row = recording(tmp_path, slice(200, 900))
    assert places(windows.windows_of(row, 3, 1)) == [(0, 3)]


def test_a_steady_sound_gives_all_windows_and_the_last_ends_with_it(tmp_path: Path) -> None:
    row = recording(tmp_path, slice(0, 5000))
    assert places(windows.windows_of(row, 3, 1)) == [(0, 3), (1, 3), (2, 3)]
    assert places(windows.windows_of(row, 3, 1.5)) == [(0, 3), (1.5, 3), (2, 3)]


def test_a_recording_shorter_than_a_window_is_one(tmp_path: Path) -> None:
    row = recording(tmp_path, slice(0, 500), seconds=1.0)
    assert places(windows.windows_of(row, 3, 1)) == [(0, 1)]


def test_a_row_that_starts_later_keeps_its_place(tmp_path: Path) -> None:
    row = recording(tmp_path, slice(0, 5000))
    moved = Row(row.path, 4.0, start=1.0)
    assert places(windows.windows_of(moved, 3, 1)) == [(1, 3), (2, 3)]


def test_a_label_with_few_windows_is_cut_more_finely_for_training_alone(tmp_path: Path) -> None:
    steady, brief = recording(tmp_path, slice(0, 5000)), tmp_path / "brief"
    brief.mkdir()
    rare = recording(brief, slice(2400, 2500))  # every window holds it, and there are few
    rows = [replace(steady, label="rain"), replace(steady, label="rain"), rare, replace(rare, split="valid")]
    found = windows.balanced(rows, 3, 1)
    counted = Counter((row.label, row.split) for row in found)
    assert counted == {("rain", "train"): 6, ("sneezing", "train"): 9, ("sneezing", "valid"): 3}
    assert places([row for row in found if row.split == "valid"]) == [(0, 3), (1, 3), (2, 3)]
    assert len({(row.start, row.path) for row in found if row.label == "sneezing"}) == 9


def test_the_script_writes_a_manifest_of_the_labels_it_is_asked_for(tmp_path: Path) -> None:
    row = recording(tmp_path, slice(0, 5000))
    write_manifest(tmp_path / "in.jsonl", [row, Row(row.path, 5.0, caption="rain falling", label="rain")])
    command = [sys.executable, RECIPE / "windows.py", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl"]
    subprocess.run([*map(str, command), "--labels", "rain"], check=True, capture_output=True)
    found = read_manifest(tmp_path / "out.jsonl")
    assert [row.label for row in found] == ["rain"] * 3 and found[0].caption == "rain falling"
    done = subprocess.run([*map(str, command), "--labels", "snow"], capture_output=True, text=True)
    assert done.returncode == 2 and "gives no windows" in done.stderr


def test_no_pair_across_the_halves_is_a_pair_inside_one() -> None:
    experiment = load("sound_events", "experiment")
    said = {label: f"a {label}" for half in experiment.HALVES for label in half}
    across = {frozenset(item.labels) for item in experiment.pairs(said, across=True)}
    inside = {frozenset(item.labels) for item in experiment.pairs(said, across=False)}
    assert len(across) == 25 and len(inside) == 20 and not across & inside
    for pair in inside:
        assert any(pair <= set(half) for half in experiment.HALVES)
    first = experiment.pairs(said, across=True)[0]
    assert first.text == f"a {first.labels[0]} and a {first.labels[1]}"


def test_the_halves_that_are_mixed_are_those_of_the_experiment() -> None:
    experiment = load("sound_events", "experiment")
    makefile = (RECIPE / "Makefile").read_text(encoding="utf-8")
    for number, half in enumerate(experiment.HALVES, 1):
        [line] = [line for line in makefile.splitlines() if line.startswith(f"HALF_{number} := ")]
        assert line.split(" := ")[1].split() == list(half)


def test_what_cannot_be_foreseen_in_codes_is_counted_for_each_codebook() -> None:
    still, turning = torch.zeros(9, dtype=torch.long), torch.arange(9) % 2
    told = sizes.chance([torch.stack([still, turning]), torch.stack([still, 1 - turning])], 4)
    assert told == {"bits": [0.0, 1.0], "again": [1.0, 0.0]}


def test_between_two_recordings_no_code_repeats() -> None:
    told = sizes.chance([torch.tensor([[0, 0]]), torch.tensor([[0, 1]])], 2)
    assert told["again"] == [0.5]


def test_past_the_codebooks_more_is_left_than_behind_them() -> None:
    torch.manual_seed(0)
    config = CodecConfig(
        sample_rate=1000,
        peak=0.9,
        body="convnext",
        convnext=ConvNeXtConfig(
            dim=11,
            width=8,
            encoder_layers=1,
            decoder_layers=1,
            hop=10,
            fft_size=20,
            frames_per_code=1,
            linear=True,
            refine=8,
        ),
        quantizer=QuantizerConfig(num_codebooks=1, codebook_size=4, dim=11),
    )
    codec, sound = NeuralCodec(config).eval(), Sound(0.1 * torch.randn(1, 995), 1000)
    codec.begin(0.1 * torch.randn(4, 1, 2000))

    def away(other: Sound) -> float:
        assert other.samples.shape == sound.samples.shape
        ways = [codec.encoder.log_magnitudes(codec.body_input(codec.scaled(s.samples[None]))) for s in (sound, other)]
        return float((ways[0] - ways[1]).abs().mean())

    assert away(sizes.past_the_codebooks(codec, sound)) < 0.9 * away(sizes.there_and_back(codec, sound))


def test_a_pair_counts_where_both_its_classes_are_heard(tmp_path: Path) -> None:
    results = load("sound_events", "results")

    def arm(name: str, sounds: dict[str, list[dict[str, float]]]) -> None:
        told = [{"labels": [label], "heard": scores} for label, each in sounds.items() for scores in each]
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "verdicts.json").write_text(json.dumps({"sounds": told}))
        np.save(tmp_path / name / "vectors.npy", np.zeros((len(told), 2)))

    arm("calibration/real", {"dog": [{"dog": 0.6, "rain": 0.0}], "rain": [{"dog": 0.5, "rain": 0.1}]})
    both, rain, dog = {"dog": 0.6, "rain": 0.1}, {"dog": 0.5, "rain": 0.9}, {"dog": 0.9, "rain": 0.05}
    arm("codecs/real", {"dog+rain": [both, both, both, rain]})
    arm("codecs/frames-25-mixed", {"dog+rain": [both, rain, dog, dog]})
    rows = results.mixtures(tmp_path)
    assert [row["value"] for row in rows] == [0.75, 0.25]
    assert "ceiling" in rows[0]["what"] and "25 frames" in rows[1]["what"]


def small_codec(**body: object) -> NeuralCodec:
    """One of 1 kHz that is begun on noise."""
    torch.manual_seed(0)
    network = ConvNeXtConfig(
        dim=8, width=8, encoder_layers=1, decoder_layers=1, hop=10, fft_size=20, noise=True, linear=True, **body
    )
    quantizer = QuantizerConfig(num_codebooks=2, codebook_size=8, dim=8)
    codec = NeuralCodec(CodecConfig(sample_rate=1000, peak=0.9, body="convnext", convnext=network, quantizer=quantizer))
    codec.begin(0.1 * torch.randn(4, 1, 2000))
    return codec.eval()


def test_noise_is_heard_as_it_is_behind_each_codec_and_of_codes_that_hold(tmp_path: Path) -> None:
    row = recording(tmp_path, slice(0, 5000), seconds=3.0)
    write_manifest(tmp_path / "windows.jsonl", [replace(row, split="valid")])
    for name, body in {"plain": {}, "white": {"linear_noise": True, "white": True, "tonal": 2.0}}.items():
        checkpoint.save(small_codec(**body), tmp_path / "codecs" / name)
    command = [sys.executable, RECIPE / "sizes.py", "--experiment", "noise", "--out", tmp_path, "--codecs"]
    rest = ["plain", "white", "--windows", tmp_path / "windows.jsonl", "--hold", "30"]
    subprocess.run([*map(str, command), *map(str, rest)], check=True, capture_output=True)
    home = tmp_path / "sounds" / "noise"
    assert {path.parent.name for path in home.glob("*/index.json")} == {"real", "plain", "white", "white-held"}
    made = {name: audio.read(home / name / "0000.flac").samples for name in ("plain", "white", "white-held")}
    assert made["plain"].shape == made["white-held"].shape == (1, 3000)
    assert not torch.equal(made["white"], made["white-held"])
    told = json.loads((home / "codes.json").read_text())
    assert told["white-held"]["again"][0] > told["white"]["again"][0] + 0.2
    assert json.loads((home / "white-held/plan.json").read_text())["hold"] == 30


def test_the_codecs_of_the_noise_table_are_those_that_the_makefile_begins(tmp_path: Path) -> None:
    results = load("sound_events", "results")
    plan = planned("sound_events", "/nowhere/out/sounds/noise.done").replace("\\\n", "")
    begun = re.findall(r"--model.export /nowhere/out/codecs/(\S+)", plan)
    held = [name for name in begun if name.endswith("-tonal")]
    assert sorted([*begun, *(f"{name}-held" for name in held)]) == sorted(results.DRAWN)
    commands = {name: next(line for line in plan.splitlines() if f"codecs/{name}.run" in line) for name in begun}
    assert all("--model.codec.sample_rate 16000" in command for command in commands.values())
    named = {name: sorted(re.findall(r"convnext\.(linear_noise|white|tonal)", each)) for name, each in commands.items()}
    assert named == {
        "wide": [],
        "wide-noise": ["linear_noise"],
        "wide-white": ["linear_noise", "white"],
        "wide-tonal": ["linear_noise", "tonal", "white"],
        "six": [],
        "six-tonal": ["linear_noise", "tonal", "white"],
    }


def test_the_codec_of_16_khz_keeps_the_frames_and_windows_of_the_one_of_8() -> None:
    plan = planned("sound_events", "/nowhere/out/lm/wide-0.done").replace("\\\n", "")
    [command] = [line for line in plan.splitlines() if "wide/begun.run" in line]
    [drawn] = [line for line in plan.splitlines() if "wide/codec.run" in line]
    assert "-c postfilter.yaml" in drawn and "--model.base /nowhere/out/wide/begun" in drawn
    assert "--data.sample_rate 16000" in drawn
    told = dict(re.findall(r"--(\S+) (\d+)", command))
    own = content("sound_events", "codec")[0]["codec"]
    network, twice = own["convnext"], "model.codec.convnext"
    assert int(told["model.codec.sample_rate"]) == int(told["data.sample_rate"]) == 2 * own["sample_rate"]
    assert int(told[f"{twice}.hop"]) == 2 * network["hop"] and int(told[f"{twice}.fft_size"]) == 2 * network["fft_size"]
    [learned] = [line for line in plan.splitlines() if "lm/begun-0.run" in line]
    assert "--model.codec /nowhere/out/wide/begun" in learned
    assert "--data.shards /nowhere/out/wide/tokens/train" in learned
    [given] = [line for line in plan.splitlines() if "with_codec.py" in line]
    assert "/nowhere/out/lm/begun-0 /nowhere/out/wide/codec -o /nowhere/out/lm/wide-0" in given


def test_a_codec_that_draws_noise_needs_no_postfilter_and_codes_hold_for_training_and_validation() -> None:
    given = ["WIDE_POSTFILTER=", "WIDE_CODEC=$(CODEC_six-tonal)", "WIDE_TOKENS=--hold 0.5"]
    plan = planned("sound_events", "/nowhere/out/lm/wide-0.done", *given).replace("\\\n", "")
    assert "postfilter.yaml" not in plan and "cp -r /nowhere/out/wide/begun /nowhere/out/wide/codec" in plan
    [begun] = [line for line in plan.splitlines() if "wide/begun.run" in line]
    assert "--model.codec.convnext.tonal 2" in begun and "--model.codec.quantizer.num_codebooks 6" in begun
    assert sum("tokenize" in line and "--hold 0.5" in line for line in plan.splitlines()) == 2


def test_the_published_model_is_the_one_that_the_table_names() -> None:
    about = yaml.safe_load((ROOT / "tools/published/sound-events.yaml").read_text(encoding="utf-8"))
    assert about["member"] == load("sound_events", "results").PUBLISHED
    assert "candidates" not in about["example"]  # single takes (guidance_table.SINGLE)
