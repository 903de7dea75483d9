"""Folders of audiocraft, AudioGen's and MusicGen's, <-> our parts: the same logits, the same codes, the same sound.

Mono and stereo. audiocraft attends to the padding of a batch's shorter captions, and we do not unless we are told to
(``attend_padding``): for one caption that is the same, and otherwise a sound of ours does not depend on its
batch-mates' captions.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from audiolm_kit.checkpoint import read_json, replacing
from audiolm_kit.codec.foreign import ForeignCodec
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.opening import AnyCodec, open_codec
from audiolm_kit.official import encodec
from audiolm_kit.official.audiocraft_files import Package, read_package, write_package
from audiolm_kit.official.audiocraft_settings import T5_WIDTHS, Frame, lm_config, lm_settings
from audiolm_kit.official.audiocraft_weights import TEXT, from_audiocraft, to_audiocraft
from audiolm_kit.official.parts import Parts
from audiolm_kit.official.sources import CODEC_FILE, LM_FILE, TRAINED, find_source

PRETRAINED = "//pretrained/"
"""What the settings put in front of a codec's name that is not one of their own trainings."""
SECONDS = 30.0
"""What an exported model makes at once where nobody says how much: enough for what both AudioGen and MusicGen ask."""


def read_audiocraft(
    folder: str | Path, unsafe: bool = False, codec: AnyCodec | None = None, attend_padding: bool = False
) -> Parts:
    """The parts of a folder of audiocraft, in single precision; the T5 is known by its name alone.

    Args:
        folder: With ``state_dict.bin`` or a training's ``checkpoint.th``, or one of these files; beside it
            ``compression_state_dict.bin``, weights or the name of what holds them: a folder of that name beside it, or
            a model of the hub.
        unsafe: Whether a pickle may run code (``official.pickles``).
        codec: What to take instead of the codec that the folder holds or names.
        attend_padding: As ``TransformerConfig`` has it: True does as audiocraft, False masks padding.

    Raises:
        FileNotFoundError: a file is missing, or a codec that is named.
        ValueError: a file is damaged or refused; or the model computes something that ours does not: it is named.
    """
    path = _lm_file(Path(folder))
    package = read_package(path, unsafe)
    if package.pretrained:
        raise ValueError(f"{path} only says that the model is {package.pretrained}: give that")
    try:
        projection = package.state.get(f"{TEXT}.weight")
        width = 0 if projection is None or projection.dim() != 2 else projection.shape[1]
        lm = from_audiocraft(lm_config(package.settings, width, attend_padding), package.state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if codec is None:
        codec = _codec_of(path, package, unsafe)
    codec = _wrapped(codec, package, path)
    if (codec.num_codebooks, codec.codebook_size) != (lm.config.num_codebooks, lm.config.codebook_size):
        raise ValueError(
            f"{path} is for {lm.config.num_codebooks} codebooks of {lm.config.codebook_size}, the codec has "
            f"{codec.num_codebooks} of {codec.codebook_size}: give the one that it was trained with"
        )
    return Parts(codec, lm, None)


def read_codec(source: str | Path, unsafe: bool = False) -> AnyCodec:
    """A codec by itself: a file of audiocraft or a folder with one, or what such a file points to.

    Raises:
        FileNotFoundError: a file is missing, or a codec that is named.
        ValueError: as ``read_audiocraft``.
    """
    path = Path(source)
    if path.is_dir():
        path = next((path / name for name in (CODEC_FILE, TRAINED) if (path / name).is_file()), path / CODEC_FILE)
    package = read_package(path, unsafe)
    if package.pretrained:
        return _pointed(package.pretrained, path, unsafe)
    try:
        return encodec.from_audiocraft(package.settings, package.state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def write_audiocraft(parts: Parts, folder: str | Path, t5: str = "", seconds: float = SECONDS) -> None:
    """Write a folder that audiocraft's ``AudioGen.get_pretrained`` and ``MusicGen.get_pretrained`` open.

    An earlier one there is replaced, whole or not at all. It will attend to padding, as audiocraft always does.

    Args:
        t5: Which of the T5 that audiocraft knows reads the captions (``T5_WIDTHS``), where the model does not say.
        seconds: The longest that audiocraft then makes at once; a longer sound is made window after window.

    Raises:
        ValueError: the model or its codec is nothing that audiocraft can be, or the folder holds something else.
    """
    folder, codec = Path(folder), parts.codec
    if folder.exists() and not (folder / LM_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is no folder of audiocraft: give a new one")
    stereo = isinstance(codec, NeuralCodec) and codec.config.split_channels
    settings = lm_settings(parts.lm.config, Frame(codec.sample_rate, stereo, _t5_of(parts, t5), seconds))
    with replacing(folder) as draft:
        draft.mkdir()
        write_codec(codec, draft / CODEC_FILE)
        write_package(draft / LM_FILE, settings, to_audiocraft(parts.lm))


def write_codec(codec: AnyCodec, path: Path) -> None:
    """Write ``compression_state_dict.bin``; of split channels, the codec that each of them goes through.

    Raises:
        ValueError: the codec is nothing that audiocraft can be.
    """
    if not isinstance(codec, NeuralCodec):
        raise ValueError(f"the codec is a {codec.config.kind} of transformers, audiocraft's files hold EnCodec alone")
    write_package(path, *encodec.to_audiocraft(_with_channels(codec, 1) if codec.config.split_channels else codec))


# --- reading ----------------------------------------------------------------------------------------------------------


def _lm_file(folder: Path) -> Path:
    if folder.is_file():
        return folder
    for name in (LM_FILE, TRAINED):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds neither {LM_FILE} nor {TRAINED}: give a folder of audiocraft")


def _codec_of(path: Path, package: Package, unsafe: bool) -> AnyCodec:
    """The codec beside a model, or else the one that the model's settings name."""
    if (path.parent / CODEC_FILE).is_file():
        return read_codec(path.parent / CODEC_FILE, unsafe)
    name = package.settings.get("compression_model_checkpoint")
    if isinstance(name, str) and name.startswith(PRETRAINED):
        return _pointed(name.removeprefix(PRETRAINED), path, unsafe)
    named = f", and {name!r}, which the model was trained with, is not to be had here" if name else ""
    raise FileNotFoundError(f"there is no {CODEC_FILE} beside {path}{named}: put it there, or give the codec")


def _pointed(name: str, path: Path, unsafe: bool) -> AnyCodec:
    """The codec that a file names: in a folder beside it, or on the hub."""
    last = name.rstrip("/").split("/")[-1]
    beside = [path.parent / last, path.parent / name, path.parent.parent / last]
    found = next((each for each in beside if each != path.parent and each.is_dir()), None)
    try:
        source = find_source(found or name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} says that its codec is {name}, which is not there ({error}); put its folder beside the file as "
            f"{last}, or give the codec"
        ) from None
    if source.layout == "encodec":
        return encodec.from_transformers(source.path, unsafe)
    if source.layout in ("dac", "mimi"):
        return ForeignCodec.from_transformers(source.path)
    if source.layout == "ours" and read_json(source.path / "config.json").get("kind") != "AudioGen":
        return open_codec(source.path)
    if source.layout == "audiocraft":
        package = read_package(source.path / CODEC_FILE, unsafe)
        if not package.pretrained:  # one pointer, and no chains of them
            return encodec.from_audiocraft(package.settings, package.state)
    raise ValueError(f"{path} says that its codec is {name}, but {source.path} holds no codec: give the codec")


def _wrapped(codec: AnyCodec, package: Package, path: Path) -> AnyCodec:
    """The codec as the model's settings use it: with fewer codebooks, or for left and right each by itself."""
    count = package.settings.get("compression_model_n_q")
    if isinstance(codec, NeuralCodec) and isinstance(count, int) and 1 <= count < codec.num_codebooks:
        codec = _with_codebooks(codec, count)
    stereo = package.settings.get("interleave_stereo_codebooks")
    if not isinstance(stereo, dict) or not stereo.get("use"):
        return codec
    if stereo.get("per_timestep"):
        raise ValueError(f"{path}: interleave_stereo_codebooks.per_timestep is true, and only false is supported")
    if not isinstance(codec, NeuralCodec):
        raise ValueError(f"{path}: a stereo model needs an EnCodec, the codec is a {codec.config.kind}")
    if codec.channels == 1:
        return _with_channels(codec, 2)
    if codec.config.split_channels:
        return codec
    raise ValueError(
        f"{path} codes left and right each by itself, the codec takes both at once: give one of one channel"
    )


def _with_codebooks(codec: NeuralCodec, count: int) -> NeuralCodec:
    """The codec with its first codebooks alone."""
    quantizer = dataclasses.replace(codec.config.quantizer, num_codebooks=count)
    fewer = NeuralCodec(dataclasses.replace(codec.config, quantizer=quantizer))
    state = codec.state_dict()
    fewer.load_state_dict({name: state[name] for name in fewer.state_dict()})
    return fewer.eval()


def _with_channels(codec: NeuralCodec, channels: int) -> NeuralCodec:
    """A codec of one channel for each of ``channels``, or back, with the very same weights."""
    other = NeuralCodec(dataclasses.replace(codec.config, channels=channels, split_channels=channels == 2))
    other.load_state_dict(codec.state_dict())
    return other.eval()


# --- writing ----------------------------------------------------------------------------------------------------------


def _t5_of(parts: Parts, given: str) -> str:
    """The T5 by the name that audiocraft has for it; empty for a model without text."""
    text = parts.lm.config.text
    if text.kind != "t5":
        return ""  # and whether that can be is for the settings to say
    name = (given or text.name).removeprefix("google-t5/")
    if name in T5_WIDTHS:
        return name
    said = f"t5 is {given!r}" if given else f"the model's text encoder is {text.name}"
    raise ValueError(f"{said}, and audiocraft opens by name: give t5 as the one that it is of {', '.join(T5_WIDTHS)}")
