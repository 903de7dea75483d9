"""Faults of torch, its device and the packages beside it are told by name, each with its cure."""

from __future__ import annotations

from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from audiolm_kit.doctor import packages

H200 = "NVIDIA H200 (driver 550.54)"


def a_torch(cuda: str | None, reason: str = "", available: bool = False, ones: Any = None) -> SimpleNamespace:
    """As much of torch as the check looks at."""

    def init() -> None:
        if reason:
            raise RuntimeError(reason)

    device = SimpleNamespace(
        is_available=lambda: available, init=init, get_device_name=lambda number: "H200", device_count=lambda: 1
    )
    version = SimpleNamespace(cuda=cuda, hip=None)
    return SimpleNamespace(__version__="2.9.0", version=version, cuda=device, ones=ones)


def told_of(torch: SimpleNamespace, device: str, monkeypatch: pytest.MonkeyPatch) -> packages.Finding:
    monkeypatch.setattr(packages, "import_module", lambda name: torch)
    monkeypatch.setattr(packages, "nvidia_device", lambda: device)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return packages.check_torch()


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        ("The NVIDIA driver on your system is too old (found version 11040).", "update the NVIDIA driver, or install"),
        ("Found no NVIDIA driver on your system.", "install the NVIDIA driver; in a container"),
        ("Error 804: forward compatibility was attempted on non supported HW", "LD_LIBRARY_PATH"),
        ("Error 802: system not yet initialized", "nvidia-fabricmanager"),
        ("something never seen", "`nvidia-smi` must name the device"),
    ],
)
def test_why_cuda_does_not_start_is_told_with_its_cure(reason: str, cure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = told_of(a_torch("13.0", reason), H200, monkeypatch)
    assert reason in found.told and H200 in found.told and cure in found.cure


def test_a_cpu_build_beside_a_device_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told_of(a_torch(None), H200, monkeypatch)
    assert "is a CPU build, and this machine has NVIDIA H200" in found.told and "built for CUDA" in found.cure
    assert told_of(a_torch(None), "", monkeypatch).well


def test_a_cuda_build_without_a_device_is_told_and_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told_of(a_torch("13.0", "Found no NVIDIA driver"), "", monkeypatch)
    assert found.well and "no device found" in found.told


def test_devices_that_are_hidden_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "import_module", lambda name: a_torch("13.0"))
    monkeypatch.setattr(packages, "nvidia_device", lambda: H200)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert packages.check_torch().well and "hides all devices" in packages.check_torch().told


def test_a_device_that_is_found_must_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_kernel(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    found = told_of(a_torch("13.0", available=True, ones=no_kernel), H200, monkeypatch)
    assert "H200 does not compute" in found.told and "has no code for H200" in found.cure
    well = a_torch("13.0", available=True, ones=lambda *_, **__: SimpleNamespace(sum=lambda: 3.0))
    assert told_of(well, H200, monkeypatch).well


@pytest.mark.parametrize(("asked", "well"), [("torch==2.9.0", True), ("torch==2.8.0", False), ("numpy", True)])
def test_a_companion_of_another_torch_is_named(asked: str, well: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: object())
    monkeypatch.setattr(packages, "import_module", lambda name: SimpleNamespace(__version__="1.0"))
    monkeypatch.setattr(metadata, "requires", lambda name: [asked])
    monkeypatch.setattr(metadata, "version", lambda name: "2.9.0+cpu")
    found = packages.check_torchvision()
    assert found.well == well and (well or "built for torch==2.8.0, and this is 2.9.0+cpu" in found.told)


def test_packages_that_are_missing_or_out_of_range_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "einops":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "requires", lambda name: ["einops>=0.8", "torch>=2.6", "tqdm", "ray; extra == 'ray'"])
    monkeypatch.setattr(metadata, "version", version)
    found = packages.check_versions()
    assert "einops is missing, wanted einops>=0.8; torch is 1.0, wanted torch>=2.6" in found.told
    assert "pip install 'einops>=0.8' 'torch>=2.6'" in found.cure and "ray" not in found.told


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert packages.check_hub().cure.startswith("set HF_HOME")
