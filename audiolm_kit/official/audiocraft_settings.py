"""The settings of audiocraft's language models (``xp.cfg``) <-> our LMConfig: refused by name where we cannot follow.

E is the width of the text states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from audiolm_kit.conditioning import TextConfig
from audiolm_kit.lm.model import LMConfig
from audiolm_kit.lm.pattern import PatternName
from audiolm_kit.transformer import TransformerConfig


class Option(NamedTuple):
    """A setting of ``transformer_lm`` on which our transformer has no choice."""

    ours: Any
    silent: Any
    """What audiocraft takes where the settings do not say."""


FIXED = {
    "activation": Option("gelu", "relu"),
    "bias_attn": Option(False, True),
    "bias_ff": Option(False, True),
    "bias_proj": Option(False, True),
    "causal": Option(True, False),
    "kv_repeat": Option(1, 1),
    "layer_scale": Option(None, None),
    "max_period": Option(10000, 10000),
    "norm": Option("layer_norm", "layer_norm"),
    "norm_first": Option(True, False),
    "past_context": Option(None, None),
    "positional_embedding": Option("sin", "sin"),
    "positional_scale": Option(1, 1),
    "qk_layer_norm": Option(False, False),
    "qk_layer_norm_cross": Option(False, False),
    "two_step_cfg": Option(False, False),
    "xpos": Option(False, False),
}
SIZES = {"n_q": 8, "card": 1024, "dim": 128, "num_heads": 8, "num_layers": None, "hidden_scale": 4}
"""What we read, with what audiocraft takes where the settings do not say."""
FREE = frozenset(
    "attention_as_float32 attention_dropout checkpointing cross_attention custom depthwise_init device dropout dtype "
    "emb_lr lr memory_efficient q_modeling weight_decay weight_init zero_bias_init".split()
)
"""How it is trained and how fast it is: not what it computes, or read elsewhere."""
T5_WIDTHS = {
    "t5-small": 512,
    "t5-base": 768,
    "t5-large": 1024,
    "t5-3b": 1024,
    "t5-11b": 1024,
    "google/flan-t5-small": 512,
    "google/flan-t5-base": 768,
    "google/flan-t5-large": 1024,
}
"""The text encoders that audiocraft opens, and E of each."""


def lm_config(settings: Mapping[str, Any], text_width: int, attend_padding: bool = False) -> LMConfig:
    """The options under which our ``StreamLM`` is the same network as audiocraft's.

    Args:
        settings: Their ``xp.cfg`` as plain dicts and lists, without interpolations.
        text_width: E, which they know by the name of the T5 alone; 0 where there is no text.
        attend_padding: As ``TransformerConfig`` has it.

    Raises:
        ValueError: the model computes something that ours does not; the setting is named.
    """
    if settings.get("lm_model") != "transformer_lm":
        raise _no("lm_model", settings.get("lm_model"), "transformer_lm")
    sizes = _sizes(_section(settings, "transformer_lm"))
    text = text_config(settings, text_width)
    pattern, offsets = _pattern(settings, sizes["n_q"])
    transformer = TransformerConfig(
        dim=sizes["dim"],
        heads=sizes["num_heads"],
        layers=sizes["num_layers"],
        feed_forward=sizes["hidden_scale"],
        dropout=float(_section(settings, "transformer_lm").get("dropout", 0.1)),
        cross_attention=text.kind != "none",
        attend_padding=attend_padding,
    )
    return LMConfig(
        num_codebooks=sizes["n_q"],
        codebook_size=sizes["card"],
        pattern=pattern,
        transformer=transformer,
        text=text,
        offsets=offsets,
    )


def _sizes(options: Mapping[str, Any]) -> dict[str, int]:
    """All whole numbers of ``transformer_lm``, the rest checked to be as ours."""
    for name, option in FIXED.items():
        if (found := options.get(name, option.silent)) != option.ours:
            raise _no(f"transformer_lm.{name}", found, option.ours)
    unknown = [name for name in options if name not in {*FIXED, *SIZES, *FREE}]
    for name in unknown:
        if options[name] not in (None, False):  # switched off, it changes nothing
            raise _no(f"transformer_lm.{name}", options[name], "no such setting")
    sizes = {}
    for name, silent in SIZES.items():
        found = options.get(name, silent)
        if not isinstance(found, (int, float)) or found != int(found) or found < 1:
            raise _no(f"transformer_lm.{name}", found, "a whole number")
        sizes[name] = int(found)
    return sizes


def text_config(settings: Mapping[str, Any], width: int) -> TextConfig:
    """How captions are read: by the T5 that the settings name, or not at all.

    Raises:
        ValueError: there is another conditioner, or captions do not come in by cross-attention alone.
    """
    conditioners = {name: each for name, each in _section(settings, "conditioners").items() if name != "args"}
    if "self_wav" in conditioners:
        raise ValueError("conditioners.self_wav: models that hear a melody or a style are not supported")
    fuser = _section(settings, "fuser")
    for way in ("sum", "prepend", "input_interpolate"):
        if fuser.get(way):
            raise _no(f"fuser.{way}", fuser[way], [])
    if fuser.get("cross_attention_pos_emb"):
        raise _no("fuser.cross_attention_pos_emb", fuser["cross_attention_pos_emb"], False)
    crossing = list(fuser.get("cross") or [])
    if crossing != list(conditioners) or crossing not in ([], ["description"]):
        raise _no("fuser.cross", f"{crossing} of conditioners {list(conditioners)}", ["description"])
    if not crossing:
        if _section(settings, "transformer_lm").get("cross_attention"):
            raise _no("transformer_lm.cross_attention", True, "false where there is no text")
        return TextConfig()
    return _t5_config(conditioners["description"], width)


def _t5_config(conditioner: Any, width: int) -> TextConfig:
    where = "conditioners.description"
    if not isinstance(conditioner, Mapping) or conditioner.get("model") != "t5":
        found = conditioner.get("model") if isinstance(conditioner, Mapping) else conditioner
        raise _no(f"{where}.model", found, "t5")
    options = _section(conditioner, "t5")
    for name in ("finetune", "normalize_text"):
        if options.get(name):
            raise _no(f"{where}.t5.{name}", options[name], False)
    t5 = options.get("name")
    if not isinstance(t5, str) or not t5:
        raise _no(f"{where}.t5.name", t5, "the name of a T5")
    if width < 1:
        raise ValueError(f"{where} is a T5, but the weights hold no projection of its states: is the file whole?")
    return TextConfig(kind="t5", dim=width, name=t5)


def _pattern(settings: Mapping[str, Any], num_codebooks: int) -> tuple[PatternName, tuple[int, ...]]:
    """The pattern's name with us, and its offsets where they are not its own."""
    patterns = _section(settings, "codebooks_pattern")
    name = patterns.get("modeling")
    options = {} if name is None else _section(patterns, str(name), "codebooks_pattern.")
    if name is None:  # as the first models said it
        name = _section(settings, "transformer_lm").get("q_modeling")
    in_order, where = list(range(num_codebooks)), f"codebooks_pattern.{name}"
    for option in ("flatten_first", "empty_initial"):
        if options.get(option) and name in ("delay", "parallel"):
            raise _no(f"{where}.{option}", options[option], 0)
    if name == "parallel":
        return "parallel", ()
    if name == "delay":
        delays = options.get("delays") or in_order
        if not isinstance(delays, list) or len(delays) != num_codebooks or not all(type(d) is int for d in delays):
            raise _no(f"{where}.delays", delays, f"{num_codebooks} whole numbers")
        return "delay", () if delays == in_order else tuple(delays)
    if name != "unroll":
        raise _no("codebooks_pattern.modeling", name, "delay, parallel or unroll")
    for option, ours in (("flattening", in_order), ("delays", [0] * num_codebooks)):
        if (found := options.get(option) or ours) != ours:
            raise _no(f"{where}.{option}", found, ours)
    return "flatten", ()


