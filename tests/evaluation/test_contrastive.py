"""A small CLAP hears what its configuration says, whatever the level, and reads captions; its scorer can be trusted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiolm_kit import audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.conditioning import TextConditioner, TextConfig, text_files
from audiolm_kit.evaluation.contrastive import KIND, PART, ContrastiveConfig, ContrastiveModel, ContrastiveScorer
from audiolm_kit.evaluation.listeners import SoundsOf, clap
from audiolm_kit.inference.candidates import scorer_of

LABELS = ("high", "low")
CONFIG = ContrastiveConfig(
    sample_rate=1600,
    seconds=0.5,
    fft_size=64,
    hop=16,
    mels=12,
    filters=(4, 6),
    dim=8,
    text=TextConfig(kind="labels", dim=4, labels=LABELS),
)


@pytest.fixture
def scorer(tmp_path: Path) -> ContrastiveScorer:
    """Of a folder."""
    torch.manual_seed(0)
    conditioner = TextConditioner(CONFIG.text)
    folder = tmp_path / "scorer"
    checkpoint.save_bundle(folder, KIND, {PART: ContrastiveModel(CONFIG)}, text_files(conditioner))
    return ContrastiveScorer.load(folder)


def tone(hertz: float, seconds: float = 0.5, rate: int = 1600) -> Sound:
    steps = torch.arange(round(seconds * rate)) / rate
    return Sound(0.5 * torch.sin(2 * torch.pi * hertz * steps)[None], rate)


def test_a_pair_is_scored_by_itself_and_by_its_cosine(scorer: ContrastiveScorer) -> None:
    sounds, texts = [tone(100), tone(400, 0.2), tone(700, 2.0)], ["low", "high", "high"]
    scores = scorer(sounds, texts)
    alone = torch.cat([scorer([sound], [text]) for sound, text in zip(sounds, texts, strict=True)])
    assert torch.allclose(scores, alone, atol=1e-6)
    cosines = (scorer.embed_sounds(sounds) * scorer.embed_texts(texts)).sum(-1)
    assert torch.equal(scores, cosines) and scores.abs().max() <= 1 + 1e-6
    assert torch.allclose(scorer.embed_texts(texts).norm(dim=-1), torch.ones(3), atol=1e-6)
    assert scorer([], []).shape == (0,)


def test_how_loud_a_sound_is_does_not_matter_and_its_silence_is_the_end(scorer: ContrastiveScorer) -> None:
    sound = tone(300)
    quiet = Sound(sound.samples / 20, sound.sample_rate)
    assert torch.allclose(*(scorer.embed_sounds([each]) for each in (sound, quiet)), atol=1e-4)
    short = tone(300, 0.2)
    padded = Sound(torch.nn.functional.pad(short.samples, (0, 480)), 1600)
    assert torch.allclose(scorer.embed_sounds([short]), scorer.embed_sounds([padded]), atol=1e-6)


def test_a_long_sound_is_the_mean_of_windows_that_cover_it(scorer: ContrastiveScorer) -> None:
    first, last = tone(100), tone(700)
    both = Sound(torch.cat([first.samples, last.samples], 1), 1600)
    assert torch.allclose(scorer.embed_sounds([both])[0], scorer.embed_sounds([first, last]).mean(0), atol=1e-6)


def test_order_in_time_counts(scorer: ContrastiveScorer) -> None:
    up = Sound(torch.cat([tone(100, 0.25).samples, tone(700, 0.25).samples], 1), 1600)
    down = Sound(up.samples.flip(1), 1600)
    assert not torch.allclose(scorer.embed_sounds([up]), scorer.embed_sounds([down]), atol=1e-2)


def test_sounds_of_the_same_caption_are_no_rivals() -> None:
    model = ContrastiveModel(CONFIG)
    points = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), dim=-1)
    texts = points[[0, 0, 2]]
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    rivals = model.loss(points, texts, torch.eye(3, dtype=torch.bool))
    sharing = model.loss(points, texts, same)
    logits = 10 * points @ texts.T
    by_hand = [-(logits.log_softmax(d)[same] / same.sum(d, keepdim=True).expand(3, 3)[same]).sum() / 3 for d in (0, 1)]
    assert torch.allclose(sharing, torch.stack(by_hand).mean(), atol=1e-6)
    # Which of two alike it was cannot be told, so both ways of asking leave some doubt, and the same.
    assert torch.allclose(sharing, rivals, atol=0.02) and 0.3 < float(sharing) < 0.7


def test_it_takes_the_place_of_a_clap(scorer: ContrastiveScorer) -> None:
    assert scorer.folder is not None
    for opened in (scorer_of(str(scorer.folder)), clap(str(scorer.folder))):
        assert isinstance(opened, ContrastiveScorer) and opened.fingerprint == scorer.fingerprint
    points = SoundsOf(scorer)([tone(200), tone(500)])
    assert torch.equal(points, scorer.embed_sounds([tone(200), tone(500)])) and SoundsOf(scorer).name == "scorer"
    with pytest.raises(FileNotFoundError, match="no CLAP"):
        clap(str(scorer.folder / "model"))


@pytest.mark.parametrize(
    ("sounds", "texts", "told"),
    [
        ([tone(100)], ["low", "high"], "1 sounds for 2 texts"),
        ([tone(100)], [" "], "a text to score by is empty"),
        ([Sound(torch.full((1, 80), torch.nan), 1600)], ["low"], "a sound to score"),
        ([tone(100)], ["a bell"], "a bell"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    scorer: ContrastiveScorer, sounds: list[Sound], texts: list[str], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        scorer(sounds, texts)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"filters": ()}, "give a positive number for each convolution"),
        ({"filters": (4, 4, 4, 4)}, "halve 12 mel bands"),
        ({"seconds": 0.01}, "more bands and seconds"),
        ({"range_db": 0.0}, "range_db is 0.0, wanted above 0"),
        ({"text": TextConfig()}, "text kind is none"),
    ],
)
def test_what_could_not_listen_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(CONFIG, **change)  # type: ignore[arg-type]


def test_a_changed_part_is_noticed(scorer: ContrastiveScorer) -> None:
    assert scorer.folder is not None
    stored = json.loads((scorer.folder / "config.json").read_text())
    stored["fingerprints"][PART] = "0" * 16
    (scorer.folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="is not what the checkpoint was made of"):
        ContrastiveScorer.load(scorer.folder)


def test_spectrograms_end_at_the_range(scorer: ContrastiveScorer) -> None:
    def shown(range_db: float) -> Tensor:
        model = ContrastiveModel(dataclasses.replace(CONFIG, range_db=range_db))
        noise = 1e-3 * torch.randn(1, 800, generator=torch.Generator().manual_seed(0))
        return model.spectrogram(tone(300).samples + noise)[0]

    wide, narrow = shown(100.0), shown(40.0)
    assert float(wide.max()) == float(narrow.max()) == 1.0
    assert float((narrow == -1).float().mean()) > 0.3 > 0.01 > float((wide == -1).float().mean())
    assert bool((ContrastiveModel(CONFIG).spectrogram(torch.zeros(1, 800)) == -1).all())  # silence is not turned up
    assert audio.log_mel(tone(300).samples, 1600, 64, 16, 12).shape[-2:] == wide.shape
