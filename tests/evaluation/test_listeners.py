"""Models of transformers as judges: tiny ones of the real classes, with random weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

from audiolm_kit.audio import Sound
from audiolm_kit.evaluation import listeners
from audiolm_kit.evaluation.listeners import Recogniser, Tagger, Voice

RATE = 16000
SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
OF_SAMPLES: dict[str, Any] = {
    **{"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (10, 8), "num_feat_extract_layers": 2},
    **{"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2},
}
"""Of models that read samples."""


def tone(hertz: float, seconds: float = 0.5, rate: int = RATE) -> Sound:
    steps = torch.arange(round(seconds * rate)) / rate
    return Sound(0.3 * torch.sin(2 * math.pi * hertz * steps)[None], rate)


def drawn(model: Any) -> Any:
    """Weights that tell sounds apart."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model


@pytest.fixture(scope="module")
def ast(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    folder = tmp_path_factory.mktemp("ast")
    config = ASTConfig(**SMALL, num_labels=5, max_length=64, num_mel_bins=32)
    drawn(ASTForAudioClassification(config)).save_pretrained(folder)
    ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

    folder = tmp_path_factory.mktemp("voice")
    layers = {"tdnn_dim": (16, 16, 16), "tdnn_kernel": (3, 3, 1), "tdnn_dilation": (1, 2, 1)}
    config = WavLMConfig(**SMALL, **OF_SAMPLES, **layers, xvector_output_dim=12)
    drawn(WavLMForXVector(config)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder = tmp_path_factory.mktemp("recogniser")
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH"]
    (folder / "vocab.json").write_text(json.dumps({letter: place for place, letter in enumerate(letters)}))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    model = drawn(Wav2Vec2ForCTC(Wav2Vec2Config(**SMALL, **OF_SAMPLES, vocab_size=len(letters))))
    model.lm_head.bias.data[:5] = -100  # letters alone
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def encodec(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import EncodecConfig, EncodecFeatureExtractor, EncodecModel

    folder = tmp_path_factory.mktemp("encodec")
    config = EncodecConfig(
        sampling_rate=8000, num_filters=4, hidden_size=8, codebook_size=16, upsampling_ratios=[4, 4], num_lstm_layers=1
    )
    drawn(EncodecModel(config)).save_pretrained(folder)
    EncodecFeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    return str(folder)


def test_ast_gives_probabilities_or_embeddings_of_another_fingerprint(ast: str) -> None:
    sounds = [tone(300), tone(900)]
    tagger, embedder = Tagger(ast), Tagger(ast, embeds=True)
    made = tagger(sounds)
    assert made.shape == (2, 5) and torch.allclose(made.sum(1), torch.ones(2).double())
    assert not torch.allclose(made[0], made[1]) and embedder(sounds).shape == (2, 16)
    assert tagger.fingerprint != embedder.fingerprint and tagger.fingerprint == Tagger(ast).fingerprint


def test_each_sound_is_heard_by_itself_whatever_its_length_and_rate(ast: str) -> None:
    tagger = Tagger(ast)
    sounds = [tone(300, 0.01), tone(900, 2.0), tone(500, 0.5, 44100)]
    torch.testing.assert_close(tagger(sounds), torch.cat([tagger([sound]) for sound in sounds]))


def test_a_long_sound_has_the_mean_of_its_windows(ast: str) -> None:
    tagger, length = Tagger(ast), 64 * 160
    noise = torch.randn(1, 2 * length, generator=torch.Generator().manual_seed(0)) * 0.1
    parts = tagger([Sound(part, RATE) for part in noise.split(length, 1)])
    torch.testing.assert_close(tagger([Sound(noise, RATE)])[0], parts.mean(0))


def test_voices_are_unit_vectors_that_do_not_depend_on_neighbours(voice: str) -> None:
    judge = Voice(voice)
    sounds = [tone(150, 1.5), tone(220, 2.0)]
    made = judge(sounds)
    assert made.shape == (2, 12) and torch.allclose(made.norm(dim=1), torch.ones(2), atol=1e-5)
    torch.testing.assert_close(made[1:], judge(sounds[1:]))


def test_a_short_voice_is_said_again(voice: str) -> None:
    judge, short = Voice(voice), tone(150, 0.25)
    repeated = Sound(short.samples.repeat(1, 4), RATE)
    torch.testing.assert_close(judge([short]), judge([repeated]))


def test_encodec_embeds_by_its_latents(encodec: str) -> None:
    from transformers import EncodecModel

    sound = tone(300, 0.5, 8000)
    latents = EncodecModel.from_pretrained(encodec).eval().encoder(sound.samples[None])[0]
    torch.testing.assert_close(listeners.encodec(encodec)([sound])[0], latents.mean(1).detach())
    both = listeners.encodec(encodec, pool="mean_std")
    assert both([sound]).shape == (1, 16) and both.fingerprint != listeners.encodec(encodec).fingerprint


def test_a_recogniser_writes_down_each_sound(recogniser: str) -> None:
    judge = Recogniser(recogniser)
    texts = judge([tone(300), tone(900, 0.7, 8000)])
    assert len(texts) == 2 and all(text and set(text) <= set("ABCDEFGH") for text in texts)
    assert judge([tone(900, 0.7, 8000)]) == texts[1:]


def test_a_fingerprint_changes_with_a_weight_and_with_the_preparation(voice: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    known = Voice(voice).fingerprint
    for name in ("same", "weight", "preparation"):
        copytree(voice, tmp_path / name)
    weights = load_file(tmp_path / "weight" / "model.safetensors")
    weights["projector.bias"] = weights["projector.bias"] + 1e-3
    save_file(weights, tmp_path / "weight" / "model.safetensors", metadata={"format": "pt"})
    settings = tmp_path / "preparation" / "preprocessor_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "do_normalize": False}))
    found = {name: Voice(str(tmp_path / name)).fingerprint for name in ("same", "weight", "preparation")}
    assert found["same"] == known and len({known, found["weight"], found["preparation"]}) == 3


def test_a_missing_or_another_model_is_one_line(ast: str, voice: str, tmp_path: Path) -> None:
    for make, name, what in (
        (Tagger, voice, "AST"),
        (Voice, ast, "model of voices"),
        (listeners.encodec, ast, "EnCodec"),
        (Recogniser, str(tmp_path / "nowhere"), "recogniser of speech"),
        (Voice, str(tmp_path / "nowhere"), "model of voices"),
    ):
        with pytest.raises(FileNotFoundError, match=f"no {what} at .*: give a folder or a name on the hub") as error:
            make(name)
        assert "\n" not in str(error.value)
