"""Folders of transformers' MusicGen <-> our parts: the same logits, the same codes, the same sound.

Small, medium and large, mono and stereo. Their dropout is taken over; what else they have for training alone (layerdrop
and dropout inside attention) is not.

D width of the model, E width of the text states, K codebooks, V codebook size.
"""

from __future__ import annotations

import copy
import dataclasses
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.conditioning import TEXT_ENCODER, TextConfig
from audiolm_kit.frozen_t5 import FrozenT5, quiet
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.official import lm_names
from audiolm_kit.official.encodec import from_transformers_model, to_transformers
from audiolm_kit.official.parts import Parts, check_agreement
from audiolm_kit.official.weights import read_state
from audiolm_kit.transformer import TransformerConfig

TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("spiece.model", "vocab.json", "chat_template.jinja"),
)
"""The files of a tokenizer, some of which each has."""
COMPUTED = "embed_positions.weights"
"""Sinusoids, which older files hold and nobody reads."""
SECONDS = 10.0
"""What an exported model makes where nobody says how much: AudioGen's length."""


def read_musicgen(folder: str | Path, unsafe: bool = False) -> Parts:
    """The parts of a ``MusicgenForConditionalGeneration`` folder, in single precision.

    The T5 is cut out of its weights into a temporary folder, which goes when the model does.

    Args:
        unsafe: whether a pickle may run code, where there are no safetensors (``official.pickles``).

    Raises:
        FileNotFoundError: the folder, or a file of it, is missing.
        ValueError: it holds something else, or what ours cannot be, or weights that do not fit its config.
    """
    folder = Path(folder)
    config = _config(folder)
    architecture = _lm_config(config, folder)
    models = _models(config, architecture)
    state = _completed(read_state(folder, unsafe))
    wanted = _their_state(*models)
    if not _projects(config):
        wanted = {name: tensor for name, tensor in wanted.items() if not name.startswith(lm_names.PROJECTION)}
    checkpoint.check_weights(wanted, state, folder)
    lm = _filled(models[0], state)
    parts = Parts(_codec(config, state), lm, _text_encoder(config, state, folder, lm))
    check_agreement(parts)
    return parts


def write_musicgen(parts: Parts, folder: str | Path) -> None:
    """Write a folder that ``MusicgenForConditionalGeneration`` and ``AutoProcessor`` open, whole or not at all.

    An earlier one there is replaced. Where the parts hold no T5, the one that the model names becomes part of it.

    Raises:
        FileNotFoundError: the T5 is not there.
        ValueError: the model or its codec is nothing that MusicGen of transformers can be, the parts do not belong
            together, or the folder holds something else.
    """
    from transformers import EncodecFeatureExtractor, MusicgenProcessor

    folder = Path(folder)
    checkpoint.refuse_foreign(folder)
    refuse_unlike(parts)
    check_agreement(parts)
    text = parts.lm.config.text
    t5 = FrozenT5(str(parts.text_encoder or text.name), text.dim)
    extractor = EncodecFeatureExtractor(parts.codec.channels, parts.codec.sample_rate, padding_side="left")
    model = _composed(parts, t5)
    with checkpoint.replacing(folder) as draft, quiet(folder.parent):
        model.save_pretrained(draft)
        MusicgenProcessor(extractor, t5.tokenizer).save_pretrained(draft)
        extractor.save_pretrained(draft)  # where an earlier transformers looks for it


