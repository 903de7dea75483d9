"""Foreign packages: whether each loads, beside which torch it was built, and whether torch finds its device.

Each is looked at by its name (``import_module``), because a broken one must be a finding and not a traceback.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from audiolm_kit.doctor.findings import Finding, one_line

PIP = f"{sys.executable} -m pip"
RIGHT_TORCH = "as pytorch.org tells for this system"
CUDA_CURES = (  # what torch says when it cannot start CUDA, and what helps
    ("too old", f"update the NVIDIA driver, or install a torch that was built for an older CUDA, {RIGHT_TORCH}"),
    ("Found no NVIDIA driver", "install the NVIDIA driver; in a container, start it with its GPUs (--gpus all)"),
    ("Error 804", "the driver is older than this CUDA: update it, or take the compat libraries off LD_LIBRARY_PATH"),
    ("Error 802", "the system's fabric manager does not run: start nvidia-fabricmanager, of the driver's version"),
    ("version mismatch", "the driver was updated under a running system: restart the machine"),
    ("out of memory", "another program fills the device: `nvidia-smi` names it"),
    ("unknown error", "restart the program, then the machine: a suspended laptop leaves CUDA in this state"),
)
NO_KERNELS = "no kernel image"


def check_versions() -> Finding:
    """What audiolm_kit requires is installed, in the ranges that it names."""
    from packaging.requirements import Requirement

    try:
        required = [Requirement(each) for each in metadata.requires("audiolm_kit") or []]
    except metadata.PackageNotFoundError:
        return Finding("packages", "audiolm_kit runs from its folder and is not installed: its ranges are not compared")
    wanted = [each for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = {str(each): found for each in wanted if (found := _misfit(each.name, each.specifier))}
    if wrong:
        told = "; ".join(f"{found}, wanted {each}" for each, found in wrong.items())
        return Finding("packages", told, f"`{PIP} install {' '.join(repr(each) for each in wrong)}`")
    return Finding("packages", f"all {len(wanted)} that are required are there")


def _misfit(name: str, wanted: Any) -> str:
    """What is wrong with an installed version; empty where nothing is."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    return "" if wanted.contains(version, prereleases=True) else f"{name} is {version}"


def check_torch() -> Finding:
    """torch loads, and computes on the device that the machine has."""
    torch = import_module("torch")
    version, built = torch.__version__, torch.version.cuda
    if torch.cuda.is_available():
        return _try_cuda(torch)
    device = nvidia_device()
    if getattr(torch.version, "hip", None):
        return Finding("torch", f"{version}, built for ROCm {torch.version.hip}, no device found")
    if built is None and device:
        told = f"{version} is a CPU build, and this machine has {device}"
        return Finding(
            "torch", told, f"install a torch built for CUDA, {RIGHT_TORCH}; and torchaudio likewise, or none"
        )
    if built is None:
        return Finding("torch", f"{version}, a CPU build")
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return Finding("torch", f"{version}, built for CUDA {built}; CUDA_VISIBLE_DEVICES hides all devices")
    if not device:
        return Finding("torch", f"{version}, built for CUDA {built}, no device found")
    reason = _cuda_reason(torch)
    cure = next((cure for word, cure in CUDA_CURES if word in reason), "")
    told = f"{version}, built for CUDA {built}, cannot use {device} ({reason})"
    return Finding("torch", told, cure or "`nvidia-smi` must name the device: mend the driver until it does")


def nvidia_device() -> str:
    """The NVIDIA device of this machine, with its driver where that answers; empty where there is none."""
    nodes = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0 and done.stdout.strip():
            name, _, driver = done.stdout.splitlines()[0].partition(",")
            return f"{name.strip()} (driver {driver.strip()})"
    return f"{nodes[0]} (nvidia-smi does not answer)" if nodes else ""


