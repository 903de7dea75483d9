"""The questions that two checkpoints are asked, always the same, and what one of them answers.

B batch, C channels, L samples, K codebooks, N context tokens, P prompt frames, T frames, V codebook size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from audiolm_kit.codec.opening import AnyCodec
from audiolm_kit.conditioning import TextConfig, TextInput
from audiolm_kit.lm.model import LMConfig
from audiolm_kit.official.parts import Parts
from audiolm_kit.official.sources import Source
from audiolm_kit.official.theirs import PACKAGES, open_theirs
from audiolm_kit.official.transfer import Reading, read_any
from audiolm_kit.official.witnesses import Encoded, ModelWitness, Witness, ours

ROWS, TOKENS = 2, (7, 4)
"""Rows of a question, and the context tokens of each."""
TEACHER_FRAMES = 12
"""At most, of the codes whose logits are kept: a large model has thousands of numbers for each."""
SHAPE = ("num_codebooks", "codebook_size", "frame_rate", "sample_rate", "channels")
"""Of a codec: what two must have in common to be asked the same."""
SECONDS = 1.3
"""Of the test sound: more than one segment of codecs that have such."""


@dataclass(frozen=True)
class Questions:
    """What is asked."""

    frames: int
    """T of the continuation, a fifth of which is the prompt."""
    texts: tuple[str, ...]
    seed: int
    unsafe_pickle: bool = False

    @property
    def prompt(self) -> int:
        """P."""
        return max(1, self.frames // 5)


class Answers(NamedTuple):
    """What a checkpoint says; small, whatever it is."""

    source: Source
    by: str
    """Whose code gave the answers."""
    note: str
    """Why its own package did not, where there is one."""
    codec: dict[str, object]
    """What can be said of its shape."""
    model: dict[str, object]
    """Empty for a codec alone."""
    text: TextConfig | None
    weights: Path
    """All tensors as we read them."""
    encoded: Encoded
    audio: Tensor
    """[B, C, L], decoded from the first checkpoint's codes."""
    logits: dict[str, Tensor]
    """[B, K, T, V] by the question."""
    greedy: Tensor | None = None
    """[B, K, T]."""
    read: TextInput | str = ""
    """The captions, or why they cannot be read."""


def answers_of(source: Source, asked: Questions, folder: Path, first: Answers | None = None) -> Answers:
    """Open a checkpoint, by its own package where that is installed, ask it, and forget it.

    Args:
        folder: where its tensors are kept.
        first: of the checkpoint that was asked before; both decode the codes of that one.

    Raises:
        FileNotFoundError: it is missing, in part or whole.
        ValueError: it cannot be read.
    """
    made = read_any(source, Reading(unsafe_pickle=asked.unsafe_pickle))
    codec, config = (made.codec, made.lm.config) if isinstance(made, Parts) else (made, None)
    weights = _kept(made, folder)
    shape = {"kind": type(codec).__name__, **{name: getattr(codec, name) for name in SHAPE}}
    sound, books = sound_for(codec, asked.seed), codec.num_codebooks
    if source.layout in PACKAGES:
        del made, codec  # there may not be room for both
        witness, note = _theirs(source, asked, books)
    else:
        witness, note = ours(made), ""
    encoded = witness.codec.encode(sound)
    same = first is not None and not any(first.codec[name] != shape[name] for name in SHAPE)
    audio = witness.codec.decode(first.encoded if first is not None and same else encoded)
    answers = Answers(source, witness.by, note, shape, {}, None, weights, encoded, audio, logits={})
    if witness.model is None or config is None:
        return answers
    return _of_model(answers._replace(model=_shape_of(config), text=config.text), witness.model, config, asked)


def _theirs(source: Source, asked: Questions, num_codebooks: int) -> tuple[Witness, str]:
    """A foreign checkpoint in its own package or, where that cannot run it, as we read it; and why."""
    try:
        return open_theirs(source, num_codebooks, asked.unsafe_pickle), ""
    except Exception as error:  # whatever another package raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    note = f"{PACKAGES[source.layout]} itself cannot run it ({reason}): our reading of it is compared"
    return ours(read_any(source, Reading(unsafe_pickle=asked.unsafe_pickle))), note