def _section(settings: Mapping[str, Any], name: str, above: str = "") -> Mapping[str, Any]:
    """A group of settings; an empty one where it is null or not there."""
    section = settings.get(name)
    if section is not None and not isinstance(section, Mapping):
        raise _no(above + name, section, "a group of settings")
    return section or {}


def _no(name: str, found: Any, ours: Any) -> ValueError:
    return ValueError(f"{name} is {found!r}, and only {ours!r} is supported: this model cannot be taken over")


@dataclass(frozen=True)
class Frame:
    """What a language model's settings say beside the model itself."""

    sample_rate: int
    stereo: bool
    """Left's and right's codebooks by turns."""
    t5: str
    """One of ``T5_WIDTHS``; empty without text."""
    seconds: float
    """The longest that audiocraft makes at once."""


def lm_settings(config: LMConfig, frame: Frame) -> dict[str, Any]:
    """The ``xp.cfg`` from which audiocraft builds the same model.

    Raises:
        ValueError: audiocraft has no such model.
    """
    _check_writable(config, frame)
    described = ["description"] if frame.t5 else []
    t5 = {"name": frame.t5, "finetune": False, "word_dropout": 0.0, "normalize_text": False}
    sizes = {
        "n_q": config.num_codebooks,
        "card": config.codebook_size,
        "dim": config.transformer.dim,
        "num_heads": config.transformer.heads,
        "num_layers": config.transformer.layers,
        "hidden_scale": config.transformer.feed_forward,
    }
    training = {"dropout": config.transformer.dropout, "cross_attention": bool(described), "memory_efficient": True}
    return {
        "solver": "audiogen",
        "device": "cpu",
        "dtype": "float32",
        "sample_rate": frame.sample_rate,
        "channels": 2 if frame.stereo else 1,
        "compression_model_n_q": None,
        "interleave_stereo_codebooks": {"use": frame.stereo, "per_timestep": False},
        "dataset": {"segment_duration": frame.seconds},
        "lm_model": "transformer_lm",
        "codebooks_pattern": _pattern_settings(config),
        "transformer_lm": {**sizes, **training, **{name: option.ours for name, option in FIXED.items()}},
        "classifier_free_guidance": {"training_dropout": 0.1, "inference_coef": 3.0},
        "attribute_dropout": {},
        "fuser": {"cross": described, "sum": [], "prepend": [], "input_interpolate": []},
        "conditioners": {"description": {"model": "t5", "t5": t5}} if described else {},
    }


