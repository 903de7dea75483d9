"""ForeignCodec against DacModel and MimiModel of transformers: the same codes, and the same sound of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit.codec.foreign import ForeignCodec
from audiolm_kit.codec.streaming import decode

transformers = pytest.importorskip("transformers")

DAC: dict[str, Any] = {
    **{"sampling_rate": 1600, "n_codebooks": 3, "codebook_size": 16, "codebook_dim": 4},
    **{"encoder_hidden_size": 4, "decoder_hidden_size": 16},
}
MIMI: dict[str, Any] = {
    **{"sampling_rate": 1600, "num_quantizers": 10, "codebook_size": 16, "codebook_dim": 4},
    **{"vector_quantization_hidden_dimension": 4, "hidden_size": 8, "num_filters": 2, "upsampling_ratios": [4, 2]},
    **{"upsample_groups": 8, "num_hidden_layers": 2, "intermediate_size": 16, "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "sliding_window": 6, "layer_scale_initial_scale": 0.5},
}
MAKERS: dict[str, Callable[[], nn.Module]] = {
    "dac": lambda: transformers.DacModel(transformers.DacConfig(**DAC, downsampling_ratios=[4, 2, 4])),
    "dac_odd": lambda: transformers.DacModel(transformers.DacConfig(**DAC, downsampling_ratios=[2, 5])),
    "mimi": lambda: transformers.MimiModel(transformers.MimiConfig(**MIMI)),
    "mimi_stereo": lambda: transformers.MimiModel(transformers.MimiConfig(**MIMI, audio_channels=2)),
    "mimi_grouped": lambda: transformers.MimiModel(
        transformers.MimiConfig(
            **{**MIMI, "num_key_value_heads": 1, "use_conv_shortcut": True, "trim_right_ratio": 0.5}
        )
    ),
    "mimi_slow": lambda: transformers.MimiModel(transformers.MimiConfig(**MIMI, frame_rate=50.0)),
    "mimi_both_ways": lambda: transformers.MimiModel(transformers.MimiConfig(**MIMI, use_causal_conv=False)),
}


def noise(*shape: int) -> Tensor:
    """The same each time, of changing colour."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).cumsum(-1).mul(0.3).sin()


@pytest.fixture(scope="module", params=MAKERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ForeignCodec, Path]:
    """Theirs with random weights, ours as read from its folder, and that folder."""
    torch.manual_seed(0)
    theirs = MAKERS[request.param]()
    books = [buffer for name, buffer in theirs.named_buffers() if name.endswith("embed_sum")]  # zeros before training
    with torch.no_grad():
        for weight in (*theirs.parameters(), *books):
            weight.add_(torch.randn(weight.shape), alpha=0.1 if weight.dim() == 1 else 0.2)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    return theirs.eval(), ForeignCodec.from_transformers(folder), folder


@torch.no_grad()
def their_codes(theirs: Any, audio: Tensor, ours: ForeignCodec) -> Tensor:
    """As transformers encodes it, behind its feature extractor, which fills up a DAC's last frame."""
    if ours.config.kind == "mimi":
        return theirs.encode(audio, num_quantizers=ours.num_codebooks).audio_codes
    return theirs.encode(F.pad(audio, (0, -audio.shape[-1] % ours.hop))).audio_codes


def test_it_says_what_theirs_says(pair: tuple[Any, ForeignCodec, Path]) -> None:
    theirs, ours, _ = pair
    assert ours.num_codebooks == (3 if ours.config.kind == "dac" else 8)
    assert (ours.sample_rate, ours.codebook_size) == (theirs.config.sampling_rate, theirs.config.codebook_size)
    if ours.config.kind == "mimi":
        assert (ours.frame_rate, ours.channels) == (theirs.config.frame_rate, theirs.config.audio_channels)
    else:
        assert (ours.hop, ours.channels) == (theirs.config.hop_length, 1)


@pytest.mark.parametrize("length", [1, 15, 320, 437])
def test_codes_are_identical(pair: tuple[Any, ForeignCodec, Path], length: int) -> None:
    theirs, ours, _ = pair
    audio = noise(2, ours.channels, length)
    codes = ours.encode(audio)
    assert torch.equal(codes, their_codes(theirs, audio, ours))
    assert codes.shape[2] == -(-length // ours.hop)


@pytest.mark.parametrize("num_codebooks", [1, 2, 3])
def test_sound_is_the_same_of_any_number_of_codebooks(pair: tuple[Any, ForeignCodec, Path], num_codebooks: int) -> None:
    theirs, ours, _ = pair
    codes = torch.randint(0, 16, (2, num_codebooks, 23), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = theirs.decode(audio_codes=codes).audio_values.reshape(2, ours.channels, -1)
    audio = ours.decode(codes)
    assert audio.shape[-1] == 23 * ours.hop and wanted.std() > 1e-3
    torch.testing.assert_close(audio[..., : wanted.shape[-1]], wanted, atol=1e-5, rtol=0)
    assert not audio[..., wanted.shape[-1] :].any()


def test_streaming_makes_the_sound_of_the_whole(pair: tuple[Any, ForeignCodec, Path]) -> None:
    _, ours, _ = pair
    if not ours.can_stream:
        pytest.skip("all its frames depend on one another")
    codes = torch.randint(0, 16, (2, 3, 300), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decode(ours, codes), ours.decode(codes), atol=1e-4, rtol=1e-4)


def test_there_and_back_is_the_same_model(pair: tuple[Any, ForeignCodec, Path], tmp_path: Path) -> None:
    theirs, ours, _ = pair
    ours.to_transformers(tmp_path / "back")
    again = type(theirs).from_pretrained(tmp_path / "back")
    state = again.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in theirs.state_dict().items())
    if ours.can_stream:  # a Mimi that is not causal loses its padding where from_pretrained opens it
        audio = noise(1, ours.channels, 200)
        assert torch.equal(their_codes(again.eval(), audio, ours), ours.encode(audio))
    reader = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "back")
    assert reader.sampling_rate == ours.sample_rate
