"""What commonly goes wrong with an installation or a checkpoint, found and told together with its cure."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

OLDEST_PYTHON = (3, 10)
LEAST_DISK = 2 * 2**30  # bytes; a small recipe leaves less than this behind
BF16_WIDTH = 384  # of the square matrices that are multiplied to time bf16; a tenth of a second where it is made up


class Finding(NamedTuple):
    """The outcome of one check; a fault carries its cure."""

    name: str
    told: str
    cure: str = ""

    @property
    def well(self) -> bool:
        """Whether nothing is to be done."""
        return not self.cure


def diagnose(checkpoint: str | None = None) -> list[Finding]:
    """Check the installation, and a checkpoint folder if one is named. No check raises."""
    findings = [checked(name, check) for name, check in CHECKS.items()]
    if checkpoint is not None:
        findings.append(checked("checkpoint", lambda: check_checkpoint(Path(checkpoint))))
    return findings


def report(findings: list[Finding]) -> int:
    """Print the findings, faults with their cures; 0 when all is well, else 2."""
    for finding in findings:
        print(f"{'ok   ' if finding.well else 'FAULT'}  {finding.name:<12} {finding.told}")
        if not finding.well:
            print(f"{'cure:':>18}  {finding.cure}")
    faults = sum(not finding.well for finding in findings)
    print("All is well." if not faults else f"{faults} of {len(findings)} checks found a fault.")
    return 2 if faults else 0


def checked(name: str, check: Callable[[], Finding]) -> Finding:
    """A check's finding; a check that itself breaks is a finding too."""
    try:
        return check()
    except Exception as error:  # a broken package may raise anything when it is imported
        return Finding(
            name, f"cannot be checked ({one_line(error)})", "repeat the installation (`make install` in a clone)"
        )


def one_line(error: Exception) -> str:
    """An error's kind and message without newlines."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def check_python() -> Finding:
    """The interpreter is new enough."""
    told = f"{platform.python_version()} ({sys.executable}) on {platform.system()} {platform.machine()}"
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return Finding("python", told, "" if sys.version_info >= OLDEST_PYTHON else f"use Python {wanted} or newer")


def check_torch() -> Finding:
    """torch loads, and what it can compute on."""
    torch = import_module("torch")
    if torch.cuda.is_available():
        devices = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return Finding("torch", f"{torch.__version__}, CUDA {torch.version.cuda}: {devices}")
    built = f"built for CUDA {torch.version.cuda}, no device found" if torch.version.cuda else "a CPU build"
    return Finding("torch", f"{torch.__version__}, {built}")


def check_threads() -> Finding:
    """torch computes with no more threads than this process has cores."""
    threads = import_module("torch").get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cure = f"set OMP_NUM_THREADS={cores}: more threads than cores slow each other down" if threads > cores else ""
    return Finding("threads", f"{threads} for {cores} cores", cure)


def check_bf16() -> Finding:
    """Whether the CPU computes in bf16 itself; no fault, for `fit` sees to it."""
    if emulates_bf16():
        return Finding("bf16", "made up by this CPU, many times slower than fp32: `fit` computes in fp32 on it")
    return Finding("bf16", "about as fast as fp32 on this CPU, or faster")


def emulates_bf16() -> bool:
    """Whether products in bf16 take this CPU more than twice as long as in fp32, as where it has no arithmetic for it.

    It is timed, for a tenth to half a second, because what a CPU says it can says nothing about the torch at hand.
    """
    torch = import_module("torch")

    def quickest(kind: str) -> float:
        """Seconds of the fastest of three products."""
        matrix = torch.ones(BF16_WIDTH, BF16_WIDTH, dtype=getattr(torch, kind))
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - begun)
        return min(times)

    quickest("float32")  # whatever is set up once
    return quickest("bfloat16") > 2 * quickest("float32")


def check_torchaudio() -> Finding:
    """torchaudio is absent, or loads.

    encodec asks for it, and the package index's wheel is the CUDA build: beside a CPU torch it raises when imported,
    and transformers, which imports torchaudio wherever it is installed, breaks with it.
    """
    remove = f"`{sys.executable} -m pip uninstall torchaudio`: nothing here needs it"
    loaded = sys.modules.get("torchaudio")
    if loaded is not None and getattr(loaded, "__spec__", None) is None:
        return Finding(
            "torchaudio",
            "a stand-in module is left in sys.modules; transformers cannot look past it (find_spec raises ValueError)",
            "whoever put it there takes it out after `import encodec`: `del sys.modules['torchaudio']`",
        )
    if find_spec("torchaudio") is None:
        return Finding("torchaudio", "not installed, and not needed")
    try:
        version = getattr(import_module("torchaudio"), "__version__", "of unknown version")
    except Exception as error:
        told = (
            f"installed, but it does not load beside this torch ({one_line(error)}), and that breaks transformers too"
        )
        return Finding("torchaudio", told, remove)
    return Finding("torchaudio", f"{version}, loads")


def check_transformers() -> Finding:
    """transformers loads as far as the text encoder."""
    transformers = import_module("transformers")
    try:
        _ = transformers.T5EncoderModel
    except Exception as error:
        return Finding(
            "transformers", one_line(error), "mend torchaudio first if it has a fault, else reinstall transformers"
        )
    return Finding("transformers", f"{transformers.__version__}, its text encoder loads")


def check_encodec() -> Finding:
    """encodec is there; it is not imported, since that would need its torchaudio."""
    if find_spec("encodec") is None:
        cure = f"`{sys.executable} -m pip install --no-deps encodec` (without its torchaudio)"
        return Finding("encodec", "not installed: official EnCodec weights cannot be read", cure)
    return Finding("encodec", "installed")


def check_sound_files() -> Finding:
    """A tone written as MP3 comes back."""
    torch, audio = import_module("torch"), import_module("audiolm_kit.audio")
    tone = torch.sin(torch.arange(16000) * 0.2)[None] * 0.5
    cure = f"`{sys.executable} -m pip install --upgrade soundfile` (its libsndfile must be 1.1 or newer)"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tone.mp3"
        try:
            audio.write(path, audio.Sound(tone, 16000))
            level = float(audio.read(path).samples.abs().max())
        except Exception as error:
            return Finding("soundfile", f"MP3 cannot be written and read ({one_line(error)})", cure)
    return Finding("soundfile", "MP3 is written and read", "" if 0.3 < level < 0.7 else cure)


def check_disk() -> Finding:
    """The current folder's disk has room for a run."""
    free = shutil.disk_usage(Path.cwd()).free
    cure = "" if free >= LEAST_DISK else f"free some space: a small recipe wants {LEAST_DISK / 2**30:.0f} GiB"
    return Finding("disk", f"{free / 2**30:.1f} GiB free in {Path.cwd()}", cure)


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": check_python,
    "torch": check_torch,
    "threads": check_threads,
    "bf16": check_bf16,
    "torchaudio": check_torchaudio,
    "transformers": check_transformers,
    "encodec": check_encodec,
    "soundfile": check_sound_files,
    "disk": check_disk,
}


