"""Checkpoints from one layout into another: import into ours, export out of it, read any."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from audiolm_kit import checkpoint, provenance
from audiolm_kit.codec.foreign import ForeignCodec
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.opening import AnyCodec, open_codec
from audiolm_kit.conditioning import TEXT_ENCODER
from audiolm_kit.frozen_t5 import quiet
from audiolm_kit.official import encodec
from audiolm_kit.official.audiocraft import read_audiocraft, read_codec, write_audiocraft, write_codec
from audiolm_kit.official.audiocraft_files import read_package
from audiolm_kit.official.musicgen import read_musicgen, write_musicgen
from audiolm_kit.official.parts import KIND, Parts, read_ours, write_ours
from audiolm_kit.official.sources import CODEC_FILE, LM_FILE, TRAINED, Source, find_source

CODECS = (NeuralCodec.__name__, ForeignCodec.__name__)


@dataclass(frozen=True)
class Reading:
    """How a foreign checkpoint is read."""

    unsafe_pickle: bool = False
    """Read pickles that hold more than weights, which runs whatever stands in them: for files of people you trust."""
    attend_padding: bool = False
    """Attend to the padding of a batch's shorter captions, as audiocraft does; else it is masked, and a sound does not
    depend on the captions beside its own."""
    codec: str = ""
    """A source for the codec of an audiocraft model, in the place of the one that its folder holds or points to."""
    text_encoder: str = ""
    """A folder or hub name of a T5, in the place of the one that the source holds or names; a folder is copied."""
    num_codebooks: int = 0
    """Of a DAC or Mimi, how many codebooks are used, the first ones; 0 for all of a DAC's, 8 of a Mimi's."""


def import_(source: str | Path, folder: str | Path, reading: Reading = Reading()) -> str:  # noqa: B008  frozen
    """Make one of our checkpoint folders of a source, and say what it is.

    AudioGen and MusicGen become an AudioGen, and a codec by itself a NeuralCodec or a ForeignCodec.

    Raises:
        FileNotFoundError: the source, or a file of it, is missing.
        ValueError: it holds something else, or what ours cannot be; or ``folder`` holds something else.
    """
    checkpoint.refuse_foreign(Path(folder))
    found = find_source(source)
    made = read_any(found, reading)
    if isinstance(made, Parts):
        write_ours(made, folder)
    else:
        checkpoint.save(made, folder)
    name = found.name if found.name != str(found.path) else found.path.name
    provenance.write(folder, {"imported": {"source": name, "layout": found.layout}})
    return told(made)


def export(folder: str | Path, output: str | Path, to: Literal["transformers", "audiocraft"], t5: str = "") -> str:
    """Write one of our checkpoints, an AudioGen or a codec, in another layout, and say what it was.

    Args:
        t5: For audiocraft, which opens a T5 by its name: which one it is, where the checkpoint brings its own.

    Raises:
        FileNotFoundError: the folder, or a part of it, is missing.
        ValueError: it holds something else, or what theirs cannot be; or ``output`` holds something else.
    """
    output = Path(output)
    if to == "transformers":
        checkpoint.refuse_foreign(output)
    made = _read_ours(Path(folder))
    if t5 and not (isinstance(made, Parts) and to == "audiocraft"):
        raise ValueError(f"t5 is {t5!r}, but only a model in audiocraft's layout names one: leave it out")
    if isinstance(made, Parts):
        if to == "transformers":
            write_musicgen(made, output)
        else:
            write_audiocraft(made, output, t5)
    elif to == "audiocraft":
        write_codec(made, output / CODEC_FILE)
    elif isinstance(made, ForeignCodec):
        made.to_transformers(output)
    else:
        _write_encodec(made, output)
    return told(made)


def read_any(source: str | Path | Source, reading: Reading = Reading()) -> Parts | AnyCodec:  # noqa: B008  frozen
    """What a source in any layout holds: a codec and a model with their text encoder, or a codec alone.

    Raises:
        FileNotFoundError: the source, or a file of it, is missing.
        ValueError: it holds something else, or what ours cannot be, or an option does not concern it.
    """
    found = source if isinstance(source, Source) else find_source(source)
    made = _read(found, reading)
    if isinstance(made, Parts):
        return _with_options(made, found, reading)
    given = {"attend_padding": reading.attend_padding, "codec": reading.codec, "text_encoder": reading.text_encoder}
    for name, value in given.items():
        if value:
            raise ValueError(f"{name} is {value!r}, but {found.name} is a codec alone: leave it out")
    return made


def told(made: Parts | AnyCodec) -> str:
    """A checkpoint in one line."""
    codec = made.codec if isinstance(made, Parts) else made
    kind = type(codec).__name__ if not isinstance(codec, ForeignCodec) else f"ForeignCodec ({codec.config.kind})"
    shape = f"{codec.num_codebooks} codebooks of {codec.codebook_size} at {codec.frame_rate:g} Hz"
    sound = f"{codec.sample_rate} Hz {'stereo' if codec.channels == 2 else 'mono'}"
    if not isinstance(made, Parts):
        return f"{kind}, {shape}, {sound}"
    weights = sum(weight.numel() for weight in made.lm.parameters()) / 1e6
    text = made.lm.config.text
    reader = {"t5": "the T5 in its folder" if text.brings_t5 else f"the T5 {text.name}"}.get(text.kind, text.kind)
    return f"{KIND}, {weights:.4g} M weights, captions by {reader}; {kind}, {shape}, {sound}"


def _read(found: Source, reading: Reading) -> Parts | AnyCodec:
    if reading.num_codebooks and found.layout not in ("dac", "mimi"):
        raise ValueError(f"num_codebooks is {reading.num_codebooks}, but {found.name} is no DAC or Mimi: leave it out")
    if reading.codec and found.layout != "audiocraft":
        raise ValueError(f"codec is {reading.codec!r}, but {found.name} holds its own: leave it out")
    if found.layout == "ours":
        return _read_ours(found.path)
    if found.layout == "musicgen":
        return read_musicgen(found.path, reading.unsafe_pickle)
    if found.layout == "audiocraft":
        return _read_audiocraft(found.path, reading)
    if found.layout == "encodec_file":
        return encodec.from_meta_file(found.path, reading.unsafe_pickle)
    if found.layout == "encodec":
        return encodec.from_transformers(found.path, reading.unsafe_pickle)
    return ForeignCodec.from_transformers(found.path, reading.num_codebooks or None)


def _read_ours(folder: Path) -> Parts | AnyCodec:
    kind = checkpoint.kind_of(folder)
    if kind in CODECS:
        return open_codec(folder)
    if kind in ("", KIND):  # which says what is missing, where it is none
        return read_ours(folder)
    raise ValueError(f"{folder} holds {checkpoint.article(kind)}, wanted {checkpoint.article(KIND)} or a codec")


def _read_audiocraft(path: Path, reading: Reading) -> Parts | AnyCodec:
    """A model with its codec, or a codec where there is nothing else, or where its own file was given."""
    unsafe = reading.unsafe_pickle
    alone = path.name == CODEC_FILE or not (path.is_file() or (path / LM_FILE).is_file() or (path / TRAINED).is_file())
    training = path if path.is_file() else path / TRAINED
    if not alone and training.name == TRAINED and training.is_file() and not (path / LM_FILE).is_file():
        alone = "transformer_lm" not in read_package(training, unsafe).settings
    if alone:
        return read_codec(path, unsafe)
    codec: AnyCodec | None = None
    if reading.codec:
        given = read_any(reading.codec, Reading(unsafe_pickle=unsafe))
        codec = given.codec if isinstance(given, Parts) else given
    return read_audiocraft(path, unsafe, codec)


def _write_encodec(codec: NeuralCodec, folder: Path) -> None:
    """A folder that ``EncodecModel`` and ``AutoProcessor`` open, whole or not at all."""
    from transformers import EncodecFeatureExtractor

    model = encodec.to_transformers(codec)
    pieces: dict[str, Any] = {"chunk_length_s": model.config.chunk_length_s, "overlap": model.config.overlap}
    with checkpoint.replacing(folder) as draft, quiet(folder.parent):
        model.save_pretrained(draft)
        EncodecFeatureExtractor(codec.channels, codec.sample_rate, **pieces).save_pretrained(draft)


def _with_options(parts: Parts, found: Source, reading: Reading) -> Parts:
    """Attend and read captions as is asked for; the model is changed in place, for its T5 lasts as long as it does."""
    lm = parts.lm
    if reading.attend_padding:
        transformer = replace(lm.config.transformer, attend_padding=True)
        lm.config, lm.transformer.config = replace(lm.config, transformer=transformer), transformer
    if not reading.text_encoder:
        return parts
    if lm.config.text.kind != "t5":
        raise ValueError(f"text_encoder is {reading.text_encoder!r}, but {found.name} reads no T5: leave it out")
    given = Path(reading.text_encoder)
    folder = _under_its_name(given, parts) if given.is_dir() else None
    name = f"./{TEXT_ENCODER}" if folder else reading.text_encoder
    lm.config = replace(lm.config, text=replace(lm.config.text, name=name))
    return parts._replace(text_encoder=folder)


def _under_its_name(given: Path, parts: Parts) -> Path:
    """A T5's folder by the name that it has in a checkpoint, as long as the model lasts."""
    width = checkpoint.read_json(given / checkpoint.CONFIG).get("d_model")
    if width != parts.lm.config.text.dim:
        raise ValueError(
            f"the T5 in {given} is {width} wide, the model reads {parts.lm.config.text.dim}: give the one that it "
            "was trained with"
        )
    if given.name == TEXT_ENCODER:
        return given.resolve()
    workspace = tempfile.mkdtemp(prefix="audiolm_kit-text-")
    weakref.finalize(parts.lm, shutil.rmtree, workspace, ignore_errors=True)
    link = Path(workspace) / TEXT_ENCODER
    link.symlink_to(given.resolve(), target_is_directory=True)
    return link
