"""docs/weights.md keeps its word: its commands and its Python run in their order, on small models of the real classes.

Folders of the names that the page gives stand in the place of what lies on the hub.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pages import ROOT, page
from torch import nn

from audiolm_kit import audio, checkpoint, hub
from audiolm_kit.cli import VERBS, main
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.codec.seanet import SEANetConfig
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.lm.adapters import Adapters, save_adapters
from audiolm_kit.lm.lora import LoRAConfig, add, trained_weights
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.official.audiocraft import write_audiocraft
from audiolm_kit.official.musicgen import write_musicgen
from audiolm_kit.official.parts import Parts
from audiolm_kit.transformer import TransformerConfig

PAGE = page("docs/weights.md")
K, V, RATE = 4, 16, 800  # codebooks, their size, and the sample rate; 50 frames a second
WORDS = ["<pad>", "</s>", "<unk>", "a", "slow", "waltz", "on", "an", "old", "piano"]
SMALL: dict[str, Any] = {"codebook_size": V, "codebook_dim": 4, "sampling_rate": RATE}


KIT = PAGE.kit()


class Done(NamedTuple):
    """What a command has come to."""

    code: int
    told: str


class Worked(NamedTuple):
    """All that was done."""

    done: list[Done]
    """Of each command in its order."""
    uploaded: list[tuple[Any, ...]]


# --- sources ----------------------------------------------------------------------------------------------------------


def save_t5(folder: Path, width: int) -> Path:
    """A T5 of one layer with its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {"vocab_size": len(WORDS), "d_model": width, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    T5EncoderModel(T5Config(**sizes)).save_pretrained(folder)
    return folder


def with_books(model: nn.Module) -> nn.Module:
    """Codebooks are zeros before they learn."""
    for name, tensor in [*model.named_buffers(), *model.named_parameters()]:
        if name.endswith(("embed", "embed_sum", "codebook.weight")):
            nn.init.normal_(tensor, std=0.1)
    return model.eval()


def a_codec(stereo: bool = False) -> NeuralCodec:
    """EnCodec as audiocraft trains it."""
    body = SEANetConfig(ratios=(4, 4), filters=2, dim=4, lstm=1, causal=False, shortcut="identity", pad_mode="constant")
    channels: dict[str, Any] = {"channels": 2, "split_channels": True} if stereo else {}
    config = CodecConfig(RATE, body="seanet", seanet=body, quantizer=QuantizerConfig(K, V, 4), **channels)
    codec = with_books(NeuralCodec(config))
    assert isinstance(codec, NeuralCodec)
    return codec


def some_parts(t5: str, width: int, stereo: bool = False) -> Parts:
    """A model with its codec."""
    transformer = TransformerConfig(dim=8, heads=2, layers=1, cross_attention=True)
    books, offsets = (2 * K, (0, 0, 1, 1, 2, 2, 3, 3)) if stereo else (K, ())
    text = TextConfig(kind="t5", dim=width, name=t5)
    lm = StreamLM(LMConfig(books, V, transformer=transformer, text=text, offsets=offsets)).eval()
    return Parts(a_codec(stereo), lm, None)


def save_sources() -> None:
    """What the page names, small, with random weights, here."""
    torch.manual_seed(0)
    base, large = save_t5(Path("t5"), 768), save_t5(Path("downloads/t5-large"), 1024)
    for name, stereo in (("small", False), ("stereo-small", True)):
        write_musicgen(some_parts(str(base), 768, stereo), Path("facebook") / f"musicgen-{name}")
    write_audiocraft(some_parts("t5-large", 1024), Path("facebook/audiogen-medium"))
    shutil.copytree("facebook/audiogen-medium", "downloads/audiogen-medium")
    write_audiocraft(some_parts("t5-base", 768), Path("downloads/musicgen-small"))
    shutil.copytree("downloads/musicgen-small", "xps/bd44a852")
    Path("xps/bd44a852/state_dict.bin").rename("xps/bd44a852/checkpoint.th")
    Path("xps/bd44a852/compression_state_dict.bin").unlink()
    pointer = {"pretrained": "facebook/encodec_32khz"}
    torch.save(pointer, "downloads/musicgen-small/compression_state_dict.bin")
    assert large.is_dir()
    save_codecs()
    save_meta()


def save_codecs() -> None:
    """Codecs of transformers."""
    import transformers

    encodec = {**SMALL, "hidden_size": 4, "num_filters": 2, "upsampling_ratios": [4, 4], "num_lstm_layers": 1}
    rate = K * 4 * 50 / 1000  # kbit/s of all codebooks
    segments = {"audio_channels": 2, "normalize": True, "chunk_length_s": 0.5, "overlap": 0.02}
    both_ways = {"norm_type": "time_group_norm", "use_causal_conv": False}
    mimi = {
        **{**SMALL, "num_quantizers": 10, "vector_quantization_hidden_dimension": 4, "hidden_size": 8},
        **{"num_filters": 2, "upsampling_ratios": [4, 2], "upsample_groups": 8, "num_hidden_layers": 1},
        **{"intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": 6},
    }
    dac = {**SMALL, "n_codebooks": 9, "encoder_hidden_size": 4, "decoder_hidden_size": 16}
    made = {
        "facebook/encodec_32khz": transformers.EncodecModel(
            transformers.EncodecConfig(**encodec, target_bandwidths=[rate])
        ),
        "facebook/encodec_48khz": transformers.EncodecModel(
            transformers.EncodecConfig(**encodec, target_bandwidths=[rate], **segments, **both_ways)
        ),
        "descript/dac_44khz": transformers.DacModel(transformers.DacConfig(**dac, downsampling_ratios=[4, 4])),
        "kyutai/mimi": transformers.MimiModel(transformers.MimiConfig(**mimi)),
    }
    for name, model in made.items():
        with_books(model).save_pretrained(name)


def save_meta() -> None:
    """Meta's file, at full size: there is but one."""
    from audiolm_kit.official.encodec import import_encodec

    model = import_encodec().EncodecModel.encodec_model_24khz(pretrained=False)
    torch.save(model.state_dict(), "encodec_24khz-d7cc33bc.th")


def save_recordings() -> None:
    """Tones with captions, and measured numbers."""
    rows = []
    for pitch in (60, 90):
        tone = 0.3 * torch.sin(2 * torch.pi * pitch * torch.arange(RATE) / RATE)[None]
        audio.write(f"recordings/{pitch}.wav", audio.Sound(tone, RATE))
        rows.append(Row(f"recordings/{pitch}.wav", 1.0, caption="a slow waltz"))
    write_manifest("recordings.jsonl", rows)
    Path("measured.json").write_text(json.dumps({"clap": 0.25}))


def save_lora() -> None:
    """What the recipe leaves of a fine-tuning: its base, and adapters that have learned something."""
    shutil.copytree("build/musicgen", "build/finetune/base")
    lm, config = checkpoint.load(StreamLM, "build/musicgen/lm"), LoRAConfig(rank=2)
    fingerprint = checkpoint.fingerprint(lm)
    learned = trained_weights(add(lm, config))
    for weight in learned.values():
        nn.init.normal_(weight, std=0.3)
    save_adapters(Adapters(config, fingerprint, learned), "build/finetune/lora.adapters")


# --- the page ---------------------------------------------------------------------------------------------------------


def run(words: list[str]) -> Done:
    """One command, and what it prints."""
    told = StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        code = main(words)
    return Done(code, told.getvalue())


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worked]:
    """All commands, done in a folder of their own, where only uploading is left out; it stays the working folder."""
    uploaded: list[tuple[Any, ...]] = []

    def upload(folder: str, name: str, private: bool) -> str:
        uploaded.append((folder, name, private))
        shutil.copytree(folder, name)  # from now on it is there by its name
        return f"https://hf.co/{name}"

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("weights"))
        patch.setattr(hub, "upload", upload)
        save_sources()
        save_recordings()
        done = []
        for words in KIT:
            if words[0] == "merge":
                save_lora()
            done.append(run(words))
        yield Worked(done, uploaded)


