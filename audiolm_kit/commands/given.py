"""What verbs are given: numbers left unsaid, devices that must be there, and the options that verbs have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

UNSAID: Any = None  # of a number; with `float | None` a wrong one would be told of in jsonargparse's words

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
Quantize = Literal["int8", "int4"]
# Those of inference.precision, which only a verb that makes sound imports.


@dataclass(frozen=True)
class Asked:
    """What is asked of a sound, whether it begins with a recording or with nothing."""

    output: str = ""
    """The sound file (.wav, .flac, .ogg, .mp3), which begins with the prompt where there is one; several are numbered,
    and a name without a suffix is a folder."""
    stream: str = ""
    """In the place of output: a .wav that is written while it is made, or - for standard output."""
    seconds: float = UNSAID
    """The length of each sound, its prompt included; unless said 5, that of the timeline, or with `generate` what suits
    a model that comes with the package."""
    endless: bool = False
    """With --stream -, go on until nobody listens any more."""
    negative: str = ""
    """What is not to be heard: guidance leads away from it."""
    window: float = UNSAID
    """Seconds that are made at once; a longer sound is made window after window."""
    overlap: float = UNSAID
    """Seconds at the end of a window that the next one begins with; unless said 0.3 of a window."""
    temperature_of: tuple[str, ...] = ()
    """With an AudioLM, of one stage, as in --temperature_of semantic=0.7; else those of the paper."""
    seed: int = 0
    """The same seed makes the same sound."""


@dataclass(frozen=True)
class Opening:
    """How a model is opened to make sound."""

    device: str = "auto"
    """Where to compute: cpu, cuda, or auto for the best there is."""
    dtype: Dtype = "float32"
    """What the language model computes with: bfloat16 and float16 halve its memory and pay on GPUs, bfloat16 also on
    CPUs that have arithmetic for it; auto takes the fastest that is safe where it computes."""
    quantize: Quantize = UNSAID
    """The language model's matrices as whole numbers, int8 or int4: a quarter or a sixth of the memory of float32. It
    pays most on CPUs that make one or two sounds at once; large batches are faster without."""
    compile: bool = False
    """Compile the step that is taken for each frame: it takes a minute at first, and pays on GPUs."""

    @property
    def loading(self) -> dict[str, Any]:
        """What ``AudioGen.load`` and ``AudioLM.load`` want of it; the device must be there."""
        dtype = None if self.dtype == "auto" else self.dtype
        place = checked_device(self.device)
        return {"device": place, "dtype": dtype, "quantize": self.quantize, "compile": self.compile, "frozen": True}


def checked_device(name: str) -> str:
    """The device's name, where it is there; `auto` becomes the best there is."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the second where torch is built without CUDA
        raise ValueError(f"device is {name!r}, which this torch does not find: choose auto, cpu or cuda") from error
    return name
