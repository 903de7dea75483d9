"""encodec is imported with, without and beside a broken torchaudio, and leaves no trace of a stand-in."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from audiolm_kit.official import codec_state, import_encodec

ROOT = Path(__file__).parents[1]
WORKS = "class transforms: pass"
BREAKS = "import torchaudio.half\nraise OSError('libcudart.so.13: cannot open shared object file')"


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own that finds modules in ``folder`` first."""
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def torchaudio_in(folder: Path, code: str) -> None:
    """A package called torchaudio that runs ``code`` when it is imported."""
    package = folder / "torchaudio"
    package.mkdir()
    (package / "__init__.py").write_text(code)
    (package / "half.py").write_text("")


CHECK = """
import importlib.util, sys
spec_before = importlib.util.find_spec("torchaudio")
from audiolm_kit.official import import_encodec
encodec = import_encodec()
assert encodec is import_encodec()
assert encodec.EncodecModel.encodec_model_24khz(pretrained=False).sample_rate == 24000
spec_after = importlib.util.find_spec("torchaudio")
assert (spec_before is None) == (spec_after is None)
assert spec_before is None or spec_before.origin == spec_after.origin
print("loaded:", sorted(name for name in sys.modules if name.startswith("torchaudio")))
"""


@pytest.mark.skipif(importlib.util.find_spec("torchaudio") is not None, reason="torchaudio is installed")
def test_encodec_imports_without_torchaudio_and_transformers_after_it(tmp_path: Path) -> None:
    code = CHECK + "import transformers\nassert not transformers.utils.is_torchaudio_available()\n"
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stdout
    assert "does not load" not in done.stderr


def test_encodec_imports_beside_a_broken_torchaudio_and_says_so(tmp_path: Path) -> None:
    torchaudio_in(tmp_path, BREAKS)
    done = run(CHECK, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stdout
    assert "torchaudio is installed but does not load (libcudart.so.13" in done.stderr


def test_a_working_torchaudio_is_used_and_stays(tmp_path: Path) -> None:
    torchaudio_in(tmp_path, WORKS)
    done = run(CHECK + "import torchaudio\nassert encodec.utils.torchaudio is torchaudio\n", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "loaded: ['torchaudio']" in done.stdout


def test_the_stand_in_names_what_is_missing_when_it_is_used(tmp_path: Path) -> None:
    torchaudio_in(tmp_path, BREAKS)
    done = run(CHECK + "encodec.utils.torchaudio.save\n", tmp_path)
    assert done.returncode == 1
    assert "torchaudio.save is not there: torchaudio is not installed or does not load" in done.stderr


def test_a_blocked_torchaudio_stays_blocked(tmp_path: Path) -> None:
    block = "import sys; sys.modules['torchaudio'] = None\n"
    code = "from audiolm_kit.official import import_encodec; import_encodec(); assert sys.modules['torchaudio'] is None"
    done = run(block + code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_missing_encodec_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "encodec", None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps encodec"):
        import_encodec()


@pytest.mark.parametrize("state", [{}, {"best_state": torch.zeros(1)}])
def test_other_weights_are_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="no EnCodec weights"):
        codec_state(state)
