"""FrameFeatures: one contract for all kinds, and models of transformers give what transformers gives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiolm_kit.semantic.features import FeatureConfig, FrameFeatures, mirrored
from audiolm_kit.semantic.masked import MaskedConfig, MaskedModel

MASKED = MaskedConfig(sample_rate=4000, hop=80, num_mels=20, dim=16, heads=2, layers=3, dropout=0.5)
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
WAVE = {**SMALL, "conv_dim": [8, 8], "conv_kernel": [10, 4], "conv_stride": [5, 4], "num_conv_pos_embeddings": 4}
WAVE |= {"num_feat_extract_layers": 2, "num_conv_pos_embedding_groups": 2, "do_stable_layer_norm": False}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.fixture(scope="module")
def make_ssl(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a random model, made by the real class of transformers, with its feature extractor."""
    import transformers

    library: Any = transformers

    def make(kind: str, do_normalize: bool = True, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(len(kind))
        given = {**(SMALL if kind == "Wav2Vec2Bert" else WAVE), **options}
        getattr(library, f"{kind}Model")(getattr(library, f"{kind}Config")(**given)).save_pretrained(folder)
        if kind == "Wav2Vec2Bert":
            library.SeamlessM4TFeatureExtractor().save_pretrained(folder)
        else:
            library.Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=do_normalize).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def hubert(make_ssl: Callable[..., Path]) -> Path:
    return make_ssl("Hubert")


@pytest.fixture(scope="module")
def bert(make_ssl: Callable[..., Path]) -> Path:
    return make_ssl("Wav2Vec2Bert", feature_projection_input_dim=160, conv_depthwise_kernel_size=3)


@pytest.fixture(params=["mel", "mfcc", "mel of a sound", "mfcc of a sound", "chroma", "masked", "hubert", "w2v-bert"])
def features(request: pytest.FixtureRequest) -> FrameFeatures:
    torch.manual_seed(0)
    if request.param == "masked":
        return FrameFeatures.of_masked(MaskedModel(MASKED), 2)
    if request.param in ("hubert", "w2v-bert"):
        folder: Path = request.getfixturevalue("hubert" if request.param == "hubert" else "bert")
        return FrameFeatures.of_ssl(str(folder), 2)
    kind, *of_a_sound = request.param.split(maxsplit=1)
    return FrameFeatures(FeatureConfig(kind, 4000, 80, standardised=bool(of_a_sound), context=2 if of_a_sound else 0))


# --- the contract


