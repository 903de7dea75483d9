"""ForeignCodec: the codecs of transformers, DAC and Mimi, in the manner of ours.

DAC: Kumar et al. 2023 (arXiv:2306.06546). Mimi: Défossez et al. 2024 (arXiv:2410.00037).
B batch, C channels, L samples, D latent width, K codebooks, T frames.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit import checkpoint
from audiolm_kit.codec.foreign_stages import dac_stages, mimi_stages
from audiolm_kit.codec.stage import Stage
from audiolm_kit.protocols import check_audio

NAMES = {"dac": "Dac", "mimi": "Mimi"}
"""How the classes of each kind begin."""
USUAL_CODEBOOKS = {"dac": 0, "mimi": 8}
"""How many codebooks are used unless said otherwise (0: all): of Mimi's 32 its own language model reads 8."""
PLUMBING = re.compile(
    r"_.*|.*_implementation|architectures|auto_map|(torch_)?dtype|model_type|quantization_config|transformers_version"
)
"""What a config of transformers holds beside the architecture; some of it would have code fetched."""
AS_WE_CALL_IT = {"return_dict": True, "use_cache": False, "use_streaming": False}
IN_MEMORY = (  # newer versions of transformers keep Mimi in two halves; its files stay as they were
    (re.compile(r"^(encoder|decoder)\.\1_seanet\."), r"\1."),
    (re.compile(r"^(?:encoder|decoder)\.((?:encoder|decoder)_transformer|downsample|upsample)\."), r"\1."),
)


@dataclass(frozen=True)
class ForeignConfig:
    """The architecture of a codec as transformers describes it."""

    kind: Literal["dac", "mimi"]
    settings: str
    """The config of transformers as JSON text; what says nothing of the architecture is left out."""
    num_codebooks: int = 0
    """K, how many codebooks are used, the first ones; 0: all that there are."""

    def __post_init__(self) -> None:
        try:
            settings = json.loads(self.settings)
        except json.JSONDecodeError as error:
            raise ValueError(f"settings is not readable as JSON ({error}): give a config of transformers") from None
        if not isinstance(settings, dict):
            raise ValueError(f"settings is {self.settings[:40]!r}, wanted a JSON object: give a config of transformers")
        if self.num_codebooks < 0:
            raise ValueError(f"num_codebooks is {self.num_codebooks}, wanted at least 1, or 0 for all")
        object.__setattr__(self, "settings", json.dumps(_architecture(settings), sort_keys=True))


