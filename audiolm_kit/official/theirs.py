"""Foreign checkpoints run by the packages that they were made for: transformers, encodec, audiocraft.

What they compute owes nothing to our reading of their files, and so proves it.
B batch, C channels, L samples, K codebooks, P prompt frames, T frames, S steps, V codebook size.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

from audiolm_kit.conditioning import TextInput
from audiolm_kit.frozen_t5 import quiet
from audiolm_kit.official.encodec import import_encodec
from audiolm_kit.official.pickles import read_pickle
from audiolm_kit.official.sources import Source
from audiolm_kit.official.witnesses import GUIDANCE, Encoded, Witness

PACKAGES = {
    **dict.fromkeys(("musicgen", "encodec", "dac", "mimi"), "transformers"),
    "encodec_file": "encodec",
    "audiocraft": "audiocraft",
}
"""By layout, whose package runs it."""


def open_theirs(source: Source, num_codebooks: int, unsafe: bool = False) -> Witness:
    """A foreign checkpoint in its own package.

    Args:
        num_codebooks: K, how many of a codec's codebooks are asked for.
        unsafe: see ``pickles.read_pickle``.

    Raises:
        ModuleNotFoundError: the package is not installed.
        Exception: whatever it raises at a checkpoint that it cannot open.
    """
    package = PACKAGES[source.layout]
    if find_spec(package) is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    if source.layout == "audiocraft":
        return _audiocraft(source.path)
    if source.layout == "encodec_file":
        return Witness(_named("encodec"), MetaCodec(source.path, unsafe))
    with quiet(source.path):
        return _transformers(source, num_codebooks)


def _transformers(source: Source, num_codebooks: int) -> Witness:
    transformers: Any = importlib.import_module("transformers")
    classes = {
        "musicgen": "MusicgenForConditionalGeneration",
        "encodec": "EncodecModel",
        "dac": "DacModel",
        "mimi": "MimiModel",
    }
    theirs = getattr(transformers, classes[source.layout]).from_pretrained(source.path).float().eval()
    by = _named("transformers")
    if source.layout == "musicgen":
        model = TransformersModel(theirs, source.path)
        stereo = theirs.config.decoder.audio_channels == 2
        books = num_codebooks // (2 if stereo else 1)
        return Witness(by, TransformersEncodec(theirs.audio_encoder, books, stereo), model)
    if source.layout == "encodec":
        return Witness(by, TransformersEncodec(theirs, num_codebooks))
    return Witness(by, PlainCodec(theirs, num_codebooks if source.layout == "mimi" else None))


def _named(package: str) -> str:
    """A package with its version, where it says one."""
    module = import_encodec() if package == "encodec" else importlib.import_module(package)
    return f"{package} {getattr(module, '__version__', '')}".strip()


class TransformersModel:
    """``MusicgenForConditionalGeneration``: its own T5, pattern, guidance and loop."""

    attends_padding = False

    def __init__(self, model: Any, folder: Path) -> None:
        self._model, self._folder = model, folder
        self._special = int(model.config.decoder.vocab_size)

    @torch.no_grad()
    def read(self, texts: list[str]) -> TextInput:
        """As the protocol."""
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(self._folder)
        given = tokenizer(texts, return_tensors="pt", padding=True)
        states = self._model.text_encoder(**given).last_hidden_state
        return TextInput(states, given["attention_mask"].bool())

    @torch.no_grad()
    def logits(self, codes: Tensor, text: TextInput | None) -> Tensor:
        """As the protocol."""
        assert text is not None
        batch, books, num_frames = codes.shape
        begun = pad(codes, (1, 0), value=self._special).flatten(0, 1)
        offsets = torch.arange(books) // (2 if self._model.config.decoder.audio_channels == 2 else 1)
        steps = num_frames + int(offsets[-1]) + 1
        _, sequence = self._model.decoder.build_delay_pattern_mask(begun, self._special, steps)
        outputs = (text.content,)
        made = self._model(
            encoder_outputs=outputs, attention_mask=text.mask.long(), decoder_input_ids=sequence, use_cache=False
        )
        logits = made.logits.view(batch, books, steps, -1)
        return torch.stack([logits[:, k, at : at + num_frames] for k, at in enumerate(offsets.tolist())], dim=1)

    @torch.no_grad()
    def continue_(self, prompt: Tensor, num_frames: int, text: TextInput | None) -> Tensor:
        """As the protocol, by their ``generate``; it ends by decoding the codes, which are taken there."""
        assert text is not None
        model, special, books = self._model, self._special, prompt.shape[1]
        stereo = model.config.decoder.audio_channels == 2
        taken: list[Tensor] = []

        def decode(codes: Tensor, **_: Any) -> SimpleNamespace:
            taken.append(codes[0])
            return SimpleNamespace(audio_values=torch.zeros(len(prompt), 1, 1))

        model.audio_encoder.decode = decode
        try:
            model.generate(
                inputs=torch.zeros_like(text.mask, dtype=torch.long),  # nobody reads them: what they say is given
                encoder_outputs=(torch.cat([text.content, torch.zeros_like(text.content)]),),
                attention_mask=torch.cat([text.mask, torch.zeros_like(text.mask)]).long(),
                decoder_input_ids=pad(prompt, (1, 0), value=special).flatten(0, 1),
                do_sample=False,
                num_beams=1,
                guidance_scale=GUIDANCE,
                max_length=num_frames + books // (2 if stereo else 1),
                **dict.fromkeys(("pad_token_id", "bos_token_id", "decoder_start_token_id"), special),
            )
        finally:
            del model.audio_encoder.decode
        return torch.stack(taken, dim=2).flatten(1, 2)  # left and right by turns


class TransformersEncodec:
    """``EncodecModel``; of a stereo MusicGen, left and right each by itself and by turns."""

    def __init__(self, model: Any, num_codebooks: int, split: bool = False) -> None:
        self._model, self._split, self._books = model, split, num_codebooks

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Encoded:
        """As the protocol."""
        given = rearrange(audio, "b c l -> (b c) 1 l") if self._split else audio
        codes, scales, missing = self._model.encode(given, bandwidth=self._bandwidth(), return_dict=False)
        codes = rearrange(codes, "n b k t -> b k (n t)")[:, : self._books]
        codes = codes[..., : codes.shape[-1] - missing]
        if self._split:
            codes = rearrange(codes, "(b c) k t -> b (k c) t", c=2)
        known = [scale.view(-1) for scale in scales if scale is not None]
        return Encoded(codes, torch.stack(known, dim=1) if known else None)

    @torch.no_grad()
    def decode(self, encoded: Encoded) -> Tensor:
        """As the protocol."""
        codes = rearrange(encoded.codes, "b (k c) t -> (b c) k t", c=2) if self._split else encoded.codes
        config, num_frames = self._model.config, codes.shape[-1]
        length = config.chunk_length
        size = num_frames if length is None else -(-length // config.hop_length)
        missing = -num_frames % size
        segments = rearrange(pad(codes, (0, missing)), "b k (n t) -> n b k t", t=size)
        scales = [None] * len(segments) if encoded.scales is None else list(encoded.scales[..., None].unbind(1))
        made: Tensor = self._model.decode(segments, scales, last_frame_pad_length=missing, return_dict=False)[0]
        return rearrange(made, "(b c) 1 l -> b c l", c=2) if self._split else made

    def _bandwidth(self) -> float:
        """The least that has all codebooks that are asked for."""
        rates = sorted(self._model.config.target_bandwidths)
        each = self._model.quantizer.get_num_quantizers_for_bandwidth
        return float(next((rate for rate in rates if each(rate) >= self._books), rates[-1]))


class PlainCodec:
    """``DacModel`` or ``MimiModel``."""

    def __init__(self, model: Any, num_codebooks: int | None) -> None:
        self._model = model
        self._options = {} if num_codebooks is None else {"num_quantizers": num_codebooks}

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Encoded:
        """As the protocol."""
        return Encoded(self._model.encode(audio, **self._options).audio_codes)

    @torch.no_grad()
    def decode(self, encoded: Encoded) -> Tensor:
        """As the protocol."""
        made: Tensor = self._model.decode(audio_codes=encoded.codes).audio_values
        return made if made.dim() == 3 else made[:, None]


class MetaCodec:
    """``encodec.EncodecModel`` of a file of Meta's, 24 or 48 kHz: whichever the weights fit."""

    def __init__(self, path: Path, unsafe: bool) -> None:
        model: Any = import_encodec().EncodecModel
        state = read_pickle(path, unsafe)
        self._model = model.encodec_model_24khz(pretrained=False)
        if self._model.state_dict().keys() != state.keys() or state["encoder.model.0.conv.conv.bias"].dim() == 0:
            self._model = model.encodec_model_48khz(pretrained=False)
        self._model.load_state_dict(state)
        self._model.set_target_bandwidth(24.0)
        self._model.eval()

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Encoded:
        """As the protocol."""
        frames = self._model.encode(audio)
        scales = [scale.view(-1) for _, scale in frames if scale is not None]
        return Encoded(torch.cat([codes for codes, _ in frames], dim=-1), torch.stack(scales, 1) if scales else None)

    @torch.no_grad()
    def decode(self, encoded: Encoded) -> Tensor:
        """As the protocol."""
        length = self._model.segment_length
        hop = int(torch.tensor(self._model.encoder.ratios).prod())
        pieces = encoded.codes.split(encoded.codes.shape[-1] if length is None else -(-length // hop), dim=-1)
        scales = [None] * len(pieces) if encoded.scales is None else list(encoded.scales[..., None].unbind(1))
        made: Tensor = self._model.decode(list(zip(pieces, scales, strict=True)))
        return made


# --- audiocraft -------------------------------------------------------------------------------------------------------


def _audiocraft(folder: Path) -> Witness:
    """Both parts by their own loaders, the codec wrapped as theirs are for stereo."""
    loaders: Any = importlib.import_module("audiocraft.models.loaders")
    builders: Any = importlib.import_module("audiocraft.models.builders")
    lm = loaders.load_lm_model(str(folder), device="cpu")
    codec = loaders.load_compression_model(str(folder), device="cpu")
    codec = builders.get_wrapped_compression_model(codec, lm.cfg)
    return Witness(_named("audiocraft"), AudiocraftCodec(codec), AudiocraftModel(lm))


class AudiocraftCodec:
    """``CompressionModel``."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Encoded:
        """As the protocol."""
        codes, scale = self._model.encode(audio)
        return Encoded(codes, None if scale is None else scale.view(-1, 1))

    @torch.no_grad()
    def decode(self, encoded: Encoded) -> Tensor:
        """As the protocol."""
        made: Tensor = self._model.decode(encoded.codes, encoded.scales)
        return made


class AudiocraftModel:
    """``LMModel``: its own pattern, guidance and loop."""

    attends_padding = True

    def __init__(self, model: Any) -> None:
        self._model = model
        self._conditioner = model.condition_provider.conditioners["description"]

    @torch.no_grad()
    def read(self, texts: list[str]) -> TextInput:
        """As the protocol."""
        given = self._conditioner.tokenize(texts)
        return TextInput(self._conditioner.t5(**given).last_hidden_state, given["attention_mask"].bool())

    @torch.no_grad()
    def logits(self, codes: Tensor, text: TextInput | None) -> Tensor:
        """As the protocol."""
        assert text is not None
        known = {"description": self._projected(text)}
        made = self._model.compute_predictions(codes, [], known, keep_only_valid_steps=False)
        logits: Tensor = made.logits
        return logits

    @torch.no_grad()
    def continue_(self, prompt: Tensor, num_frames: int, text: TextInput | None) -> Tensor:
        """As the protocol, by their ``generate``, whose captions are taken for the states that are given here."""
        assert text is not None
        states, mask = self._projected(text)
        both = torch.cat([states, torch.zeros_like(states)]), torch.cat([mask, torch.zeros_like(mask)])
        attributes = importlib.import_module("audiocraft.modules.conditioners").ConditioningAttributes
        provider = self._model.condition_provider
        provider.tokenize, provider.forward = lambda conditions: {}, lambda tokenized: {"description": both}
        try:
            made: Tensor = self._model.generate(
                prompt,
                [attributes(text={"description": "-"}) for _ in prompt],
                max_gen_len=num_frames,
                use_sampling=False,
                cfg_coef=GUIDANCE,
            )
        finally:
            del provider.tokenize, provider.forward
        return made

    def _projected(self, text: TextInput) -> tuple[Tensor, Tensor]:
        """States and mask as their conditioner gives them."""
        states = self._conditioner.output_proj(text.content) * text.mask[..., None]
        return states, text.mask.long()