def refuse_unlike(parts: Parts) -> None:
    """Refuse a model that ``MusicgenForConditionalGeneration`` cannot be.

    Raises:
        ValueError: it says why.
    """
    codec, lm = parts.codec, parts.lm.config
    if not isinstance(codec, NeuralCodec):
        raise ValueError(_no_musicgen(f"its codec is a {type(codec).__name__}, and theirs is an EnCodec"))
    own, theirs = lm.offsets or _delays(lm.num_codebooks), _delays(lm.num_codebooks, codec.config.split_channels)
    learned = lm.text.kind == "t5" and lm.text.dim == lm.transformer.dim and not _is_identity(parts.lm)
    reasons = {
        f"its codec is a {codec.config.body}, and theirs is an EnCodec (body seanet)": codec.config.body != "seanet",
        "its codec scales sounds or cuts them up, and theirs leaves them as they are": bool(
            codec.config.peak or codec.config.normalize or codec.config.segment
        ),
        f"its text kind is {lm.text.kind}, and theirs is read by a T5": lm.text.kind != "t5",
        "its captions are cleaned, and theirs are read as they are": lm.text.clean,
        f"its pattern is {lm.pattern}, and theirs is delay": lm.pattern != "delay",
        f"its offsets are {own}, and theirs with such a codec are {theirs}": own != theirs,
        f"its positions are {lm.transformer.positions}, and theirs sinusoidal": (
            lm.transformer.positions != "sinusoidal"
        ),
        "it attends to padding, and theirs does not": lm.transformer.attend_padding,
        "it stands on a prefix, and theirs on none": bool(lm.prefix.num_codebooks),
        f"its text and itself are both {lm.text.dim} wide, and it has learned a projection between them where theirs "
        "has none": learned,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(_no_musicgen(reason))


# --- reading ----------------------------------------------------------------------------------------------------------


def _config(folder: Path) -> Any:
    """The ``MusicgenConfig`` of a folder."""
    from transformers import MusicgenConfig

    path = folder / checkpoint.CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: give a folder of transformers' MusicGen")
    kind = checkpoint.read_json(path).get("model_type")
    if kind != "musicgen":
        why = "also follows a sound, as melody and style models do" if "musicgen_" in str(kind) else "is no MusicGen"
        raise ValueError(f"{folder} holds a {kind}, which {why}: give a small, medium, large or stereo musicgen")
    try:
        return MusicgenConfig.from_pretrained(folder)
    except Exception as error:  # of many kinds, from version to version
        cause = str(error).strip().split("\n", 1)[0]
        raise ValueError(f"{path} does not describe a MusicGen ({cause}): copy it again") from None


def _lm_config(config: Any, folder: Path) -> LMConfig:
    """Our architecture for theirs."""
    decoder, text, codec = config.decoder, config.text_encoder, config.audio_encoder
    width, size = decoder.hidden_size, decoder.vocab_size
    narrow = decoder.cross_attention_hidden_size is not None and text.hidden_size != width
    special = {decoder.pad_token_id, decoder.bos_token_id} - {None}
    wrong = {
        f"text_encoder is a {text.model_type}, wanted t5": text.model_type != "t5",
        f"audio_encoder is a {codec.model_type}, wanted encodec": codec.model_type != "encodec",
        "audio_encoder scales sounds or cuts them up": codec.model_type == "encodec"
        and bool(codec.normalize or codec.chunk_length_s),
        f"activation_function is {decoder.activation_function}, wanted gelu": decoder.activation_function != "gelu",
        f"ffn_dim is {decoder.ffn_dim}, wanted a multiple of {width}": bool(decoder.ffn_dim % width),
        f"pad and bos token are {sorted(special)}, wanted {size}": special != {size},
        "cross_attention_hidden_size leaves text and model of different widths": narrow,
        f"audio_channels is 2 for {decoder.num_codebooks} codebooks, an odd number": (
            decoder.audio_channels == 2 and bool(decoder.num_codebooks % 2)
        ),
    }
    for fault, holds in wrong.items():
        if holds:
            raise ValueError(f"{folder / checkpoint.CONFIG}: {fault}; such a model is not supported")
    transformer = TransformerConfig(
        dim=width,
        heads=decoder.num_attention_heads,
        layers=decoder.num_hidden_layers,
        feed_forward=decoder.ffn_dim // width,
        dropout=float(decoder.dropout),
        cross_attention=True,
    )
    return LMConfig(
        num_codebooks=decoder.num_codebooks,
        codebook_size=size,
        transformer=transformer,
        text=TextConfig(kind="t5", dim=text.hidden_size, name=f"./{TEXT_ENCODER}"),
        offsets=_delays(decoder.num_codebooks, stereo=True) if decoder.audio_channels == 2 else (),
    )


def _delays(num_codebooks: int, stereo: bool = False) -> tuple[int, ...]:
    """How late each codebook is; in stereo models the two of a level are equally late."""
    return tuple(k // 2 if stereo else k for k in range(num_codebooks))


def _projects(config: Any) -> bool:
    return bool(config.text_encoder.hidden_size != config.decoder.hidden_size)


def _models(config: Any, architecture: LMConfig) -> tuple[StreamLM, Any, Any]:
    """Model, T5 and EnCodec without weights: what names and shapes they must have."""
    from transformers import EncodecModel, T5EncoderModel

    with torch.device("meta"):
        t5 = T5EncoderModel(copy.deepcopy(config.text_encoder))
        return StreamLM(architecture), t5, EncodecModel(config.audio_encoder)


def _their_state(lm: StreamLM, t5: Any, encodec: Any) -> dict[str, Tensor]:
    """All weights under the names of ``MusicgenForConditionalGeneration``."""
    return {
        **lm_names.to_theirs(lm.state_dict(), lm.config.num_codebooks),
        **{f"text_encoder.{name}": tensor for name, tensor in t5.state_dict().items()},
        **{f"audio_encoder.{name}": tensor for name, tensor in encodec.state_dict().items()},
    }


def _completed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what is computed, and with both of the two that a T5's embedding is."""
    state = {name: tensor for name, tensor in state.items() if not name.endswith(COMPUTED)}
    pair = [f"text_encoder.{name}" for name in ("shared.weight", "encoder.embed_tokens.weight")]
    known = [state[name] for name in pair if name in state]
    return {**state, **dict.fromkeys(pair, known[0])} if len(known) == 1 else state


def _filled(lm: StreamLM, state: Mapping[str, Tensor]) -> StreamLM:
    """The model, which is on the meta device, with their weights; where they project nothing, with the identity."""
    ours = lm.state_dict()
    dim = lm.config.transformer.dim
    known = {"text_projection.weight": torch.eye(dim), "text_projection.bias": torch.zeros(dim)}
    if f"{lm_names.PROJECTION}.weight" in state:
        known = {}
    found = lm_names.to_ours(state, ours.keys() - known.keys(), lm.config.num_codebooks)
    lm.load_state_dict(found | known, assign=True)
    return lm.eval()


def _is_identity(lm: StreamLM) -> bool:
    weight, bias = lm.text_projection.weight, lm.text_projection.bias
    return bool((weight == torch.eye(len(weight), device=weight.device)).all()) and not bool(bias.any())


def _codec(config: Any, state: Mapping[str, Tensor]) -> NeuralCodec:
    """The codec; in stereo models it codes left and right each by itself."""
    from transformers import EncodecModel

    model = EncodecModel(config.audio_encoder)
    model.load_state_dict(_part(state, "audio_encoder."))
    codec = from_transformers_model(model.eval())
    return _with_channels(codec, 2) if config.decoder.audio_channels == 2 else codec


def _with_channels(codec: NeuralCodec, channels: int) -> NeuralCodec:
    """A codec of one channel for each of ``channels``, or back, with the very same weights."""
    other = NeuralCodec(dataclasses.replace(codec.config, channels=channels, split_channels=channels == 2))
    other.load_state_dict(codec.state_dict())
    return other.eval()


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _text_encoder(config: Any, state: Mapping[str, Tensor], source: Path, lm: StreamLM) -> Path:
    """A folder of the T5 and its tokenizer, which lasts as long as the model."""
    files = [source / name for name in TOKENIZER if (source / name).is_file()]
    if not {"tokenizer.json", "spiece.model", "tokenizer_config.json"} & {path.name for path in files}:
        raise FileNotFoundError(f"{source} holds no tokenizer (tokenizer.json or spiece.model): copy the whole folder")
    workspace = tempfile.mkdtemp(prefix="musicgen-")
    weakref.finalize(lm, shutil.rmtree, workspace, ignore_errors=True)
    folder = Path(workspace) / TEXT_ENCODER
    folder.mkdir()
    for path in files:
        shutil.copyfile(path, folder / path.name)
    about = {**config.text_encoder.to_dict(), "architectures": ["T5EncoderModel"], "_name_or_path": ""}
    checkpoint.write_json(folder / checkpoint.CONFIG, about)
    weights = _part(state, "text_encoder.")
    if config.text_encoder.tie_word_embeddings:
        del weights["encoder.embed_tokens.weight"]
    weights = {name: tensor.clone() for name, tensor in weights.items()}  # files want no two that share memory
    save_file(weights, folder / checkpoint.WEIGHTS, metadata={"format": "pt"})
    return folder


# --- writing ----------------------------------------------------------------------------------------------------------


def _no_musicgen(reason: str) -> str:
    return f"transformers' MusicGen cannot be this model: {reason}"


def _composed(parts: Parts, t5: FrozenT5) -> Any:
    """Their model with our weights."""
    from transformers import GenerationConfig, MusicgenConfig, MusicgenForConditionalGeneration

    assert isinstance(parts.codec, NeuralCodec)
    stereo = parts.codec.config.split_channels
    encodec = to_transformers(_with_channels(parts.codec, 1) if stereo else parts.codec)
    text, audio = {**t5.model.config.to_dict(), "_name_or_path": ""}, encodec.config.to_dict()
    audio["target_bandwidths"] = audio["target_bandwidths"][-1:]  # prompts are encoded at the first: with all codebooks
    decoder = _decoder_config(parts.lm.config, stereo)
    config = MusicgenConfig(text_encoder=text, audio_encoder=audio, decoder=decoder)
    with torch.device("meta"):
        model = MusicgenForConditionalGeneration(config)
    state = {name: tensor.cpu() for name, tensor in _their_state(parts.lm, t5.model, encodec).items()}
    if not _projects(config):
        state = {name: tensor for name, tensor in state.items() if not name.startswith(lm_names.PROJECTION)}
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    special, sampling = parts.lm.special, Sampling()
    model.generation_config = GenerationConfig(
        do_sample=True,
        guidance_scale=sampling.guidance_scale,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        max_length=round(SECONDS * parts.codec.frame_rate) + max(parts.lm.pattern.offsets) + 1,
        bos_token_id=special,
        decoder_start_token_id=special,
        pad_token_id=special,
    )
    return model


def _decoder_config(lm: LMConfig, stereo: bool) -> dict[str, Any]:
    return {
        "model_type": "musicgen_decoder",
        "vocab_size": lm.codebook_size,
        "num_codebooks": lm.num_codebooks,
        "audio_channels": 2 if stereo else 1,
        "hidden_size": lm.transformer.dim,
        "num_hidden_layers": lm.transformer.layers,
        "num_attention_heads": lm.transformer.heads,
        "ffn_dim": lm.transformer.feed_forward * lm.transformer.dim,
        "dropout": lm.transformer.dropout,
        "bos_token_id": lm.codebook_size,
        "pad_token_id": lm.codebook_size,
    }
