"""Folders in audiocraft's layout, made by hand, and the models that they are made of."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.official import encodec
from audiolm_kit.transformer import TransformerConfig

K, V, D, LAYERS, E = 4, 16, 16, 2, 512
SETTINGS: dict[str, Any] = {
    "solver": "audiogen",
    "sizes": {"dim": D},
    "lm_model": "transformer_lm",
    "dataset": {"segment_duration": 10},
    "transformer_lm": {
        **{"dim": "${sizes.dim}", "num_heads": 2, "num_layers": LAYERS, "n_q": K, "card": V, "hidden_scale": 4},
        **{"norm_first": True, "bias_proj": False, "bias_ff": False, "bias_attn": False, "causal": True},
        **{"activation": "gelu", "dropout": 0.0, "memory_efficient": True, "layer_scale": None, "past_context": None},
        **{"positional_embedding": "sin", "norm": "layer_norm", "weight_init": "gaussian", "spectral_norm": False},
    },
    "codebooks_pattern": {"modeling": "delay", "delay": {"delays": [0, 1, 2, 3], "flatten_first": 0}},
    "classifier_free_guidance": {"training_dropout": 0.1, "inference_coef": 3.0},
    "fuser": {"cross": ["description"], "sum": [], "prepend": [], "input_interpolate": []},
    "conditioners": {
        "args": {"merge_text_conditions_p": 0.25},
        "description": {"model": "t5", "t5": {"name": "t5-small", "finetune": False, "word_dropout": 0.3}},
    },
    "interleave_stereo_codebooks": {"use": False, "per_timestep": False},
}


def a_codec(**options: Any) -> NeuralCodec:
    body = SEANetConfig(ratios=(4, 2), filters=4, dim=8, lstm=1, causal=False, pad_mode="constant", shortcut="identity")
    quantizer = QuantizerConfig(num_codebooks=K, codebook_size=V, dim=8)
    torch.manual_seed(1)
    config = CodecConfig(sample_rate=400, body="seanet", seanet=body, quantizer=quantizer)
    return NeuralCodec(replace(config, **options)).eval()


def an_lm(**options: Any) -> StreamLM:
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=D, heads=2, layers=LAYERS, cross_attention=True)
    text = TextConfig(kind="t5", dim=E, name="t5-small")
    config = LMConfig(num_codebooks=K, codebook_size=V, transformer=transformer, text=text)
    return StreamLM(replace(config, **options)).eval()


def renamed(lm: StreamLM) -> dict[str, Tensor]:
    """The weights as audiocraft calls them, by hand."""
    ours, out = lm.state_dict(), {}
    books, width = lm.config.num_codebooks, lm.config.codebook_size
    for k in range(books):
        out[f"emb.{k}.weight"] = ours["embedding.weight"][k * (width + 1) : (k + 1) * (width + 1)].clone()
        out[f"linears.{k}.weight"] = ours["heads.weight"][k * width : (k + 1) * width].clone()
    for part in ("weight", "bias"):
        out[f"out_norm.{part}"] = ours[f"transformer.norm.{part}"]
        name = "condition_provider.conditioners.description.output_proj"
        out[f"{name}.{part}"] = ours[f"text_projection.{part}"]
    for i in range(lm.config.transformer.layers):
        at = f"transformer.layers.{i}"
        out[f"{at}.self_attn.in_proj_weight"] = ours[f"{at}.attention.query_key_value.weight"]
        out[f"{at}.self_attn.out_proj.weight"] = ours[f"{at}.attention.output.weight"]
        fused = [ours[f"{at}.cross_attention.{name}.weight"] for name in ("query", "key_value")]
        out[f"{at}.cross_attention.in_proj_weight"] = torch.cat(fused)
        out[f"{at}.cross_attention.out_proj.weight"] = ours[f"{at}.cross_attention.output.weight"]
        out[f"{at}.linear1.weight"] = ours[f"{at}.feed_forward.up.weight"]
        out[f"{at}.linear2.weight"] = ours[f"{at}.feed_forward.down.weight"]
        norms = {"norm1": "attention_norm", "norm_cross": "cross_attention_norm", "norm2": "feed_forward_norm"}
        for theirs, name in norms.items():
            for part in ("weight", "bias"):
                out[f"{at}.{theirs}.{part}"] = ours[f"{at}.{name}.{part}"]
    return out


def changed(**sections: Any) -> dict[str, Any]:
    """The settings with others laid over them, section by section."""
    settings = copy.deepcopy(SETTINGS)
    for name, value in sections.items():
        settings[name] = {**settings.get(name, {}), **value} if isinstance(value, dict) else value
    return settings


def exported(state: Any, settings: Any, **rest: Any) -> dict[str, Any]:
    text = yaml.safe_dump(settings) if isinstance(settings, dict) else settings
    return {"best_state": state, "xp.cfg": text, **rest}


def written(folder: Path, settings: Any = SETTINGS, state: Any = None, codec: Any = None) -> Path:
    """A folder as audiocraft exports it."""
    folder.mkdir(exist_ok=True)
    marks = {"version": "1.3.0", "exported": True}
    torch.save(exported(renamed(an_lm()) if state is None else state, settings, **marks), folder / "state_dict.bin")
    if codec is None:
        config, weights = encodec.to_audiocraft(a_codec())
        codec = exported(weights, config, **marks)
    torch.save(codec, folder / "compression_state_dict.bin")
    return folder


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
