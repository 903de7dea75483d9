"""The same language model in three packages: ours, transformers' MusicGen and audiocraft's, with the same weights.

Shapes: B batch, K codebooks, T frames, S steps, N context tokens, E width of the caption's states.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import time
import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import torch
from bench_cases import Sizes, Unavailable, wait
from torch import Tensor, nn

from audiolm_kit.conditioning import Context, TextConfig, TextInput
from audiolm_kit.inference.precision import Dtype, Precision
from audiolm_kit.lm.generate import steps
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.lm.packed import How
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.official import lm_names
from audiolm_kit.official.audiocraft_weights import to_audiocraft
from audiolm_kit.transformer import TransformerConfig

GUIDANCE, TOP_K = 3.0, 250
BITS = {"fp32": 32.0, "bf16": 16.0, "int8": 8.0, "int4": 5.0}
"""What a weight takes in memory; int4 with a bf16 scale and zero for each 32."""


class Asked(NamedTuple):
    """A request, the same for all packages."""

    texts: Tensor  # [B, N, E], what a T5 would have said
    prompt: Tensor  # [B, K, P]
    num_frames: int  # with those of the prompt
    greedy: bool = False
    seed: int = 0

    @property
    def num_steps(self) -> int:
        """Of the model: the delay of K codebooks adds K - 1 to the frames that are made."""
        return self.num_frames - self.prompt.shape[-1] + self.prompt.shape[1] - 1


def asked(sizes: Sizes, batch: int, num_frames: int, known: int = 0, greedy: bool = False) -> Asked:
    """Random states and a random prompt of ``known`` frames; ``num_frames`` are made behind it."""
    generator = torch.Generator().manual_seed(sizes.seed)
    texts = torch.randn(batch, sizes.context, sizes.text_dim, generator=generator)
    prompt = torch.randint(sizes.codebook_size, (batch, sizes.num_codebooks, known), generator=generator)
    return Asked(texts.to(sizes.device), prompt.to(sizes.device), known + num_frames, greedy, sizes.seed)


# --- ours -------------------------------------------------------------------------------------------------------------


def our_lm(sizes: Sizes, training: bool = False) -> StreamLM:
    """Random weights of a fixed seed, in single precision; all other models get these."""
    torch.manual_seed(sizes.seed)
    dim, heads, layers = sizes.dim, sizes.heads, sizes.layers
    if training:
        dim, heads, layers = sizes.train_dim, sizes.train_heads, sizes.train_layers
    transformer = TransformerConfig(dim=dim, heads=heads, layers=layers, cross_attention=True)
    text = TextConfig(kind="t5", dim=sizes.text_dim)
    config = LMConfig(sizes.num_codebooks, sizes.codebook_size, "delay", transformer, text)
    return StreamLM(config).train(training).to(sizes.device)


def our_variant(lm: StreamLM, option: str, keep: bool = True) -> StreamLM:
    """The model as an option says: ``fp32`` or ``bf16``, ``int8`` or ``int4`` matrices (``int8, bf16``), ``compiled``.

    Args:
        keep: Leave the model as it is, and take a copy where something changes.

    Raises:
        ValueError: there is no compiler, or no kernel for such weights.
    """
    words = option.split(", ")
    made = copy.deepcopy(lm) if keep else lm
    how: How | None = next((each for each in get_args(How) if each in words), None)
    dtype: Dtype = "bfloat16" if "bf16" in words else "float32"
    return Precision(dtype, how, compile="compiled" in words, frozen=True).put(made, lm.embedding.weight.device)


def our_codes(lm: StreamLM, request: Asked) -> Tensor:
    """Codes [B, K, T], the prompt's not among them."""
    return torch.stack(list(our_frames(lm, request)), dim=-1)


def our_frames(lm: StreamLM, request: Asked) -> Any:
    """Frames [B, K] as they come."""
    batch = len(request.texts)
    seeds = range(request.seed, request.seed + batch)
    return steps(lm, request.prompt, request.num_frames, our_sampling(request), our_context(lm, request), seeds=seeds)


def our_sampling(request: Asked) -> Sampling:
    """As the others sample: top-k or greedy, with guidance."""
    return Sampling(temperature=0.0 if request.greedy else 1.0, top_k=TOP_K, guidance_scale=GUIDANCE)


@torch.no_grad()
def our_context(lm: StreamLM, request: Asked) -> Context:
    """What the model makes of the states."""
    mask = torch.ones(request.texts.shape[:2], dtype=torch.bool, device=request.texts.device)
    return lm.condition(TextInput(request.texts, mask))