def told_by(worked: Worked, *words: str) -> str:
    """What the first command with these words has told."""
    return next(done.told for done, given in zip(worked.done, KIT, strict=True) if {*words} <= {*given})


@pytest.mark.parametrize("number", range(len(KIT)), ids=[" ".join(words) for words in KIT])
def test_every_command_runs(worked: Worked, number: int) -> None:
    done, verb = worked.done[number], KIT[number][0]
    fine = (0, 2) if verb == "doctor" else (0,)  # random weights are found out
    assert done.code in fine, done.told


def test_each_source_becomes_what_the_page_says(worked: Worked) -> None:
    brought, named = "captions by the T5 in its folder", "captions by the T5 t5-large"
    assert brought in told_by(worked, "import", "build/musicgen") and "mono" in told_by(worked, "build/musicgen")
    assert brought in (stereo := told_by(worked, "build/stereo")) and stereo.endswith("stereo\n")
    assert named in told_by(worked, "build/audiogen") and brought in told_by(worked, "build/audiogen_whole")
    for folder in ("pointed", "trained"):
        assert "captions by the T5 t5-base" in told_by(worked, f"build/{folder}")
    for folder in ("encodec_32khz", "encodec_24khz", "encodec_16khz", "encodec_48khz"):
        assert ": NeuralCodec, " in told_by(worked, f"build/{folder}")
    assert "ForeignCodec (dac), 9 codebooks" in told_by(worked, "build/dac")
    assert "ForeignCodec (dac), 4 codebooks" in told_by(worked, "build/dac_coarse")
    assert "ForeignCodec (mimi), 8 codebooks" in told_by(worked, "build/mimi")