def _pattern_settings(config: LMConfig) -> dict[str, Any]:
    if config.pattern == "parallel":
        return {"modeling": "parallel"}
    in_order = list(range(config.num_codebooks))
    if config.pattern == "flatten":
        return {"modeling": "unroll", "unroll": {"flattening": in_order, "delays": [0] * len(in_order)}}
    return {"modeling": "delay", "delay": {"delays": list(config.offsets) or in_order}}


def _check_writable(config: LMConfig, frame: Frame) -> None:
    """Refuse what audiocraft cannot compute."""
    text, transformer = config.text, config.transformer
    if config.prefix.num_codebooks:
        raise ValueError("the model stands on a prefix of an earlier stage, which audiocraft has none of: keep it ours")
    if transformer.positions != "sinusoidal":
        raise ValueError(f"audiocraft's models have sinusoidal positions, this one has {transformer.positions}")
    if list(config.offsets) != sorted(config.offsets):
        raise ValueError(f"audiocraft takes delays in rising order alone, these are {config.offsets}")
    if text.kind not in ("none", "t5"):
        raise ValueError(f"audiocraft reads captions by a T5, this model's text kind is {text.kind!r}: keep it ours")
    if text.clean:
        raise ValueError("the model reads cleaned captions (text clean is true), and audiocraft does not clean them so")
    if transformer.cross_attention != (text.kind == "t5"):
        raise ValueError("the model has cross-attention and no text, which audiocraft cannot compute: keep it ours")
    if frame.t5 and text.dim != T5_WIDTHS[frame.t5]:
        raise ValueError(f"the model reads text states {text.dim} wide, {frame.t5}'s are {T5_WIDTHS[frame.t5]}")
