"""Laws of the text vocabulary: what goes in comes out, few captions are enough, files are whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiolm_kit.text import PADDING, UNKNOWN, Vocabulary, train

DIGITS = "zero one two three four five six seven eight nine".split()
CAPTIONS = [f"a {who} says {digit}, {how}" for who in ("man", "woman") for digit in DIGITS for how in ("loud", "soft")]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return train(CAPTIONS, tmp_path_factory.mktemp("text") / "text.model", size=40)


def test_captions_come_back_from_their_pieces(vocabulary: Vocabulary) -> None:
    assert vocabulary.size == 40
    assert vocabulary.decode(vocabulary.encode(CAPTIONS)) == CAPTIONS
    assert vocabulary.decode(vocabulary.encode(["A Man  SAYS two,\nsoft"])) == ["a man says two, soft"]


def test_frequent_words_are_one_piece_even_in_few_captions(tmp_path: Path) -> None:
    with pytest.warns(UserWarning):
        vocabulary = train(CAPTIONS, tmp_path / "text.model")
    assert vocabulary.encode(["a woman says seven"]).mask.sum() == 4


def test_pieces_are_padded_behind_and_empty_texts_masked_throughout(vocabulary: Vocabulary) -> None:
    codes, mask = vocabulary.encode(["a man says two, soft", "", " \n", "two"])
    lengths = mask.sum(dim=1).tolist()
    assert lengths[0] == codes.shape[1] > lengths[3] > 0 and lengths[1:3] == [0, 0]
    assert torch.equal(mask, torch.arange(codes.shape[1]) < mask.sum(dim=1, keepdim=True))
    assert (codes[~mask] == PADDING).all() and (codes[mask] > UNKNOWN).all()
    assert codes.dtype == torch.long


def test_a_batch_of_empty_texts_has_one_masked_column(vocabulary: Vocabulary) -> None:
    codes, mask = vocabulary.encode(["", ""])
    assert codes.shape == mask.shape == (2, 1) and not mask.any()


def test_unseen_characters_become_unknown(vocabulary: Vocabulary) -> None:
    assert UNKNOWN in vocabulary.encode(["日"]).codes


def test_saved_vocabulary_is_the_same_and_alone_in_its_folder(vocabulary: Vocabulary, tmp_path: Path) -> None:
    vocabulary.save(tmp_path / "deep" / "text.model")
    assert Vocabulary.load(tmp_path / "deep" / "text.model").model == vocabulary.model
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["text.model"]


def test_training_does_not_depend_on_the_order_of_captions(vocabulary: Vocabulary, tmp_path: Path) -> None:
    assert train(reversed(CAPTIONS), tmp_path / "text.model", size=40).model == vocabulary.model


@pytest.mark.parametrize(
    "captions", [["a"], ["seven"], ["1", "2"], ["日本語 のテスト"], ["two"] * 20, ["a\nb", "", "x" * 9000]]
)
def test_few_captions_make_a_smaller_vocabulary_with_a_warning(captions: list[str], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="not 1000"):
        vocabulary = train(captions, tmp_path / "text.model")
    assert 3 <= vocabulary.size < 1000
    assert vocabulary.decode(vocabulary.encode(captions)) == [" ".join(text.split()) for text in captions]


def test_too_small_a_size_grows_to_hold_every_character(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="not 2"):
        vocabulary = train(CAPTIONS, tmp_path / "text.model", size=2)
    assert UNKNOWN not in vocabulary.encode(CAPTIONS).codes


@pytest.mark.parametrize("captions, size", [([], 10), (["", " "], 10), (["a"], 0)])
def test_nothing_to_train_on_is_refused_and_writes_nothing(captions: list[str], size: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        train(captions, tmp_path / "text.model", size)
    assert not list(tmp_path.iterdir())


def test_missing_and_foreign_files_are_refused(vocabulary: Vocabulary, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Vocabulary.load(tmp_path / "nowhere.model")
    for content in (b"", b"not a model", vocabulary.model[: len(vocabulary.model) // 2]):
        (tmp_path / "foreign.model").write_bytes(content)
        with pytest.raises(ValueError, match="foreign.model"):
            Vocabulary.load(tmp_path / "foreign.model")
