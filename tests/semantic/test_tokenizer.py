"""SemanticTokenizer keeps a tokenizer's contract, standardises as it was fitted, and comes back from its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.protocols import AudioTokenizer, Codec
from audiolm_kit.semantic.features import FeatureConfig, FrameFeatures
from audiolm_kit.semantic.fit import fit_tokenizer
from audiolm_kit.semantic.masked import MaskedConfig, MaskedModel
from audiolm_kit.semantic.tokenizer import SemanticConfig, SemanticTokenizer, with_centroids

MASKED = MaskedConfig(sample_rate=4000, hop=80, num_mels=20, dim=16, heads=2, layers=2)


def sounds(batch: int, length: int, seed: int = 1) -> Tensor:
    """Noise whose colour and level change, [B, 1, L]."""
    noise = torch.randn(batch, 1, length, generator=torch.Generator().manual_seed(seed))
    return (noise.cumsum(-1) * 0.1).sin() * torch.linspace(0.1, 0.9, length)


@pytest.fixture(params=["mel", "mfcc", "chroma", "masked"])
def tokenizer(request: pytest.FixtureRequest) -> SemanticTokenizer:
    torch.manual_seed(0)
    if request.param == "masked":
        features = FrameFeatures.of_masked(MaskedModel(MASKED), 1)
    else:
        features = FrameFeatures(FeatureConfig(request.param, 4000, 80))
    return fit_tokenizer(features, sounds(4, 4000)[:, 0], 12)


def test_it_says_what_it_is(tokenizer: SemanticTokenizer) -> None:
    assert isinstance(tokenizer, AudioTokenizer) and not isinstance(tokenizer, Codec)
    assert (tokenizer.sample_rate, tokenizer.channels, tokenizer.num_codebooks) == (4000, 1, 1)
    assert (tokenizer.codebook_size, tokenizer.hop, tokenizer.frame_rate) == (12, 80, 50.0)


@pytest.mark.parametrize("length", [1, 79, 80, 81, 805])
def test_a_frame_for_every_begun_hop(tokenizer: SemanticTokenizer, length: int) -> None:
    codes = tokenizer.encode(sounds(2, length))
    assert codes.shape == (2, 1, -(-length // 80)) and codes.dtype == torch.int64


def test_codes_lie_in_range_and_differ(tokenizer: SemanticTokenizer) -> None:
    codes = tokenizer.encode(sounds(4, 4000))
    assert int(codes.min()) >= 0 and int(codes.max()) < 12 and codes.unique().numel() > 8


def test_a_batch_is_its_items_one_by_one(tokenizer: SemanticTokenizer) -> None:
    audio = sounds(3, 965)
    assert torch.equal(tokenizer.encode(audio), torch.cat([tokenizer.encode(item[None]) for item in audio]))


def test_silence_behind_a_sound_hardly_changes_its_codes(tokenizer: SemanticTokenizer) -> None:
    audio = sounds(2, 4000, seed=2)
    codes = tokenizer.encode(torch.nn.functional.pad(audio, (0, 1003)))[..., :45]
    agree = float((codes == tokenizer.encode(audio)[..., :45]).float().mean())
    assert agree == 1 if tokenizer.config.features.kind != "masked" else agree > 0.7


def test_embeddings_of_what_it_was_fitted_to_are_standard(tokenizer: SemanticTokenizer) -> None:
    embedded = torch.cat([tokenizer.embed(item[None])[0] for item in sounds(4, 4000)])
    torch.testing.assert_close(embedded.mean(0), torch.zeros(embedded.shape[1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(embedded.std(0, unbiased=False), torch.ones(embedded.shape[1]), atol=1e-2, rtol=0)


def test_encoding_changes_nothing_in_training_mode_and_low_precision(tokenizer: SemanticTokenizer) -> None:
    codes = tokenizer.encode(sounds(2, 2000))
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    tokenizer.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tokenizer.encode(sounds(2, 2000)), codes)
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())


def test_it_comes_back_from_its_folder(tokenizer: SemanticTokenizer, tmp_path: Path) -> None:
    checkpoint.save(tokenizer, tmp_path / "semantic")
    loaded = checkpoint.load(SemanticTokenizer, tmp_path / "semantic")
    assert loaded.config == tokenizer.config
    assert checkpoint.fingerprint(loaded) == checkpoint.fingerprint(tokenizer)
    assert torch.equal(loaded.encode(sounds(2, 2000)), tokenizer.encode(sounds(2, 2000)))


def test_centroids_of_any_origin() -> None:
    features = FrameFeatures(FeatureConfig("mel", 4000, 80, num_mels=20))
    audio = sounds(1, 1600)
    frames = features(audio[:, 0])[0]
    plain = with_centroids(features, frames[[3, 11]])
    assert plain.encode(audio)[0, 0, [3, 11]].tolist() == [0, 1]
    mean, deviation = frames.mean(0), frames.std(0)
    standard = with_centroids(features, ((frames - mean) / deviation)[[11, 3]], mean, deviation)
    assert standard.encode(audio)[0, 0, [3, 11]].tolist() == [1, 0]
    torch.testing.assert_close(standard.embed(audio)[0], (frames - mean) / deviation)


def test_a_model_of_transformers_is_found_again_and_no_other(tmp_path: Path) -> None:
    import transformers

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    small |= {"conv_dim": [8], "conv_kernel": [10], "conv_stride": [5], "num_conv_pos_embeddings": 4}
    config = transformers.HubertConfig(**small, num_feat_extract_layers=1, num_conv_pos_embedding_groups=2)
    transformers.HubertModel(config).save_pretrained(tmp_path / "hubert")
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "hubert")
    tokenizer = fit_tokenizer(FrameFeatures.of_ssl(str(tmp_path / "hubert"), 1), sounds(2, 500)[:, 0], 5)
    checkpoint.save(tokenizer, tmp_path / "semantic")
    loaded = checkpoint.load(SemanticTokenizer, tmp_path / "semantic")
    assert torch.equal(loaded.encode(sounds(1, 300)), tokenizer.encode(sounds(1, 300)))
    assert checkpoint.fingerprint(loaded) == checkpoint.fingerprint(tokenizer)
    assert (tmp_path / "semantic" / "model.safetensors").stat().st_size < 5000
    transformers.HubertModel(config).save_pretrained(tmp_path / "hubert")  # others, as random
    with pytest.raises(ValueError, match="hubert is not the model these features are of"):
        checkpoint.load(SemanticTokenizer, tmp_path / "semantic")
    (tmp_path / "hubert").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="no model of speech at .*hubert"):
        checkpoint.load(SemanticTokenizer, tmp_path / "semantic")


# --- refusals


@pytest.mark.parametrize("shape", [(100,), (1, 100), (1, 2, 100), (1, 1, 1, 100)])
def test_audio_of_another_shape_is_refused(tokenizer: SemanticTokenizer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"wanted \[B, 1, L\]"):
        tokenizer.encode(torch.zeros(shape))


def test_audio_without_samples_is_refused(tokenizer: SemanticTokenizer) -> None:
    for shape in ((1, 1, 0), (0, 1, 100)):
        with pytest.raises(ValueError, match="has no samples"):
            tokenizer.encode(torch.zeros(shape))


def test_centroids_that_do_not_fit_are_refused() -> None:
    features = FrameFeatures(FeatureConfig("mel", 4000, 80, num_mels=20))
    for shape in ((3, 19), (0, 20), (20,)):
        with pytest.raises(ValueError, match=r"wanted \[codebook_size, 20\]"):
            with_centroids(features, torch.zeros(shape))
    good = torch.zeros(3, 20)
    with pytest.raises(ValueError, match=r"mean must be finite numbers of shape \[20\], got \[19\]"):
        with_centroids(features, good, torch.zeros(19))
    with pytest.raises(ValueError, match="centroids must be finite"):
        with_centroids(features, good.fill_(torch.nan))
    with pytest.raises(ValueError, match="a deviation is not above 0"):
        with_centroids(features, torch.zeros(3, 20), deviation=torch.zeros(20))
    with pytest.raises(ValueError, match="dim is 19, but the features have 20"):
        SemanticTokenizer(SemanticConfig(features.config, 3, 19))
    with pytest.raises(ValueError, match="codebook_size and dim are 0 and 20"):
        SemanticConfig(features.config, 0, 20)
