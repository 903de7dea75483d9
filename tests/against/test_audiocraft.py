"""Folders of audiocraft against audiocraft itself: the same logits, greedy codes and sound, read and written.

audiocraft pins an old torch, so this runs in an environment of its own, with our package in it (``pip install --no-deps
-e .``); its models are built from the settings of the published ones, small and with random weights.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from audiolm_kit.conditioning import FrozenT5
from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.official.audiocraft import read_audiocraft, write_audiocraft
from audiolm_kit.official.parts import Parts

pytest.importorskip("audiocraft", reason="audiocraft is not installed: it needs an environment of its own")

K, V, D, LAYERS, E = 4, 32, 32, 2, 512
CAPTIONS = ["a dog barks twice in heavy rain", "a bell", ""]
TOLERANCE = {"rtol": 0, "atol": 1e-4}
STEREO = {"num_codebooks": 8, "pattern": {"modeling": "delay", "delay": {"delays": [0, 0, 1, 1, 2, 2, 3, 3]}}}
PATTERNS = {
    "delay": {"modeling": "delay", "delay": {"delays": [0, 1, 2, 3], "flatten_first": 0, "empty_initial": 0}},
    "late": {"modeling": "delay", "delay": {"delays": [0, 1, 1, 3]}},
    "parallel": {"modeling": "parallel"},
    "unroll": {"modeling": "unroll", "unroll": {"flattening": [0, 1, 2, 3], "delays": [0, 0, 0, 0]}},
}


def lm_settings(pattern: dict[str, Any], num_codebooks: int = K, **transformer: Any) -> dict[str, Any]:
    """What ``config/model/lm/audiogen_lm.yaml`` and ``conditioner/text2sound.yaml`` of audiocraft come to."""
    t5 = {"name": "t5-small", "finetune": False, "word_dropout": 0.0, "normalize_text": False}
    stereo = num_codebooks == 2 * K
    return {
        "device": "cpu",
        "dtype": "float32",
        "dataset": {"segment_duration": 10},
        "lm_model": "transformer_lm",
        "codebooks_pattern": pattern,
        "transformer_lm": {
            **{"dim": D, "num_heads": 2, "num_layers": LAYERS, "hidden_scale": 4, "n_q": num_codebooks, "card": V},
            **{"dropout": 0.0, "emb_lr": None, "activation": "gelu", "norm_first": True, "norm": "layer_norm"},
            **{"bias_ff": False, "bias_attn": False, "bias_proj": False, "past_context": None, "causal": True},
            **{"custom": False, "memory_efficient": True, "attention_as_float32": False, "layer_scale": None},
            **{"positional_embedding": "sin", "xpos": False, "checkpointing": "none", "weight_init": "gaussian"},
            **{"depthwise_init": "current", "zero_bias_init": True, "cross_attention": False, "kv_repeat": 1},
            **{"qk_layer_norm": False, "qk_layer_norm_cross": False, "attention_dropout": None, "two_step_cfg": False},
            **transformer,
        },
        "classifier_free_guidance": {"training_dropout": 0.1, "inference_coef": 3.0},
        "attribute_dropout": {},
        "fuser": {
            **{"cross_attention_pos_emb": False, "cross_attention_pos_emb_scale": 1, "sum": [], "prepend": []},
            **{"cross": ["description"], "input_interpolate": []},
        },
        "conditioners": {"description": {"model": "t5", "t5": t5}},
        "interleave_stereo_codebooks": {"use": stereo, "per_timestep": False},
        "compression_model_n_q": None,
    }


CODEC_SETTINGS: dict[str, Any] = {
    "device": "cpu",
    "sample_rate": 800,
    "channels": 1,
    "compression_model": "encodec",
    "encodec": {
        **{"autoencoder": "seanet", "quantizer": "rvq", "sample_rate": "${sample_rate}", "channels": "${channels}"},
        **{"causal": False, "renormalize": False},
    },
    "seanet": {
        **{"dimension": 16, "channels": "${channels}", "causal": "${encodec.causal}", "n_filters": 4},
        **{"n_residual_layers": 1, "ratios": [4, 2], "activation": "ELU", "activation_params": {"alpha": 1.0}},
        **{"norm": "weight_norm", "norm_params": {}, "kernel_size": 7, "residual_kernel_size": 3},
        **{"last_kernel_size": 7, "dilation_base": 2, "pad_mode": "constant", "true_skip": True, "compress": 2},
        **{"lstm": 2, "disable_norm_outer_blocks": 0, "encoder": {}},
        "decoder": {"trim_right_ratio": 1.0, "final_activation": None, "final_activation_params": None},
    },
    "rvq": {
        **{"n_q": K, "q_dropout": False, "bins": V, "decay": 0.99, "kmeans_init": True, "kmeans_iters": 50},
        **{"threshold_ema_dead_code": 2, "orthogonal_reg_weight": 0.0, "orthogonal_reg_active_codes_only": False},
    },
    "no_quant": {},
}


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a T5 encoder as wide as t5-small, of one layer and random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("t5")
    words = ["<pad>", "</s>", "<unk>", *sorted({word for text in CAPTIONS for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    T5EncoderModel(T5Config(vocab_size=20, d_model=E, d_kv=4, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module", autouse=True)
def their_t5(t5: Path) -> Iterator[None]:
    """audiocraft opens a T5 by name alone, from the hub; here it finds ours."""
    from audiocraft.modules import conditioners
    from transformers import AutoTokenizer, T5EncoderModel

    class Found:
        def __init__(self, kind: Any) -> None:
            self.kind = kind

        def from_pretrained(self, name: str) -> Any:
            assert name == "t5-small"
            return self.kind.from_pretrained(t5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditioners, "T5Tokenizer", Found(AutoTokenizer))
        patch.setattr(conditioners, "T5EncoderModel", Found(T5EncoderModel))
        yield


def built(settings: dict[str, Any]) -> Any:
    """audiocraft's own language model, of weights large enough to matter."""
    from audiocraft.models import builders
    from omegaconf import OmegaConf

    torch.manual_seed(1)
    model = builders.get_lm_model(OmegaConf.create(settings))
    for weight in model.parameters():
        nn.init.normal_(weight, mean=float(weight.dim() == 1), std=0.3)
    return model.eval()