class ForeignCodec(nn.Module):
    """A DAC or a Mimi of transformers; satisfies ``protocols.Codec``.

    It is only used, never trained. Its weights stand in a checkpoint under the names of transformers' own files.
    """

    def __init__(self, config: ForeignConfig) -> None:
        super().__init__()
        self.config = config
        self.network = _built(config).requires_grad_(False).eval()
        self._theirs: Any = self.network.config
        if config.num_codebooks > self._all_codebooks:
            raise ValueError(f"num_codebooks is {config.num_codebooks}, this {config.kind} has {self._all_codebooks}")
        self.register_state_dict_post_hook(_publish)

    @classmethod
    def from_transformers(cls, folder: str | Path, num_codebooks: int | None = None) -> ForeignCodec:
        """Read a folder that holds a DacModel or a MimiModel as transformers saves it, from safetensors alone.

        Args:
            num_codebooks: K, how many of them are used; None for all of a DAC's, 8 of a Mimi's. All are kept.

        Raises:
            FileNotFoundError: the folder lacks its config or its weights.
            ValueError: another kind of model, a pickle, a cut-off file, or weights that do not fit the config.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no config.json: give a folder of a DAC or Mimi of transformers")
        settings = checkpoint.read_json(folder / "config.json")
        return cls.from_state(settings, _read_weights(folder), str(folder), num_codebooks)

    @classmethod
    def from_state(
        cls, settings: Mapping[str, Any], state: Mapping[str, Tensor], where: str, num_codebooks: int | None = None
    ) -> ForeignCodec:
        """Make one of a config of transformers and the weights of its file, which come from ``where``.

        Args:
            settings: what its ``config.json`` holds, ``model_type`` included.
            num_codebooks: as in ``from_transformers``.

        Raises:
            ValueError: another kind of model, or weights that do not fit the config; the message names ``where``.
        """
        kind: Any = str(settings.get("model_type"))
        if kind not in NAMES:
            raise ValueError(f"{where} holds a model of type {kind!r}, wanted {' or '.join(NAMES)}: give such a folder")
        codec = cls(ForeignConfig(kind, json.dumps(settings), num_codebooks or 0))
        if num_codebooks is None and 0 < USUAL_CODEBOOKS[kind] < codec.num_codebooks:
            codec.config = replace(codec.config, num_codebooks=USUAL_CODEBOOKS[kind])
        checkpoint.check_weights(codec.state_dict(), state, Path(where))
        codec.load_state_dict(dict(state))
        return codec

    def to_transformers(self, folder: str | Path) -> None:
        """Write a folder that ``from_pretrained`` of DacModel or MimiModel opens; all codebooks, whatever K is.

        Raises:
            ValueError: the folder holds something else.
        """
        library: Any = import_module("transformers")
        folder = Path(folder)
        checkpoint.refuse_foreign(folder)
        about = {"architectures": [f"{NAMES[self.config.kind]}Model"], "model_type": self.config.kind}
        if self.config.kind == "dac":
            reader = library.DacFeatureExtractor(sampling_rate=self.sample_rate, hop_length=self.hop)
        else:
            reader = library.EncodecFeatureExtractor(feature_size=self.channels, sampling_rate=self.sample_rate)
        state = {each: tensor.detach().cpu().contiguous() for each, tensor in self.state_dict().items()}
        with checkpoint.replacing(folder) as draft:
            draft.mkdir()
            reader.save_pretrained(draft)
            (draft / "config.json").write_text(
                json.dumps(about | json.loads(self.config.settings), indent=2) + "\n", encoding="utf-8"
            )
            save_file(state, draft / "model.safetensors", {"format": "pt"})

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def sample_rate(self) -> int:
        return int(self._theirs.sampling_rate)

    @property
    def channels(self) -> int:
        return 1 if self.config.kind == "dac" else int(self._theirs.audio_channels)

    @property
    def num_codebooks(self) -> int:
        return self.config.num_codebooks or self._all_codebooks

    @property
    def codebook_size(self) -> int:
        return int(self._theirs.codebook_size)

    @property
    def hop(self) -> int:
        """Samples of one frame."""
        if self.config.kind == "dac":
            return math.prod(self._theirs.downsampling_ratios)
        inner = int(self._theirs.encodec_frame_rate / self._theirs.frame_rate)
        return math.prod(self._theirs.upsampling_ratios) * inner

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.hop

    @property
    def can_stream(self) -> bool:
        """Whether codes can be decoded piece by piece (`codec.streaming`)."""
        return self.config.kind == "dac" or bool(self._theirs.use_causal_conv)

    @property
    def level(self) -> float:
        """What decoded audio is multiplied by: nothing, a foreign codec keeps levels in its codes."""
        return 1.0

    @property
    def _all_codebooks(self) -> int:
        return int(self._theirs.n_codebooks if self.config.kind == "dac" else self._theirs.num_quantizers)

    # --- sound to codes and back --------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, audio: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Audio [B, C, L] -> codes [B, K, T] with T = ceil(L / hop); the last frame is filled up.

        With silence for a DAC, as its feature extractor does; a Mimi's convolutions fill it up themselves.

        Raises:
            ValueError: not three axes, another number of channels, no samples, or a ``num_codebooks`` out of range.
        """
        count = check_audio(self, audio, num_codebooks)
        network: Any = self.network
        if self.config.kind == "dac":
            whole = F.pad(audio, (0, -audio.shape[-1] % self.hop))
            codes: Tensor = network.encode(whole, n_quantizers=count).audio_codes
        else:
            least = max(count, self._theirs.num_semantic_quantizers)  # the semantic ones go together
            codes = network.encode(audio, num_quantizers=least).audio_codes
        return codes[:, :count].contiguous()

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, K', T] of the first K' <= K codebooks -> audio [B, C, T * hop].

        A DAC whose ratios are not all even makes a few samples less, 8 at 16 and 24 kHz: they are silence.

        Raises:
            ValueError: more codebooks than this codec has, no frames, or codes outside [0, codebook_size).
        """
        if codes.numel() == 0:
            raise ValueError(self._wanted(codes))
        self.check(codes)
        network: Any = self.network
        audio: Tensor = network.decode(audio_codes=codes).audio_values
        audio = audio.reshape(len(codes), self.channels, -1)
        return F.pad(audio, (0, codes.shape[2] * self.hop - audio.shape[-1]))

    def check(self, codes: Tensor) -> None:
        """Refuse what cannot be decoded; no frames at all are fine.

        Raises:
            ValueError: as ``decode``.
        """
        if codes.dim() != 3 or not 1 <= codes.shape[1] <= self.num_codebooks or len(codes) == 0:
            raise ValueError(self._wanted(codes))
        low, high = (int(codes.min()), int(codes.max())) if codes.numel() else (0, 0)
        if low < 0 or high >= self.codebook_size:
            raise ValueError(f"codes reach from {low} to {high}, wanted 0 to {self.codebook_size - 1}")

    def _wanted(self, codes: Tensor) -> str:
        return f"codes are of shape {list(codes.shape)}, wanted [B, 1 to {self.num_codebooks}, at least 1]"

    # --- the two ends of the decoder, and what lies between, for those who run it themselves (codec.streaming) --------

    def latents(self, codes: Tensor) -> Tensor:
        """Codes [B, K', T] -> what the decoder reads, [B, D, T]."""
        quantizer: Any = self.network.quantizer
        latents: Tensor = quantizer.from_codes(codes)[0] if self.config.kind == "dac" else quantizer.decode(codes)
        return latents

    def stages(self) -> list[Stage]:
        """The decoder as streaming runs it.

        Raises:
            ValueError: a Mimi that is not causal, whose frames all depend on one another.
        """
        if not self.can_stream:
            raise ValueError(
                "a Mimi with use_causal_conv false cannot decode piece by piece: decode all codes at once, or take a "
                "causal one"
            )
        return dac_stages(self.network) if self.config.kind == "dac" else mimi_stages(self.network)

    def with_channels(self, audio: Tensor) -> Tensor:
        """What the decoder gives is as it should be, [B, C, L]."""
        return audio

    # --- as a module --------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> ForeignCodec:
        """Leave the network as it is: in training it would draw how many codebooks it uses."""
        super().train(mode)
        self.network.eval()
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> ForeignCodec:
        super()._apply(fn, recurse)
        self._forget()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        for name in self.network.state_dict():
            if (published := prefix + _published(name)) in state_dict:
                state_dict[f"{prefix}network.{name}"] = state_dict.pop(published)
        super()._load_from_state_dict(state_dict, prefix, *others)
        self._forget()

    def _forget(self) -> None:
        """Have Mimi work out its codebooks again, which it keeps from their first use on, where they were then."""
        books: list[Any] = [module for module in self.network.modules() if hasattr(module, "_embed")]
        for book in books:
            book._embed = None


def _architecture(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A config of transformers without what says nothing of the architecture."""
    kept = {name: value for name, value in settings.items() if not PLUMBING.fullmatch(name)}
    kept = {name: value for name, value in kept.items() if name not in AS_WE_CALL_IT}
    if (rate := settings.get("_frame_rate")) is not None:  # what newer versions make of Mimi's frame_rate
        kept.setdefault("frame_rate", rate)
    return kept


def _built(config: ForeignConfig) -> nn.Module:
    """The network, with random weights."""
    library: Any = import_module("transformers")
    name = NAMES[config.kind]
    try:
        settings = getattr(library, f"{name}Config")(**json.loads(config.settings), **AS_WE_CALL_IT)
        made: nn.Module = getattr(library, f"{name}Model")(settings)
    except Exception as error:  # whatever it is that does not suit theirs
        told = " ".join(str(error).split())
        raise ValueError(f"settings make no {name}Model of transformers ({told}): give the config of one") from error
    return made


def _published(name: str) -> str:
    """A weight's name in memory -> its name in the files of transformers."""
    for pattern, flat in IN_MEMORY:
        name = pattern.sub(flat, name)
    return name


def _publish(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Name weights as transformers' files do; what shares memory gets its own, as a file of safetensors needs it."""
    inside, seen = f"{prefix}network.", set()
    for name in [each for each in state if each.startswith(inside)]:
        tensor = state.pop(name)
        place = tensor.untyped_storage().data_ptr()
        state[prefix + _published(name.removeprefix(inside))] = tensor.clone() if place in seen else tensor
        seen.add(place)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, in one file or in several."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files and list(folder.glob("pytorch_model*.bin")):
        raise ValueError(
            f"{folder} holds its weights as a pickle alone, which can run code: open it with transformers where you "
            "trust it, and save_pretrained it as safetensors"
        )
    if not files:
        raise FileNotFoundError(f"{folder} holds no model.safetensors: copy the whole folder")
    state: dict[str, Tensor] = {}
    for file in files:
        state |= checkpoint.read_weights(file)
    return state