@pytest.mark.parametrize("extra", [0, 1, -1])
@pytest.mark.parametrize("hops", [1, 2, 7])
def test_a_frame_for_every_begun_hop(features: FrameFeatures, hops: int, extra: int) -> None:
    length = hops * features.config.hop + extra
    made = features(noise(2, length))
    assert made.shape == (2, -(-length // features.config.hop), features.dim) and made.dtype == torch.float32
    assert bool(made.isfinite().all())


def test_a_single_sample_is_a_frame(features: FrameFeatures) -> None:
    made = features(noise(1, 1))
    assert made.shape == (1, 1, features.dim) and bool(made.isfinite().all())


def test_a_batch_is_its_items_one_by_one(features: FrameFeatures) -> None:
    audio = noise(3, 9 * features.config.hop + 3)
    torch.testing.assert_close(
        features(audio), torch.cat([features(item[None]) for item in audio]), atol=1e-4, rtol=1e-4
    )


def test_the_level_does_not_matter(features: FrameFeatures) -> None:
    audio = noise(1, 9 * features.config.hop)
    torch.testing.assert_close(features(audio * 0.3), features(audio), atol=2e-3, rtol=1e-2)


def test_training_mode_and_low_precision_around_it_change_nothing(features: FrameFeatures) -> None:
    audio = noise(2, 6 * features.config.hop)
    plain = features(audio)
    state = {name: value.clone() for name, value in features.state_dict().items()}
    features.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(features(audio), plain)
    assert all(torch.equal(value, state[name]) for name, value in features.state_dict().items())
    assert not any(parameter.requires_grad for parameter in features.parameters())


def test_a_copy_gives_the_same(features: FrameFeatures) -> None:
    audio = noise(1, 5 * features.config.hop)
    assert torch.equal(copy.deepcopy(features)(audio), features(audio))


@pytest.mark.parametrize("kind", ["mel", "mfcc"])
def test_standardised_frames_do_not_know_the_microphone(kind: Literal["mel", "mfcc"]) -> None:
    """What a microphone adds to every log spectrum goes with each sound's mean; without that it stays."""
    audio = noise(1, 16000) * torch.linspace(0.2, 1.0, 16000)
    filtered = torch.nn.functional.conv1d(audio[None], torch.tensor([[[0.2, 1.0, -0.5]]]), padding=1)[0]

    def differ(standardised: bool) -> float:
        made = FrameFeatures(FeatureConfig(kind, 4000, 80, standardised=standardised))
        one, other = made(audio)[:, 2:-2], made(filtered)[:, 2:-2]
        return float((one - other).square().mean() / one.var())

    assert differ(True) < 0.1 * differ(False)


@pytest.mark.parametrize("kind", ["mel", "mfcc"])
def test_standardised_frames_do_not_know_how_long_the_silence_is(kind: Literal["mel", "mfcc"]) -> None:
    """But for the frame at its border, which is heard; counted as sound, silence would move them by several."""
    made = FrameFeatures(FeatureConfig(kind, 4000, 80, standardised=True))
    audio = noise(1, 16000)
    longer = made(torch.nn.functional.pad(audio, (0, 16000)))[:, :195]
    assert float((longer - made(audio)[:, :195]).square().mean()) < 0.1


def test_context_puts_neighbours_side_by_side_and_leaves_out_deltas() -> None:
    audio = noise(1, 800)
    plain = FrameFeatures(FeatureConfig("mfcc", 4000, 80))(audio)[0, :, :13]
    stacked = FrameFeatures(FeatureConfig("mfcc", 4000, 80, context=1))(audio)[0]
    torch.testing.assert_close(stacked[4], torch.cat([plain[3], plain[4], plain[5]]))
    torch.testing.assert_close(stacked[0], torch.cat([plain[0], plain[0], plain[1]]))


@pytest.mark.parametrize("shape", [(100,), (1, 0), (1, 1, 100)])
def test_audio_of_another_shape_is_refused(features: FrameFeatures, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"wanted \[B, L\] with at least one sample"):
        features(torch.zeros(shape))


@pytest.mark.parametrize("kind", ["mel", "mfcc"])
def test_silence_behind_a_sound_leaves_its_frames_alone(kind: Any) -> None:
    features, audio = FrameFeatures(FeatureConfig(kind, 4000, 80)), noise(1, 1600)
    longer = torch.cat([audio, torch.zeros(1, 803)], dim=1)
    torch.testing.assert_close(features(longer)[:, :15], features(audio)[:, :15], atol=1e-5, rtol=1e-5)


# --- our own model


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_features_of_a_masked_model_are_its_hidden_states(layer: int) -> None:
    torch.manual_seed(0)
    model, audio = MaskedModel(MASKED), noise(2, 1000)
    features = FrameFeatures.of_masked(model, layer)
    assert torch.equal(features(audio), model.eval().hidden(audio, layer))
    assert len(features.masked.transformer.layers) == max(1, layer)
    assert (features.config.sample_rate, features.config.hop, features.dim) == (4000, 80, 16)


# --- models of transformers


@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Hubert", {}),
        ("Hubert", {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "do_normalize": False}),
        ("WavLM", {}),
        ("Wav2Vec2", {}),
    ],
)
def test_it_is_the_hidden_state_of_transformers(
    make_ssl: Callable[..., Path], kind: str, options: dict[str, Any], layer: int
) -> None:
    import transformers

    library: Any = transformers
    folder, audio = make_ssl(kind, **options), noise(2, 413) + 0.2
    features = FrameFeatures.of_ssl(str(folder), layer)
    assert (features.config.sample_rate, features.config.hop) == (16000, 20)
    longer = mirrored(audio, 20 * 20 + 25)  # 21 frames, of which the last looks 25 samples far: 5 * 3 + 10
    inputs = longer
    if options.get("do_normalize", True):
        inputs = (longer - longer.mean(1, keepdim=True)) / (longer.var(1, unbiased=False, keepdim=True) + 1e-7).sqrt()
    model = getattr(library, f"{kind}Model").from_pretrained(folder).eval()
    wanted = model(inputs, output_hidden_states=True).hidden_states[layer]
    assert wanted.shape[1] == 21
    torch.testing.assert_close(features(audio), wanted.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_w2v_bert_reads_what_its_extractor_makes(bert: Path, layer: int) -> None:
    import transformers

    library: Any = transformers
    audio = noise(2, 2000)
    features = FrameFeatures.of_ssl(str(bert), layer)
    assert (features.config.sample_rate, features.config.hop) == (16000, 320)
    longer = mirrored(audio, 13 * 160 + 400)  # 14 frames of the bank, 7 of the model
    extractor = library.AutoFeatureExtractor.from_pretrained(bert)
    inputs = extractor(list(longer.numpy()), sampling_rate=16000, return_tensors="pt")
    assert inputs["input_features"].shape == (2, 7, 160)
    model = library.Wav2Vec2BertModel.from_pretrained(bert).eval()
    wanted = model(**inputs, output_hidden_states=True).hidden_states[layer]
    torch.testing.assert_close(features(audio), wanted.detach(), atol=1e-4, rtol=1e-4)


def test_a_sound_goes_on_backwards() -> None:
    assert mirrored(torch.tensor([[1.0, 2, 3]]), 8).tolist() == [[1, 2, 3, 3, 2, 1, 1, 2]]
    assert mirrored(torch.tensor([[5.0]]), 3).tolist() == [[5, 5, 5]]


def test_its_weights_are_named_and_not_saved(hubert: Path) -> None:
    features = FrameFeatures.of_ssl(str(hubert), 1)
    assert features.state_dict() == {} and len(features.config.fingerprint) == 16
    assert FrameFeatures(features.config).config == features.config
    assert FrameFeatures.of_ssl(str(hubert), 2).config.fingerprint == features.config.fingerprint


def test_a_model_is_the_same_wherever_it_lies_and_another_is_refused(hubert: Path, tmp_path: Path) -> None:
    config = FrameFeatures.of_ssl(str(hubert), 1).config
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in hubert.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert FrameFeatures(replace(config, model=str(moved))).config == config
    weights = load_file(moved / "model.safetensors")
    name = next(name for name in weights if name.endswith("attention.q_proj.weight"))
    weights[name][0, 0] += 1e-3
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"moved is not the model .* wanted {config.fingerprint}\): set features"):
        FrameFeatures(replace(config, model=str(moved)))