@functools.cache
def codec() -> Any:
    """audiocraft's own codec, with random entries that are as large as its latents."""
    from audiocraft.models import builders
    from omegaconf import OmegaConf

    torch.manual_seed(2)
    model = builders.get_compression_model(OmegaConf.create(CODEC_SETTINGS))
    with torch.no_grad():
        latents = model.encoder(torch.randn(1, 1, 1600))
    for name, buffer in model.named_buffers():
        if name.endswith(("embed", "embed_avg")):
            nn.init.normal_(buffer, std=float(latents.std(dim=-1).mean()))
            if ".0._codebook" in name:
                buffer += latents.mean(dim=(0, 2))
        if name.endswith("inited"):
            buffer.fill_(1)
    return model.eval()


def trained(model: nn.Module, settings: dict[str, Any], path: Path, gathered: bool = False) -> None:
    """A checkpoint as audiocraft's trainings write it: settings as OmegaConf's objects, weights among much else."""
    from omegaconf import OmegaConf

    state = {"model": model.state_dict()}
    content = {
        **{"xp.cfg": OmegaConf.create(settings), "xp.sig": "bd44a852", "history": [{"train": {"ce": 1.5}}]},
        **{"best_state": {} if gathered else state, "fsdp_best_state": state if gathered else {}},
        **{"model": {}, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    }
    torch.save(content, path)


def exported(folder: Path, model: nn.Module, settings: dict[str, Any], gathered: bool = False) -> Path:
    """A folder that ``audiocraft.utils.export`` has written."""
    from audiocraft.utils import export

    trained(model, settings, folder / "lm.th", gathered)
    trained(codec(), CODEC_SETTINGS, folder / "codec.th")
    with pytest.MonkeyPatch.context() as patch:  # it is older than torch's refusal to run what stands in a pickle
        patch.setattr(torch, "load", functools.partial(torch.load, weights_only=False))
        export.export_lm(folder / "lm.th", folder / "made" / "state_dict.bin")
        export.export_encodec(folder / "codec.th", folder / "made" / "compression_state_dict.bin")
    return folder / "made"


def attributes(captions: list[str]) -> list[Any]:
    from audiocraft.modules.conditioners import ConditioningAttributes

    return [ConditioningAttributes(text={"description": caption or None}) for caption in captions]


def their_logits(model: Any, codes: Tensor, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Logits ``[B, K, T, V]`` and where they are any, ``[B, K, T]``."""
    with torch.no_grad():
        out = model.compute_predictions(codes, attributes(captions))
    return out.logits, out.mask


def our_logits(lm: StreamLM, codes: Tensor, captions: list[str], t5: Path) -> Tensor:
    with torch.no_grad():
        return lm(codes, lm.condition(FrozenT5(str(t5), E)(captions)))


def close(lm: StreamLM, model: Any, captions: list[str], t5: Path) -> None:
    codes = torch.randint(V, (len(captions), lm.config.num_codebooks, 12), generator=torch.Generator().manual_seed(3))
    expected, mask = their_logits(model, codes, captions)
    found = our_logits(lm, codes, captions, t5)
    assert float(expected[mask].std()) > 0.5 and float(mask.float().mean()) > 0.5
    torch.testing.assert_close(found[mask], expected[mask], **TOLERANCE)


def both_continue(lm: StreamLM, model: Any, captions: list[str], t5: Path, frames: int = 200) -> tuple[Tensor, Tensor]:
    """The same prompt continued greedily under guidance, by us and by them."""
    shape = (len(captions), lm.config.num_codebooks, 5)
    prompt = torch.randint(V, shape, generator=torch.Generator().manual_seed(4))
    theirs = model.generate(prompt, attributes(captions), max_gen_len=frames, use_sampling=False, cfg_coef=3.0)
    context = lm.condition(FrozenT5(str(t5), E)(captions))
    with torch.no_grad():
        ours = generate(lm, prompt, frames, Sampling(temperature=0, guidance_scale=3.0), context)
    assert len(ours[:, :, 5:].unique()) > 8
    return ours, theirs


@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_logits_are_equal_in_every_pattern(tmp_path: Path, t5: Path, pattern: str) -> None:
    settings = lm_settings(PATTERNS[pattern])
    model = built(settings)
    lm = read_audiocraft(exported(tmp_path, model, settings)).lm
    for caption in CAPTIONS:
        close(lm, model, [caption], t5)


@pytest.mark.parametrize("options", [{"memory_efficient": False, "custom": True}, {"memory_efficient": False}])
def test_logits_are_equal_whichever_attention_they_use(tmp_path: Path, t5: Path, options: dict[str, Any]) -> None:
    settings = lm_settings(PATTERNS["delay"], **options)
    model = built(settings)
    close(read_audiocraft(exported(tmp_path, model, settings)).lm, model, CAPTIONS[:1], t5)


@pytest.mark.parametrize("stereo", [False, True])
def test_prompted_greedy_guided_codes_are_identical(tmp_path: Path, t5: Path, stereo: bool) -> None:
    settings = lm_settings(STEREO["pattern"], 8) if stereo else lm_settings(PATTERNS["delay"])
    model = built(settings)
    parts = read_audiocraft(exported(tmp_path, model, settings))
    assert parts.codec.channels == (2 if stereo else 1)
    close(parts.lm, model, CAPTIONS[:1], t5)
    ours, theirs = both_continue(parts.lm, model, CAPTIONS[:1], t5)
    assert ours.shape[-1] == 200
    assert torch.equal(ours, theirs)


def test_a_batch_of_unequal_captions_is_theirs_with_the_switch_and_ours_without(tmp_path: Path, t5: Path) -> None:
    settings = lm_settings(PATTERNS["delay"])
    model = built(settings)
    folder = exported(tmp_path, model, settings)
    attending = read_audiocraft(folder, attend_padding=True).lm
    close(attending, model, CAPTIONS, t5)
    ours, theirs = both_continue(attending, model, CAPTIONS, t5)
    assert torch.equal(ours, theirs)
    masked = read_audiocraft(folder).lm
    codes = torch.randint(V, (3, K, 12), generator=torch.Generator().manual_seed(3))
    together, alone = our_logits(masked, codes, CAPTIONS, t5)[1], our_logits(masked, codes[1:2], CAPTIONS[1:2], t5)[0]
    torch.testing.assert_close(together, alone, **TOLERANCE)
    beside, mask = their_logits(model, codes, CAPTIONS)
    assert float((beside[1] - together)[mask[1]].abs().max()) > 0.01


@pytest.mark.parametrize("gathered", [False, True])
def test_a_trainings_own_checkpoint_opens_without_running_anything(tmp_path: Path, t5: Path, gathered: bool) -> None:
    settings = lm_settings(PATTERNS["delay"])
    model = built(settings)
    trained(model, settings, tmp_path / "checkpoint.th", gathered)
    folder = exported(tmp_path, model, settings, gathered)
    (tmp_path / "compression_state_dict.bin").write_bytes((folder / "compression_state_dict.bin").read_bytes())
    close(read_audiocraft(tmp_path).lm, model, CAPTIONS[:1], t5)
    close(read_audiocraft(folder).lm, model, CAPTIONS[:1], t5)


@pytest.mark.parametrize("stereo", [False, True])
def test_the_codec_gives_their_codes_and_their_sound(tmp_path: Path, stereo: bool) -> None:
    from audiocraft.models.encodec import InterleaveStereoCompressionModel

    settings = lm_settings(STEREO["pattern"], 8) if stereo else lm_settings(PATTERNS["delay"])
    ours = read_audiocraft(exported(tmp_path, built(settings), settings)).codec
    theirs = InterleaveStereoCompressionModel(codec()) if stereo else codec()
    sound = torch.randn(2, 2 if stereo else 1, 1600, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        codes, scale = theirs.encode(sound)
        expected = theirs.decode(codes, scale)
    assert len(codes.unique()) > 8
    assert torch.equal(ours.encode(sound), codes)
    torch.testing.assert_close(ours.decode(codes), expected, **TOLERANCE)


@pytest.mark.parametrize("stereo", [False, True])
def test_what_we_write_opens_in_audiocraft_and_is_the_same(tmp_path: Path, t5: Path, stereo: bool) -> None:
    from audiocraft.models import AudioGen, MusicGen

    settings = lm_settings(STEREO["pattern"], 8) if stereo else lm_settings(PATTERNS["delay"])
    parts = read_audiocraft(exported(tmp_path, built(settings), settings), attend_padding=True)
    write_audiocraft(parts, tmp_path / "out")
    model = AudioGen.get_pretrained(str(tmp_path / "out"), device="cpu")
    assert (model.sample_rate, model.audio_channels) == (parts.codec.sample_rate, parts.codec.channels)
    close(parts.lm, model.lm, CAPTIONS, t5)
    ours, theirs = both_continue(parts.lm, model.lm, CAPTIONS, t5)
    assert torch.equal(ours, theirs)
    model.set_generation_params(use_sampling=False, duration=0.2)
    sound, codes = model.generate(CAPTIONS[:1], return_tokens=True)
    torch.testing.assert_close(parts.codec.decode(codes), sound, **TOLERANCE)
    assert MusicGen.get_pretrained(str(tmp_path / "out"), device="cpu").max_duration == 30


@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_import_then_export_gives_their_tensors(tmp_path: Path, pattern: str) -> None:
    from audiocraft.models import loaders

    settings = lm_settings(PATTERNS[pattern])
    model = built(settings)
    parts: Parts = read_audiocraft(exported(tmp_path, model, settings))
    write_audiocraft(parts, tmp_path / "out")
    pairs = [
        (model, loaders.load_lm_model(str(tmp_path / "out"))),
        (codec(), loaders.load_compression_model(str(tmp_path / "out"))),
    ]
    for before, after in pairs:
        left, right = before.state_dict(), after.state_dict()
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
    assert pairs[0][1].pattern_provider.get_pattern(9).layout == model.pattern_provider.get_pattern(9).layout