def test_the_switches_are_in_the_checkpoints(worked: Worked) -> None:
    for folder, attends in (("audiogen", False), ("audiogen_padded", True)):
        lm = checkpoint.load(StreamLM, f"build/{folder}/lm")
        assert lm.config.transformer.attend_padding == attends


def test_what_the_page_compares_is_equal(worked: Worked) -> None:
    found = [done.told.splitlines() for done, words in zip(worked.done, KIT, strict=True) if words[0] == "verify"]
    assert len(found) >= 4
    assert all(lines[-1].startswith("Equal in all") for lines in found)


def test_the_shown_comparison_is_one_that_verify_makes(worked: Worked) -> None:
    [shown] = PAGE.blocks("text")
    made = told_by(worked, "verify", "build/for_transformers").splitlines()
    assert [line[:32].rstrip() for line in shown.splitlines()[2:-1]] == [line[:32].rstrip() for line in made[2:-1]]
    assert shown.splitlines()[-1] == made[-1]


def test_the_python_makes_what_it_says(worked: Worked) -> None:
    names: dict[str, Any] = {}
    for code in PAGE.blocks("python"):
        exec(compile(code, "weights.md", "exec"), names)
    assert names["model"].fingerprints.keys() >= {"codec", "lm", "text_encoder"}
    assert names["codec"].config.normalize and names["scales"].shape == (1, 3)  # segments of half a second here
    assert names["waltz"].shape[:2] == (1, 1) and names["waltz"].shape[2] > RATE // 2


def test_what_is_pushed_has_a_card_and_is_told_apart_from_a_dry_run(worked: Worked) -> None:
    assert worked.uploaded == [("build/mine", "you/waltzes", True)]
    assert "nothing is uploaded" in told_by(worked, "push", "--dry-run")
    card = Path("you/waltzes/README.md").read_text()
    assert "license: cc-by-nc-4.0" in card and "| clap | 0.25 | measured |" in card


def test_the_doctor_says_what_the_page_promises(worked: Worked) -> None:
    told = told_by(worked, "doctor")
    assert all(each in told for each in ("SI-SDR", "mel distance", "chance", "by heart", "GiB are free", "doctor.png"))
    assert Path("doctor.png").is_file()


def test_every_verb_and_option_of_weights_is_shown() -> None:
    assert {"import", "export", "verify", "merge", "push", "doctor"} <= {words[0] for words in KIT} <= VERBS.keys()
    shown = {word for words in KIT for word in words if word.startswith("--")}
    assert {"--codec", "--text-encoder", "--num-codebooks", "--attend-padding", "--unsafe-pickle", "--t5"} <= shown


def test_the_page_names_files_that_there_are() -> None:
    links = [link for link in PAGE.links() if not link.startswith("http")]
    tests = re.findall(r"`(tests/[\w/]+\.py)`", PAGE.text)
    assert links and len(tests) >= 6
    assert [each for each in links if not (ROOT / "docs" / each).is_file()] == []
    assert [each for each in tests if not (ROOT / each).is_file()] == []
    recipes = [words for words in PAGE.commands() if words[0] == "make"]
    assert [words[2] for words in recipes] == ["recipes/finetune"]