def check_checkpoint(folder: Path) -> Finding:
    """A checkpoint opens, its parts fit each other, and it makes a short sound."""
    from audiolm_kit import checkpoint

    trials = {
        "AudioGen": try_audiogen,
        "AudioLM": try_audiolm,
        "AudioLMStage": try_stage,
        "NeuralCodec": try_codec,
        "SemanticTokenizer": try_semantic,
        "StreamLM": try_lm,
    }
    try:
        kind = str(checkpoint.read_json(folder / checkpoint.CONFIG).get("kind"))
        if kind not in trials:
            raise ValueError(f"{folder} holds {checkpoint.article(kind)}, wanted one of {', '.join(trials)}")
        return Finding("checkpoint", f"{folder} is {checkpoint.article(kind)}: {trials[kind](folder)}")
    except (ValueError, OSError) as error:
        return Finding(
            "checkpoint", " ".join(str(error).split()), "copy or export the checkpoint folder again, all of it"
        )


def try_codec(folder: Path) -> str:
    """Encode and decode a tenth of a second."""
    import torch

    from audiolm_kit import checkpoint
    from audiolm_kit.codec.model import NeuralCodec

    codec = checkpoint.load(NeuralCodec, folder)
    audio = torch.randn(1, codec.channels, codec.sample_rate // 10, generator=torch.Generator().manual_seed(0)) * 0.1
    codes = codec.encode(audio)
    if not torch.isfinite(codec.decode(codes)).all():
        raise ValueError(f"{folder} decodes to NaN: its weights are damaged")
    shape = f"{codec.num_codebooks} codebooks of {codec.codebook_size} at {codec.frame_rate:g} Hz"
    return f"{shape}, fingerprint {checkpoint.fingerprint(codec)}, encodes and decodes"


def try_semantic(folder: Path) -> str:
    """Encode a tenth of a second."""
    import torch

    from audiolm_kit import checkpoint
    from audiolm_kit.semantic.tokenizer import SemanticTokenizer

    tokenizer = checkpoint.load(SemanticTokenizer, folder)
    tokenizer.encode(torch.randn(1, 1, tokenizer.sample_rate // 10, generator=torch.Generator().manual_seed(0)) * 0.1)
    shape = f"{tokenizer.codebook_size} codes of {tokenizer.config.features.kind} at {tokenizer.frame_rate:g} Hz"
    return f"{shape}, fingerprint {checkpoint.fingerprint(tokenizer)}, encodes"


def try_stage(folder: Path) -> str:
    """Open a stage; it makes no sound before it is assembled with the others."""
    from audiolm_kit.inference.assembly import read_stage

    stage, _, _ = read_stage(folder)
    return f"{stage.name}, opens; audiolm-kit assemble makes one model of all stages"


def try_audiolm(folder: Path) -> str:
    """Open all stages (which compares them with their tokenizers) and make a tenth of a second."""
    import torch

    from audiolm_kit.inference.audiolm import AudioLM

    model = AudioLM.load(folder)
    [sound] = model.generate(1, seconds=0.1)
    if not torch.isfinite(sound.samples).all():
        raise ValueError(f"{folder} makes NaN: its weights are damaged")
    return f"{' -> '.join(model.stages)}, makes sound at {model.sample_rate} Hz"


def try_lm(folder: Path) -> str:
    """Open a language model."""
    from audiolm_kit import checkpoint
    from audiolm_kit.lm.model import StreamLM

    lm = checkpoint.load(StreamLM, folder)
    shape = f"{lm.config.num_codebooks} codebooks of {lm.config.codebook_size}"
    return f"{shape}, pattern {lm.config.pattern}, fingerprint {checkpoint.fingerprint(lm)}, opens"


def try_audiogen(folder: Path) -> str:
    """Open a whole model (which compares its parts) and make a tenth of a second."""
    import torch

    from audiolm_kit.inference.audiogen import AudioGen

    model = AudioGen.load(folder)
    text = "" if model.conditioner is None else next(iter(model.lm.config.text.labels), "a sound")
    [sound] = model.generate([text], seconds=0.1)
    if not torch.isfinite(sound.samples).all():
        raise ValueError(f"{folder} generates NaN: its weights are damaged")
    shape = f"{model.codec.num_codebooks} codebooks of {model.codec.codebook_size} at {model.codec.frame_rate:g} Hz"
    return f"{shape}, codec {model.fingerprints['codec']}, lm {model.fingerprints['lm']}, generates"
