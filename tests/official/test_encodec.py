"""encodec is imported with, without and beside a broken torchaudio, and leaves no trace; Meta's files are read."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from audiolm_kit import checkpoint
from audiolm_kit.official.encodec import from_encodec, from_meta_file, import_encodec
from audiolm_kit.official.encodec_names import codec_state

ROOT = Path(__file__).parents[2]
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
from audiolm_kit.official.encodec import import_encodec
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
    code = "from audiolm_kit.official.encodec import import_encodec\nimport_encodec()\n"
    done = run(block + code + "assert sys.modules['torchaudio'] is None", tmp_path)
    assert done.returncode == 0, done.stderr


def test_missing_encodec_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "encodec", None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps encodec"):
        import_encodec()


@pytest.mark.parametrize("state", [{}, {"best_state": torch.zeros(1)}])
def test_other_weights_are_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="no EnCodec weights"):
        codec_state(state)


# --- Meta's files -------------------------------------------------------------


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, torch.Tensor]]:
    """The state dicts of both models at full size, with random weights."""
    torch.manual_seed(0)
    kind = import_encodec().EncodecModel
    return {name: getattr(kind, name)(False).state_dict() for name in ("encodec_model_24khz", "encodec_model_48khz")}


@pytest.mark.parametrize("name", ["encodec_model_24khz", "encodec_model_48khz"])
def test_the_weights_tell_which_of_metas_models_a_file_holds(
    states: dict[str, dict[str, torch.Tensor]], name: str, tmp_path: Path
) -> None:
    torch.save(states[name], tmp_path / "model.th")
    theirs = getattr(import_encodec().EncodecModel, name)(False)
    theirs.load_state_dict(states[name])
    codec = from_meta_file(tmp_path / "model.th")
    assert not codec.training and checkpoint.fingerprint(codec) == checkpoint.fingerprint(from_encodec(theirs))


FAULTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing": (
        lambda state: [state.pop(f"quantizer.vq.layers.{index}._codebook.embed") for index in range(27, 32)],
        r"lacks tensors \(5\): quantizer.vq.layers.27._codebook.embed, .*, \.\.\.; it is not whole",
    ),
    "extra": (
        lambda state: state.update({"encoder.model.16.bias": torch.zeros(1)}),
        r"has unknown tensors \(1\): encoder.model.16.bias",
    ),
    "shape": (
        lambda state: state.update({"decoder.model.3.convtr.convtr.weight_v": torch.zeros(2, 2, 2)}),
        r"has wrongly shaped tensors \(1\): decoder.model.3.convtr.convtr.weight_v",
    ),
    "language model": (
        lambda state: state.update({"transformer.layers.0.norm1.weight": torch.zeros(1)}),
        r"model.th holds no EnCodec weights, but transformer.layers.0.norm1.weight",
    ),
    "no tensors": (lambda state: state.update({"best_state": {}}), "holds no EnCodec weights, but best_state"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_does_not_fit_is_refused_by_its_names(
    states: dict[str, dict[str, torch.Tensor]], name: str, tmp_path: Path
) -> None:
    change, message = FAULTS[name]
    state = dict(states["encodec_model_24khz"])
    change(state)
    torch.save(state, tmp_path / "model.th")
    with pytest.raises(ValueError, match=message):
        from_meta_file(tmp_path / "model.th")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="encodec.th"):
        from_meta_file(tmp_path / "encodec.th")
