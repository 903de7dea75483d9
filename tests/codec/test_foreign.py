"""ForeignCodec as one of the house: checkpoints, folders of transformers, and a language model of its codes.

That it computes what transformers computes stands in tests/against/test_foreign.py, what every codec promises in
tests/test_protocols.py.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiolm_kit import audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.codec.foreign import ForeignCodec, ForeignConfig
from audiolm_kit.codec.streaming import StreamingDecoder, decode
from audiolm_kit.data.modules import TokenData
from audiolm_kit.data.tokenize import tokenize
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.training.lm import LMTask
from audiolm_kit.transformer import TransformerConfig

DAC: dict[str, Any] = {
    **{"sampling_rate": 1600, "n_codebooks": 2, "codebook_size": 16, "codebook_dim": 4},
    **{"encoder_hidden_size": 4, "decoder_hidden_size": 16, "downsampling_ratios": [2, 5]},
}
MIMI: dict[str, Any] = {
    **{"sampling_rate": 1600, "num_quantizers": 4, "codebook_size": 16, "codebook_dim": 4},
    **{"vector_quantization_hidden_dimension": 4, "hidden_size": 8, "num_filters": 2, "upsampling_ratios": [4, 2]},
    **{"upsample_groups": 8, "num_hidden_layers": 1, "intermediate_size": 16, "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "sliding_window": 8, "layer_scale_initial_scale": 0.5},
}
SETTINGS = {"dac": DAC, "mimi": MIMI}


def made(kind: Any, num_codebooks: int = 0, **changes: object) -> ForeignCodec:
    """One with random weights; codebooks too, which a Mimi begins with as zeros."""
    torch.manual_seed(0)
    codec = ForeignCodec(ForeignConfig(kind, json.dumps(SETTINGS[kind] | changes), num_codebooks)).eval()
    for weight in codec.state_dict().values():
        weight.add_(torch.randn(weight.shape), alpha=0.1 if weight.dim() == 1 else 0.2)
    return codec


@pytest.fixture(params=SETTINGS)
def codec(request: pytest.FixtureRequest) -> ForeignCodec:
    return made(request.param)


def noise(*shape: int) -> Tensor:
    """The same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 0.2


def renamed(folder: Path, old: str, new: str | None) -> None:
    """Give a tensor of a folder another name, or take it out."""
    state = load_file(folder / "model.safetensors")
    tensor = state.pop(old)
    save_file(state if new is None else {**state, new: tensor}, folder / "model.safetensors")


