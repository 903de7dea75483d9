"""A model may bring the scorer that chooses among its takes; it is saved, copied, checked and noted like its parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_audiogen import RATE, SAMPLING, TEXTS, a_model

from audiolm_kit import checkpoint
from audiolm_kit.cli import main
from audiolm_kit.conditioning import TextConditioner, TextConfig, text_files
from audiolm_kit.evaluation.contrastive import KIND, PART, ContrastiveConfig, ContrastiveModel, ContrastiveScorer
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.inference.candidates import BROUGHT, candidate_seed
from audiolm_kit.official.parts import read_ours, write_ours
from audiolm_kit.text import Vocabulary

TEXT = TEXTS[2]


@pytest.fixture
def scorer(vocabulary: Vocabulary, tmp_path: Path) -> ContrastiveScorer:
    torch.manual_seed(3)
    text = TextConfig(kind="small", dim=8, layers=1, heads=2, pieces=vocabulary.size)
    config = ContrastiveConfig(RATE, 0.2, fft_size=128, hop=80, mels=12, filters=(4, 4), dim=8, text=text)
    conditioner = TextConditioner(text, vocabulary)
    checkpoint.save_bundle(tmp_path / "small", KIND, {PART: ContrastiveModel(config)}, text_files(conditioner))
    return ContrastiveScorer.load(tmp_path / "small")


@pytest.fixture
def saved(vocabulary: Vocabulary, scorer: ContrastiveScorer, tmp_path: Path) -> Path:
    plain = a_model(vocabulary)
    AudioGen(plain.codec, plain.lm.float(), plain.conditioner, scorer).save(tmp_path / "model")
    shutil.rmtree(tmp_path / "small")  # nothing of it is needed any more
    return tmp_path / "model"


def test_without_a_name_the_scorer_that_came_along_chooses(saved: Path) -> None:
    model = AudioGen.load(saved)
    assert model.scorer is not None
    [choice] = model.best_of([TEXT], 0.2, SAMPLING, seed=5, candidates=4)
    takes = [model.generate([TEXT], 0.2, SAMPLING, candidate_seed(5, j))[0] for j in range(4)]
    scores = model.scorer(takes, [TEXT] * 4)
    assert choice.scores == pytest.approx(scores.tolist(), abs=1e-6)
    assert choice.seed == candidate_seed(5, int(scores.argmax())) and len(set(choice.scores)) == 4
    [sound] = model.generate([TEXT], 0.2, SAMPLING, seed=5, candidates=4)
    assert torch.equal(sound.samples, choice.sound.samples)


def test_another_one_that_is_named_comes_first(saved: Path) -> None:
    model = AudioGen.load(saved)
    [choice] = model.best_of([TEXT], 0.2, SAMPLING, candidates=3, scorer=lambda sounds, texts: torch.arange(3.0))
    assert choice.scores == (0.0, 1.0, 2.0)
    assert model.best_of([TEXT], 0.2, SAMPLING, candidates=3, scorer="self")[0].scores != choice.scores


def test_it_is_part_of_the_checkpoint(saved: Path, tmp_path: Path) -> None:
    model = AudioGen.load(saved)
    assert set(model.fingerprints) == {"codec", "lm", "text.model", "scorer"}
    model.save(saved)  # over itself
    AudioGen.load(saved).save(tmp_path / "copy")
    assert AudioGen.load(tmp_path / "copy").fingerprints == model.fingerprints
    (saved / "scorer" / "text.model").write_bytes(b"")
    with pytest.raises(ValueError, match="scorer"):
        AudioGen.load(saved)


def test_who_chose_stands_in_the_note(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "sound.wav"
    assert main(["generate", str(saved), TEXT, "-o", str(out), "--seconds", "0.2", "--candidates", "3"]) == 0
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["scorer"] == BROUGHT and len(about["scores"]) == 3 and about["score"] == max(about["scores"])


def test_what_could_not_come_along_is_refused(vocabulary: Vocabulary, scorer: ContrastiveScorer) -> None:
    plain = a_model(vocabulary)
    loose = ContrastiveScorer(scorer.model, scorer.conditioner)
    with pytest.raises(ValueError, match="cannot bring a scorer: it would copy its folder, and it has none"):
        AudioGen(plain.codec, plain.lm, plain.conditioner, loose)


def test_what_reads_the_parts_of_a_checkpoint_knows_of_it(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(saved), str(saved)]) == 0
    assert "Equal in all that was compared." in capsys.readouterr().out
    write_ours(read_ours(saved), tmp_path / "again")
    assert AudioGen.load(tmp_path / "again").fingerprints == AudioGen.load(saved).fingerprints
