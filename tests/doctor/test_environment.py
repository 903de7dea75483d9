"""The doctor names each fault of an installation that is planted, and nothing where all is well."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

import audiolm_kit
from audiolm_kit.doctor import environment
from audiolm_kit.doctor.diagnosis import diagnose
from audiolm_kit.doctor.findings import report

BROKEN = "raise OSError('libcudart.so.13: cannot open shared object file: No such file or directory')"


def run_doctor(folder: Path, check: str = "", before: str = "") -> subprocess.CompletedProcess[str]:
    """All checks, or one of them, in a fresh interpreter that finds the packages of ``folder`` first."""
    call = f"report([checked('{check}', CHECKS['{check}'])])" if check else "report(diagnose())"
    modules = "from audiolm_kit.doctor.diagnosis import *\nfrom audiolm_kit.doctor.findings import *"
    code = f"{before}\nimport sys\n{modules}\nsys.exit({call})"
    root = Path(audiolm_kit.__file__).parent.parent
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
    monkeypatch.setattr(environment, "LEAST_DISK", 1)
    assert report(diagnose()) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.endswith("All is well.\n")


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(2**40, 2**40 - 2**20, 2**20))
    assert "free some space" in environment.check_disk().cure


def test_more_threads_than_cores_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 4096)
    assert "OMP_NUM_THREADS=" in environment.check_threads().cure


def test_an_old_libsndfile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, sound: object) -> None:
        raise ValueError("unknown format: MP3")

    monkeypatch.setattr("audiolm_kit.audio.write", refuse)
    assert "upgrade soundfile" in environment.check_sound_files().cure


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
    monkeypatch.setattr(environment, "BF16_WIDTH", 2)
    readings = [0.0]
    for duration in [5, 5, 5, *bf16, *fp32]:  # the first three are thrown away
        readings += [readings[-1] + duration] * 2
    monkeypatch.setattr("time.perf_counter", iter(readings).__next__)
    assert environment.emulates_bf16() == made_up


def test_made_up_bf16_is_told_and_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    for made_up, told in ((True, "`fit` computes in fp32 on it"), (False, "about as fast as fp32")):
        monkeypatch.setattr(environment, "emulates_bf16", lambda made_up=made_up: made_up)
        found = environment.check_bf16()
        assert found.well and told in found.told