# --- its config -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "settings is not readable as JSON"),
        ("[1]", "settings is '[1]', wanted a JSON object"),
        ('{"codebook_size": "many"}', "settings make no DacModel of transformers"),
        ('{"codebook_size": 15}', "The codebook_size must be a power of 2"),
    ],
)
def test_settings_that_make_no_codec_are_refused(settings: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ForeignCodec(ForeignConfig("dac", settings))


@pytest.mark.parametrize(("count", "message"), [(-1, "wanted at least 1, or 0 for all"), (3, "this dac has 2")])
def test_codebooks_that_are_not_there_are_refused(count: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"num_codebooks is {count}, {message}"):
        made("dac", count)


def test_plumbing_never_reaches_transformers(tmp_path: Path) -> None:
    codec = made("mimi", attn_implementation="somebody/kernels", _attn_implementation_internal="somebody/kernels")
    assert getattr(codec._theirs, "_attn_implementation", None) in (None, "sdpa", "eager")
    made("dac").to_transformers(tmp_path / "dac")
    settings = json.loads((tmp_path / "dac" / "config.json").read_text())
    for name, value in {"return_dict": False, "auto_map": {"AutoModel": "evil.Model"}, "dtype": "float16"}.items():
        settings[name] = value
    (tmp_path / "dac" / "config.json").write_text(json.dumps(settings))
    again = ForeignCodec.from_transformers(tmp_path / "dac")
    assert checkpoint.fingerprint(again) == checkpoint.fingerprint(made("dac"))
    assert again.encode(noise(1, 1, 50)).shape == (1, 2, 5)


def test_a_frame_rate_that_transformers_has_renamed_is_kept() -> None:
    renamed_one = made("mimi", _frame_rate=50.0)
    assert (renamed_one.frame_rate, renamed_one.hop) == (50.0, 32)
    assert made("mimi", frame_rate=50.0).hop == 32
    assert made("mimi", _frame_rate=None).hop == 16


# --- as a checkpoint --------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_the_same_codec(codec: ForeignCodec, tmp_path: Path) -> None:
    checkpoint.save(codec, tmp_path / "codec")
    loaded = checkpoint.load(ForeignCodec, tmp_path / "codec")
    assert loaded.config == codec.config
    assert checkpoint.fingerprint(loaded) == checkpoint.fingerprint(codec)
    codes = codec.encode(noise(2, 1, 100))
    assert torch.equal(loaded.encode(noise(2, 1, 100)), codes) and codes.unique().numel() > 2
    assert torch.equal(loaded.decode(codes), codec.decode(codes))


def test_weights_stand_under_the_names_of_their_files(codec: ForeignCodec, tmp_path: Path) -> None:
    codec.network.save_pretrained(tmp_path / "theirs")  # type: ignore[operator]
    assert codec.state_dict().keys() == load_file(tmp_path / "theirs" / "model.safetensors").keys()
    holder = nn.ModuleDict({"codec": codec})
    assert holder.state_dict().keys() == {f"codec.{name}" for name in codec.state_dict()}
    before = codec.decode(torch.zeros(1, 2, 3, dtype=torch.long))
    weights = {name: weight.clone() for name, weight in holder.state_dict().items()}
    other = nn.ModuleDict({"codec": ForeignCodec(codec.config)})
    other.load_state_dict(weights)
    assert torch.equal(other["codec"].decode(torch.zeros(1, 2, 3, dtype=torch.long)), before)


def test_the_fingerprint_tells_weights_and_settings_apart() -> None:
    one, fewer, other = made("dac"), made("dac", 1), made("dac", sampling_rate=3200)
    changed = copy.deepcopy(one)
    next(iter(changed.state_dict().values())).add_(1)
    assert len({checkpoint.fingerprint(each) for each in (one, fewer, other, changed)}) == 4
    assert checkpoint.fingerprint(copy.deepcopy(one)) == checkpoint.fingerprint(one)


def test_weights_that_share_memory_are_written(tmp_path: Path) -> None:
    codec = made("dac")
    first, second = codec.network.quantizer.quantizers  # type: ignore[union-attr, misc]
    second.codebook.weight = first.codebook.weight  # type: ignore[union-attr]
    checkpoint.save(codec, tmp_path / "codec")
    codes = codec.encode(noise(1, 1, 100))
    assert torch.equal(checkpoint.load(ForeignCodec, tmp_path / "codec").encode(noise(1, 1, 100)), codes)


def test_new_codebooks_are_used_at_once() -> None:
    codec, other = made("mimi"), made("mimi")
    codes = torch.ones(1, 4, 6, dtype=torch.long)
    before = codec.decode(codes)
    state = {name: weight * 0.5 if "embed_sum" in name else weight for name, weight in other.state_dict().items()}
    codec.load_state_dict(state)
    assert not torch.allclose(codec.decode(codes), before)
    assert codec.double().decode(codes).dtype == torch.float64


def test_it_is_never_trained(codec: ForeignCodec) -> None:
    codes = codec.encode(noise(2, 1, 100))
    assert torch.equal(codec.train().encode(noise(2, 1, 100)), codes)
    assert not any(weight.requires_grad for weight in codec.parameters())


# --- as a folder of transformers --------------------------------------------------------------------------------------


def test_a_mimi_has_8_codebooks_unless_more_are_wanted(tmp_path: Path) -> None:
    made("mimi", num_quantizers=12).to_transformers(tmp_path / "mimi")
    few = ForeignCodec.from_transformers(tmp_path / "mimi")
    all_of_them = ForeignCodec.from_transformers(tmp_path / "mimi", 12)
    assert (few.num_codebooks, all_of_them.num_codebooks) == (8, 12)
    assert torch.equal(few.encode(noise(1, 1, 90)), all_of_them.encode(noise(1, 1, 90))[:, :8])
    assert few.state_dict().keys() == all_of_them.state_dict().keys()
    with pytest.raises(ValueError, match="num_codebooks is 13, this mimi has 12"):
        ForeignCodec.from_transformers(tmp_path / "mimi", 13)


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    codec, folder = made("dac"), tmp_path / "dac"
    codec.to_transformers(folder)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for number, part in enumerate((sorted(state)[::2], sorted(state)[1::2]), 1):
        save_file({name: state[name].half() for name in part}, folder / f"model-{number:05}-of-00002.safetensors")
    read = ForeignCodec.from_transformers(folder)
    assert {weight.dtype for weight in read.parameters()} == {torch.float32}  # whatever the file has
    assert all(torch.equal(value, state[name].half().float()) for name, value in read.state_dict().items())


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        ForeignCodec.from_transformers(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "encodec"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match="holds its weights as a pickle alone, which can run code"):
        ForeignCodec.from_transformers(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        ForeignCodec.from_transformers(tmp_path)
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="holds a model of type 'encodec', wanted dac or mimi"):
        ForeignCodec.from_transformers(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    with pytest.raises(ValueError, match="exists and is no checkpoint"):
        made("dac").to_transformers(tmp_path / "notes")


def test_weights_of_another_model_are_refused_by_their_names(tmp_path: Path) -> None:
    name = "decoder.conv1.bias"
    for number, (new, message) in enumerate([(None, "lacks tensors"), ("decoder.more", "lacks tensors")]):
        made("dac").to_transformers(tmp_path / str(number))
        renamed(tmp_path / str(number), name, new)
        with pytest.raises(ValueError, match=rf"{message} \(1\): {name}"):
            ForeignCodec.from_transformers(tmp_path / str(number))
    folder = tmp_path / "wrong"
    made("dac").to_transformers(folder)
    state = load_file(folder / "model.safetensors")
    save_file({**state, "more": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"has unknown tensors \(1\): more"):
        ForeignCodec.from_transformers(folder)
    save_file({**state, name: torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"has wrongly shaped tensors \(1\): {name}"):
        ForeignCodec.from_transformers(folder)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        ForeignCodec.from_transformers(folder)


# --- piece by piece ---------------------------------------------------------------------------------------------------


def test_streaming_one_by_one_is_bit_equal_to_all_at_once(codec: ForeignCodec) -> None:
    codes = torch.randint(0, 16, (1, 2, 150), generator=torch.Generator().manual_seed(0))
    decoder = StreamingDecoder(codec)
    pieces = [decoder.push(frame[..., None]) for frame in codes.unbind(-1)]
    assert sum(piece.shape[-1] > 0 for piece in pieces) > 5  # it does come piece by piece
    assert torch.equal(torch.cat([*pieces, decoder.finish()], -1), decode(codec, codes))


def test_a_mimi_that_is_not_causal_is_decoded_whole() -> None:
    codec = made("mimi", use_causal_conv=False)
    codes = torch.randint(0, 16, (1, 4, 9), generator=torch.Generator().manual_seed(0))
    assert not codec.can_stream and torch.equal(decode(codec, codes), codec.decode(codes))
    with pytest.raises(ValueError, match="use_causal_conv false cannot decode piece by piece"):
        StreamingDecoder(codec)


# --- under a language model -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
@pytest.mark.parametrize("kind", ["dac", pytest.param("mimi", marks=pytest.mark.slow)])
def test_a_language_model_learns_its_codes_and_makes_sound(kind: str, tmp_path: Path) -> None:
    codec, rows = made(kind), []
    for number, length in enumerate((1600, 1111, 1600, 801)):
        audio.write(tmp_path / f"{number}.wav", Sound(noise(1, length), 1600))
        rows.append({"path": f"{number}.wav", "duration": length / 1600, "split": "train"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    checkpoint.save(codec, tmp_path / "codec")
    report = tokenize(codec, checkpoint.fingerprint(codec), tmp_path / "rows.jsonl", tmp_path / "shards")
    assert (report.rows, report.skipped) == (4, 0)

    size = TransformerConfig(dim=16, heads=2, layers=1)
    lm = LMConfig(num_codebooks=codec.num_codebooks, codebook_size=16, transformer=size)
    task = LMTask(lm, codec=str(tmp_path / "codec"), export=str(tmp_path / "model"))
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(task, TokenData(str(tmp_path / "shards"), frames=40, batch_size=2))

    model = AudioGen.load(tmp_path / "model")
    assert isinstance(model.codec, ForeignCodec)
    sampling = Sampling(guidance_scale=1.0)
    [sound] = model.generate([""], 0.5, sampling, seed=3)
    streamed = torch.cat([each.samples for each in model.stream("", 0.5, sampling, seed=3)], -1)
    assert sound.samples.shape == (1, 800) and bool(sound.samples.isfinite().all())
    assert torch.equal(streamed, sound.samples)
    [longer] = model.continue_([Sound(noise(1, 400), 1600)], 0.5, sampling=sampling)
    assert longer.samples.shape == (1, 800)
    model.save(tmp_path / "again")
    assert AudioGen.load(tmp_path / "again").fingerprints == model.fingerprints