def _kept(made: Parts | AnyCodec, folder: Path) -> Path:
    """All tensors in a file, so that two large models need not be in memory at once."""
    parts: dict[str, nn.Module] = {"codec": made.codec, "lm": made.lm} if isinstance(made, Parts) else {"codec": made}
    state = {
        f"{part}.{name}": tensor.detach().contiguous()
        for part, model in parts.items()
        for name, tensor in model.state_dict().items()
    }
    folder.mkdir()
    save_file(state, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def _shape_of(config: LMConfig) -> dict[str, object]:
    """What two models must have in common to be asked the same, and what is told of them."""
    transformer = config.transformer
    return {
        "num_codebooks": config.num_codebooks,
        "codebook_size": config.codebook_size,
        "dim": transformer.dim,
        "heads": transformer.heads,
        "layers": transformer.layers,
        "pattern": config.pattern,
        "offsets": config.offsets or tuple(range(config.num_codebooks)),
        "text": config.text.kind,
        "text_dim": config.text.dim,
    }


# --- questions --------------------------------------------------------------------------------------------------------


def _of_model(answers: Answers, model: ModelWitness, config: LMConfig, asked: Questions) -> Answers:
    """Logits of seeded codes under seeded states and under captions, and a continuation."""
    draws = torch.Generator().manual_seed(asked.seed)
    books, size = config.num_codebooks, config.codebook_size
    codes = torch.randint(size, (ROWS, books, max(min(asked.frames, TEACHER_FRAMES), books)), generator=draws)
    prompt = torch.randint(size, (ROWS, books, asked.prompt), generator=draws)
    text, whole = (_some_text(config.text, lengths, draws) for lengths in (TOKENS, (TOKENS[0],) * ROWS))
    logits = {"logits": _alone(model, codes, text)}
    if text is not None:
        name = "logits, padding seen" if model.attends_padding else "logits, padded"
        logits[name] = model.logits(codes, text)
    read: TextInput | str
    try:
        read = model.read(list(asked.texts)) if config.text.kind != "none" else "the model reads none"
    except (ValueError, OSError) as error:
        read = " ".join(str(error).split())
    if isinstance(read, TextInput):
        given = codes[:1].expand(len(asked.texts), -1, -1).contiguous()
        logits["logits, captions"] = _alone(model, given, read)
    greedy = model.continue_(prompt, asked.frames, whole)
    return answers._replace(logits=logits, greedy=greedy, read=read)


def _alone(model: ModelWitness, codes: Tensor, text: TextInput | None) -> Tensor:
    """Logits of each row by itself, without padding."""
    rows = []
    for row in range(len(codes)):
        own = None
        if text is not None:
            kept = text.mask[row]
            own = TextInput(text.content[row, kept][None], kept[kept][None])
        rows.append(model.logits(codes[row : row + 1], own))
    return torch.cat(rows)


def _some_text(config: TextConfig, lengths: tuple[int, ...], draws: torch.Generator) -> TextInput | None:
    """Seeded contents as a text encoder of this kind makes them; no caption is read for them."""
    longest = max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    if config.kind == "none":
        return None
    if config.kind == "t5":
        states = torch.randn(len(lengths), longest, config.dim, generator=draws)
        return TextInput(states * mask[..., None], mask)
    most = config.pieces if config.kind == "small" else len(config.labels)
    return TextInput(torch.randint(most, (len(lengths), longest), generator=draws) * mask, mask)


def sound_for(codec: AnyCodec, seed: int) -> Tensor:
    """Harmonics that glide and fade over seeded noise, ``[1, C, L]`` of whole frames, channels unlike."""
    length = math.ceil(SECONDS * codec.frame_rate) * codec.hop
    time = torch.arange(length) / codec.sample_rate
    noise = torch.randn(codec.channels, length, generator=torch.Generator().manual_seed(seed))
    pitch = 2 * math.pi * (180 * time + 60 * time.square())
    tones = [torch.stack([torch.sin(n * pitch + c) / n for n in range(1, 7)]).sum(0) for c in range(codec.channels)]
    made = 0.2 * torch.stack(tones) * torch.exp(-time) + 0.03 * noise
    return made[None]
