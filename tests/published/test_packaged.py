"""What lies in audiolm_kit/published goes into the wheel and the source distribution, whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "from setuptools import build_meta; build_meta.build_sdist('dist'); build_meta.build_wheel('dist')"
FILES = ["README.md", "config.json", "example.json", "prompt-1.flac", "text.model", "training.json"]
FILES += ["codec/config.json", "codec/model.safetensors", "stages/acoustic/model.safetensors"]


@pytest.mark.slow
def test_wheel_and_source_distribution_hold_all_files_of_a_model(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "audiolm_kit", tree / "audiolm_kit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tree / name)
    for name in FILES:
        path = tree / "audiolm_kit" / "published" / "some-bells" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tree / "dist").mkdir()
    subprocess.run([sys.executable, "-c", BUILD], cwd=tree, check=True, capture_output=True)
    [wheel], [source] = tree.glob("dist/*.whl"), tree.glob("dist/*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        found = file.namelist()
    with tarfile.open(source) as archive:
        packed = archive.getnames()
    for name in FILES:
        place = f"audiolm_kit/published/some-bells/{name}"
        assert place in found and any(each.endswith(f"/{place}") for each in packed), name