def our_frame_seconds(lm: StreamLM, request: Asked, device: str) -> list[float]:
    """What each frame took after the first, which waits for the delay and the prompt."""
    stamps = []
    for _ in our_frames(lm, request):
        wait(device)
        stamps.append(time.perf_counter())
    return [late - early for early, late in zip(stamps, stamps[1:], strict=False)]


# --- transformers -----------------------------------------------------------------------------------------------------


def transformers_lm(lm: StreamLM, dtype: torch.dtype = torch.float32) -> Any:
    """``MusicgenForConditionalGeneration`` with our weights; its T5 and EnCodec are tiny: their work is given."""
    transformers = importlib.import_module("transformers")
    config, width = lm.config, lm.config.transformer.dim
    size, books = config.codebook_size, config.num_codebooks
    text = {"d_model": config.text.dim, "d_ff": 8, "d_kv": 4, "num_layers": 1, "num_heads": 1, "vocab_size": 8}
    decoder = {
        **{"vocab_size": size, "num_codebooks": books, "hidden_size": width, "ffn_dim": 4 * width},
        **{"num_hidden_layers": config.transformer.layers, "num_attention_heads": config.transformer.heads},
        **{"pad_token_id": size, "bos_token_id": size, "dropout": 0.0, "layerdrop": 0.0},
    }
    encodec = {"num_filters": 2, "hidden_size": 4, "codebook_dim": 4, "codebook_size": size, "upsampling_ratios": [2]}
    model = transformers.MusicgenForConditionalGeneration(
        transformers.MusicgenConfig(
            text_encoder=transformers.T5Config(**text).to_dict(),
            audio_encoder=transformers.EncodecConfig(**encodec, num_lstm_layers=1).to_dict(),
            decoder=transformers.MusicgenDecoderConfig(**decoder).to_dict(),
        )
    )
    state = lm_names.to_theirs(lm.state_dict(), books)
    if not hasattr(model, lm_names.PROJECTION):  # states as wide as the model: theirs projects nothing
        state = {name: tensor for name, tensor in state.items() if not name.startswith(lm_names.PROJECTION)}
        nn.init.eye_(lm.text_projection.weight)
        nn.init.zeros_(lm.text_projection.bias)
    left = model.load_state_dict(state, strict=False)
    missing = [name for name in left.missing_keys if not name.startswith(("text_encoder.", "audio_encoder."))]
    missing = [name for name in missing if "embed_positions" not in name]
    if missing or left.unexpected_keys:
        raise ValueError(f"transformers' MusicGen has other weights than ours: {[*missing, *left.unexpected_keys][:4]}")
    return model.to(next(lm.parameters()).device, dtype).eval()


@torch.no_grad()
def transformers_codes(model: Any, request: Asked, processors: Sequence[Any] = ()) -> Tensor:
    """Codes [B, K, T] by their ``generate``, without the prompt's; it ends by decoding them: there they are taken."""
    torch.manual_seed(request.seed)
    batch, books, known = request.prompt.shape
    special = int(model.config.decoder.vocab_size)
    texts = request.texts.to(model.dtype)
    mask = texts.new_ones(texts.shape[:2], dtype=torch.long)
    begin = request.prompt.new_full((batch, books, 1), special)
    taken: list[Tensor] = []

    def decode(codes: Tensor, **_: Any) -> SimpleNamespace:
        taken.append(codes[0])
        return SimpleNamespace(audio_values=torch.zeros(batch, 1, 1))

    model.audio_encoder.decode = decode
    drawn = {"do_sample": False} if request.greedy else {"do_sample": True, "top_k": TOP_K, "temperature": 1.0}
    try:
        _read_once(model)
        model.generate(
            inputs=torch.zeros_like(mask),  # nobody reads them: what they say is given
            encoder_outputs=(torch.cat([texts, torch.zeros_like(texts)]),),
            attention_mask=torch.cat([mask, torch.zeros_like(mask)]),
            decoder_input_ids=torch.cat([begin, request.prompt], dim=-1).flatten(0, 1),
            num_beams=1,
            guidance_scale=GUIDANCE,
            max_length=request.num_frames + books,
            logits_processor=importlib.import_module("transformers").LogitsProcessorList(processors),
            **drawn,
            **dict.fromkeys(("pad_token_id", "bos_token_id", "decoder_start_token_id"), special),
        )
    finally:
        del model.audio_encoder.decode
        vars(model).pop("_prefill", None)
    return taken[0][..., known:]