def _try_cuda(torch: Any) -> Finding:
    """A sum on each device that torch has found."""
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    told = f"{torch.__version__}, CUDA {torch.version.cuda}: {', '.join(devices)}"
    for number, device in enumerate(devices):
        try:
            right = float(torch.ones(3, device=f"cuda:{number}").sum()) == 3
        except Exception as error:
            reason = one_line(error)
            cures = (*CUDA_CURES, (NO_KERNELS, f"this torch has no code for {device}: install another, {RIGHT_TORCH}"))
            cure = next((cure for word, cure in cures if word in reason), f"install another torch, {RIGHT_TORCH}")
            return Finding("torch", f"{told}; {device} does not compute ({reason})", cure)
        if not right:
            return Finding("torch", f"{told}; {device} cannot add three ones", "test the device with its maker's tools")
    return Finding("torch", told)


def _cuda_reason(torch: Any) -> str:
    """Why torch cannot start CUDA, in its own words."""
    try:
        torch.cuda.init()
    except Exception as error:
        return one_line(error)[:300]
    return "it starts, and finds no device"


def check_torchaudio() -> Finding:
    """torchaudio is absent, or loads beside this torch.

    encodec asks for it, and the package index's wheel is the CUDA build: beside a CPU torch it raises when imported,
    and transformers, which imports torchaudio wherever it is installed, breaks with it.
    """
    return _check_companion("torchaudio", f"`{PIP} uninstall torchaudio`: nothing here needs it")


def check_torchvision() -> Finding:
    """torchvision is absent, or loads: of another build it breaks transformers, which looks for it, as torchaudio."""
    return _check_companion("torchvision", f"`{PIP} uninstall torchvision`: nothing here needs it")


def _check_companion(package: str, remove: str) -> Finding:
    """A package that holds compiled code for one version and build of torch."""
    loaded = sys.modules.get(package)
    if loaded is not None and getattr(loaded, "__spec__", None) is None:
        return Finding(
            package,
            "a stand-in module is left in sys.modules; transformers cannot look past it (find_spec raises ValueError)",
            f"whoever put it there takes it out after `import encodec`: `del sys.modules['{package}']`",
        )
    if find_spec(package) is None:
        return Finding(package, "not installed, and not needed")
    try:
        version = getattr(import_module(package), "__version__", "of unknown version")
    except Exception as error:
        told = (
            f"installed, but it does not load beside this torch ({one_line(error)}), and that breaks transformers too"
        )
        return Finding(package, told, remove)
    if other := _other_build(package):
        return Finding(
            package, f"{version}, loads, but was built for {other}", f"{remove}; or install that of this torch"
        )
    return Finding(package, f"{version}, loads")


def _other_build(package: str) -> str:
    """The torch that a package asks for, where it is another than the installed one; empty where they fit."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(each) for each in metadata.requires(package) or []]
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""
    own = next((each.specifier for each in asked if each.name == "torch"), None)
    return "" if own is None or own.contains(torch, prereleases=True) else f"torch{own}, and this is {torch}"


def check_transformers() -> Finding:
    """transformers loads as far as the text encoder and the official models."""
    transformers = import_module("transformers")
    try:
        _ = transformers.T5EncoderModel, transformers.MusicgenForConditionalGeneration
    except Exception as error:
        return Finding(
            "transformers",
            one_line(error),
            "mend torchaudio and torchvision first if they have a fault, else reinstall transformers",
        )
    return Finding("transformers", f"{transformers.__version__}, its text encoder and MusicGen load")


def check_hub() -> Finding:
    """huggingface_hub loads, and its cache can be written."""
    hub = import_module("huggingface_hub")
    cache = Path(import_module("huggingface_hub.constants").HF_HUB_CACHE)
    offline = " (HF_HUB_OFFLINE is set: only what is cached opens)" if hub.constants.HF_HUB_OFFLINE else ""
    told = f"huggingface_hub {hub.__version__}, cache {cache}{offline}"
    nearest = next((each for each in (cache, *cache.parents) if each.exists()), cache)
    if not os.access(nearest, os.W_OK):
        return Finding("hub", f"{told} cannot be written", "set HF_HOME to a folder that you may write")
    return Finding("hub", told)


def check_encodec() -> Finding:
    """encodec is there; it is not imported, since that would need its torchaudio."""
    if find_spec("encodec") is None:
        cure = f"`{PIP} install --no-deps encodec` (without its torchaudio)"
        return Finding("encodec", "not installed: official EnCodec weights cannot be read", cure)
    return Finding("encodec", "installed")