def test_models_that_are_not_there_or_lack_weights_are_refused(hubert: Path, tmp_path: Path) -> None:
    import transformers

    library: Any = transformers
    with pytest.raises(FileNotFoundError, match="no model of speech at '.*nowhere'"):
        FrameFeatures.of_ssl(str(tmp_path / "nowhere"), 1)
    library.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2).save_pretrained(tmp_path / "t5")
    with pytest.raises(FileNotFoundError, match="it is of type t5, wanted one of hubert, wavlm"):
        FrameFeatures.of_ssl(str(tmp_path / "t5"), 1)
    for file in hubert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(hubert / "model.safetensors")
    weights.pop(next(name for name in weights if name.endswith("attention.q_proj.weight")))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights, as encoder"):
        FrameFeatures.of_ssl(str(tmp_path), 1)


def test_layers_and_rates_that_are_not_there_are_refused(hubert: Path) -> None:
    with pytest.raises(ValueError, match=r"layer is 4, .* has 0 \(what enters the first\) to 3"):
        FrameFeatures.of_ssl(str(hubert), 4)
    with pytest.raises(ValueError, match=r"sample rate and hop \(16000, 320\), .* has \(16000, 20\)"):
        FrameFeatures(FeatureConfig("ssl", model=str(hubert)))
    with pytest.raises(ValueError, match=r"layer is 4, this model has 0 \(its input\) to 3"):
        FrameFeatures.of_masked(MaskedModel(MASKED), 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "mels"}, "of kind 'mels': give one of mel, mfcc, chroma, masked, ssl"),
        ({"hop": 0}, "hop of the features is 0"),
        ({"num_mels": 12}, "num_mels is 12, 13 cepstral coefficients"),
        ({"kind": "chroma", "standardised": True}, "frames of chroma features stay as they are"),
        ({"peak": -1.0}, "peak of the features is -1.0"),
        ({"kind": "ssl"}, "kind ssl need a model"),
        ({"kind": "masked", "hop": 160}, r"hop \(16000, 160\), their masked model \(16000, 320\)"),
        ({"kind": "masked", "layer": 7}, r"layer is 7, the masked model has 0 \(its input\) to 6"),
    ],
)
def test_configs_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureConfig(**given)


def test_transformers_is_imported_for_its_models_alone(run_python: Callable[[str], str]) -> None:
    code = (
        "import sys, torch; from audiolm_kit.semantic.fit import features_from; "
        "features_from('mfcc')(torch.ones(1, 9)); "
        "print([name for name in ('transformers', 'sklearn', 'pytorch_lightning') if name in sys.modules])"
    )
    assert run_python(code) == "[]"