def _read_once(model: Any) -> None:
    """Where MusicGen's ``generate`` reads the prompt, and then what it calls reads it again, leave out the first.

    transformers 5.23 does so and makes no use of it. What is compared is their work, not their slip.
    """
    own = getattr(model, "_prefill", None)
    if own is None or "_prefill" not in inspect.unwrap(type(model).generate).__code__.co_names:
        return
    first = iter([True])
    model._prefill = lambda *given, **named: None if next(first, False) else own(*given, **named)


class Stamps:
    """Notes when the logits of each step of their ``generate`` are there."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.times: list[float] = []

    def __call__(self, codes: Tensor, logits: Tensor) -> Tensor:
        """As a logits processor of theirs that changes nothing."""
        wait(self.device)
        self.times.append(time.perf_counter())
        return logits


def transformers_frame_seconds(model: Any, request: Asked, device: str) -> list[float]:
    """What each of the steps took after the first, which waits for the prompt."""
    stamps = Stamps(device)
    transformers_codes(model, request, [stamps])
    times = stamps.times[request.prompt.shape[1] - 1 :]  # from the step on with which the first frame is whole
    return [late - early for early, late in zip(times, times[1:], strict=False)]


# --- audiocraft -------------------------------------------------------------------------------------------------------


def audiocraft_lm(lm: StreamLM, dtype: torch.dtype = torch.float32) -> Any:
    """audiocraft's ``LMModel`` with our weights, its captions' states given."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        models = importlib.import_module("audiocraft.models.lm")
        patterns = importlib.import_module("audiocraft.modules.codebooks_patterns")
        conditioners = importlib.import_module("audiocraft.modules.conditioners")
        transformer = importlib.import_module("audiocraft.modules.transformer")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "audiocraft":
            raise
        raise Unavailable("audiocraft is not installed: it needs an environment of its own") from None
    transformer.set_efficient_attention_backend("torch")
    config, width = lm.config, lm.config.transformer.dim

    class Given(conditioners.TextConditioner):  # type: ignore[misc, name-defined]
        """The states as they are, through the projection that is part of the weights."""

        def __init__(self) -> None:
            super().__init__(config.text.dim, width)

        def tokenize(self, texts: Any) -> Any:
            return texts

        def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
            return self.output_proj(states), states.new_ones(states.shape[:2], dtype=torch.long)

    fuser = {"cross": ["description"], "sum": [], "prepend": [], "input_interpolate": []}
    model = models.LMModel(
        patterns.DelayedPatternProvider(config.num_codebooks),
        conditioners.ConditioningProvider({"description": Given()}),
        conditioners.ConditionFuser(fuser),
        n_q=config.num_codebooks,
        card=config.codebook_size,
        dim=width,
        num_heads=config.transformer.heads,
        num_layers=config.transformer.layers,
        cfg_coef=GUIDANCE,
        **{"hidden_scale": 4, "norm": "layer_norm", "norm_first": True, "bias_proj": False, "activation": "gelu"},
        **{"bias_ff": False, "bias_attn": False, "dropout": 0.0, "causal": True, "cross_attention": True},
        **{"custom": False, "memory_efficient": True, "positional_embedding": "sin"},
    )
    state = to_audiocraft(lm)
    own = {name.replace(".mha.", "."): name for name in model.state_dict()}
    model.load_state_dict({own[name]: tensor for name, tensor in state.items()})
    return model.to(next(lm.parameters()).device, dtype).eval()


@torch.no_grad()
def audiocraft_codes(model: Any, request: Asked) -> Tensor:
    """Codes [B, K, T] by their ``generate``, the prompt's not among them."""
    torch.manual_seed(request.seed)
    attributes = importlib.import_module("audiocraft.modules.conditioners").ConditioningAttributes
    projection = model.condition_provider.conditioners["description"].output_proj
    states = projection(request.texts.to(projection.weight.dtype))
    mask = states.new_ones(states.shape[:2], dtype=torch.long)
    both = torch.cat([states, torch.zeros_like(states)]), torch.cat([mask, torch.zeros_like(mask)])
    provider = model.condition_provider
    provider.tokenize, provider.forward = lambda conditions: {}, lambda tokenized: {"description": both}
    try:
        made: Tensor = model.generate(
            request.prompt if request.prompt.shape[-1] else None,
            [attributes(text={"description": "-"}) for _ in request.texts],
            max_gen_len=request.num_frames,
            use_sampling=not request.greedy,
            top_k=min(TOP_K, model.card),
            cfg_coef=GUIDANCE,
        )
    finally:
        del provider.tokenize, provider.forward
    return made[..., request.prompt.shape[-1] :]
