"""The doctor names each fault that is planted, and nothing where all is well."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from audiolm_kit import doctor
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.doctor import Finding, diagnose, report
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import StreamLM

BROKEN = "raise OSError('libcudart.so.13: cannot open shared object file: No such file or directory')"


def named(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def run_doctor(folder: Path, check: str = "", before: str = "") -> subprocess.CompletedProcess[str]:
    """All checks, or one of them, in a fresh interpreter that finds the packages of ``folder`` first."""
    call = f"report([checked('{check}', CHECKS['{check}'])])" if check else "report(diagnose())"
    code = f"{before}\nimport sys\nfrom audiolm_kit.doctor import *\nsys.exit({call})"
    root = Path(doctor.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(root)]), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def plant(folder: Path, package: str, source: str) -> None:
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(source)


def test_a_torchaudio_that_does_not_load_is_named_with_its_cure(tmp_path: Path) -> None:
    plant(tmp_path, "torchaudio", BROKEN)
    done = run_doctor(tmp_path)
    assert done.returncode == 2, done.stderr
    lines = done.stdout.splitlines()
    fault, cure = next(pair for pair in zip(lines, lines[1:], strict=False) if "torchaudio" in pair[0])
    assert fault.startswith("FAULT") and "libcudart.so.13" in fault and "breaks transformers" in fault
    assert "-m pip uninstall torchaudio" in cure


def test_a_torchaudio_that_loads_is_well(tmp_path: Path) -> None:
    plant(tmp_path, "torchaudio", "__version__ = '9.9'")
    done = run_doctor(tmp_path, "torchaudio")
    assert done.returncode == 0, done.stderr
    assert "ok     torchaudio   9.9, loads" in done.stdout


def test_a_stand_in_torchaudio_is_named(tmp_path: Path) -> None:
    done = run_doctor(
        tmp_path, "torchaudio", before="import sys, types; sys.modules['torchaudio'] = types.ModuleType('torchaudio')"
    )
    assert done.returncode == 2, done.stderr
    assert "FAULT  torchaudio   a stand-in module" in done.stdout


def test_a_package_that_does_not_load_is_a_finding_and_no_traceback(tmp_path: Path) -> None:
    plant(tmp_path, "transformers", "raise RuntimeError('half\\ninstalled')")
    done = run_doctor(tmp_path, "transformers")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "FAULT  transformers cannot be checked (RuntimeError: half installed)" in done.stdout


def test_this_installation_is_well(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_DISK", 1)
    assert report(diagnose()) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.endswith("All is well.\n")


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(2**40, 2**40 - 2**20, 2**20))
    assert "free some space" in doctor.check_disk().cure


def test_more_threads_than_cores_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 4096)
    assert "OMP_NUM_THREADS=" in doctor.check_threads().cure


def test_an_old_libsndfile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, sound: object) -> None:
        raise ValueError("unknown format: MP3")

    monkeypatch.setattr("audiolm_kit.audio.write", refuse)
    assert "upgrade soundfile" in doctor.check_sound_files().cure


def test_a_missing_checkpoint_is_a_fault_in_one_line(tmp_path: Path) -> None:
    finding = named(diagnose(str(tmp_path / "none")), "checkpoint")
    assert not finding.well and "\n" not in finding.told


def test_whole_checkpoints_are_tried(audiogen_folder: Path) -> None:
    told = {part: doctor.check_checkpoint(audiogen_folder / part) for part in ("", "codec", "lm")}
    assert all(finding.well for finding in told.values()), told
    assert told[""].told.endswith("generates") and "2 codebooks of 16 at 100 Hz" in told["codec"].told


def test_a_model_of_class_labels_is_tried_with_one_of_them(audiogen_folder: Path, tmp_path: Path) -> None:
    whole = AudioGen.load(audiogen_folder)
    config = dataclasses.replace(whole.lm.config, text=TextConfig(kind="labels", dim=8, labels=("dog", "rain")))
    AudioGen(whole.codec, StreamLM(config), TextConditioner(config.text)).save(tmp_path / "labels")
    assert doctor.check_checkpoint(tmp_path / "labels").told.endswith("generates")


def test_a_cut_off_checkpoint_is_a_fault(audiogen_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(audiogen_folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "lm" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    finding = doctor.check_checkpoint(tmp_path / "cut")
    assert not finding.well and "not a whole safetensors file" in finding.told


def test_parts_that_were_not_trained_together_are_a_fault(audiogen_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(audiogen_folder, tmp_path / "mixed")
    config = tmp_path / "mixed" / "lm" / "config.json"
    config.write_text(config.read_text().replace('"codebook_size": 16', '"codebook_size": 17'))
    assert not doctor.check_checkpoint(tmp_path / "mixed").well
    (tmp_path / "mixed" / "config.json").write_text('{"format": 1, "kind": "Teapot"}')
    assert "holds a Teapot, wanted one of AudioGen" in doctor.check_checkpoint(tmp_path / "mixed").told


@pytest.mark.parametrize(
    ("bf16", "fp32", "made_up"),
    [
        ([50, 40, 60], [1, 2, 3], True),
        ([2, 3, 1], [1, 2, 3], False),
        ([9, 9, 1.5], [1, 9, 9], False),  # the fastest counts: other work only ever slows down
    ],
)
def test_bf16_is_timed_against_fp32(
    bf16: list[float], fp32: list[float], made_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "BF16_WIDTH", 2)
    readings = [0.0]
    for duration in [5, 5, 5, *bf16, *fp32]:  # the first three are thrown away
        readings += [readings[-1] + duration] * 2
    monkeypatch.setattr("time.perf_counter", iter(readings).__next__)
    assert doctor.emulates_bf16() == made_up


def test_made_up_bf16_is_told_and_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    for made_up, told in ((True, "`fit` computes in fp32 on it"), (False, "about as fast as fp32")):
        monkeypatch.setattr(doctor, "emulates_bf16", lambda made_up=made_up: made_up)
        found = doctor.check_bf16()
        assert found.well and told in found.told
