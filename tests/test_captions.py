"""Captions as words: tags, cleaning, joining, labels."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import pytest

from audiolm_kit import captions
from audiolm_kit.captions import LabelReader, clean, from_tags, join

# --- tags


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        (["Bark"], "bark"),
        (["Bark", "Music, (other)", "bark"], "bark music other"),
        (["Boat, Water vehicle", "Child speech, kid speaking"], "boat water vehicle child speech kid speaking"),
        ("Electric_guitar,Guitar;Dog|Guitar", "electric guitar guitar dog"),
        (("Hip-hop_music", "A capella"), "hip-hop music a capella"),
        (["Chicken's cluck", "¡Olé!"], "chicken's cluck olé"),
        ("dog", "dog"),
        ([], ""),
        ("", ""),
        ([" ", "--", ","], "--"),
    ],
)
def test_tags_make_a_pseudo_sentence(tags: Any, sentence: str) -> None:
    assert from_tags(tags) == sentence


def test_any_iterable_of_tags_will_do() -> None:
    assert from_tags(tag for tag in ["Dog", "Rain"]) == "dog rain"


# --- cleaning


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2 Dogs are barking!", "two dog bark"),
        ("A man's voice, and the birds' songs", "man voice bird song"),
        ("21 bells", "twenty one bell"),
        ("1,000 birds", "one thousand bird"),
        ("a tone of 3.5 kHz", "tone three point five khz"),
        ("the 2nd bell", "second bell"),
        ("50hz hum", "fifty hz hum"),
        ("1, 2, 3", "one two three"),
        ("10-20 people", "ten twenty people"),
        ("007", "seven"),
        ("9" * 16, " ".join(["nine"] * 16)),
        ("rain, then no wind", "rain then no wind"),
        ("It isn’t raining", "not rain"),
        ("high-pitched", "high pitch"),
        ("a saw, leaves rustling, a woman singing", "saw leaf rustle woman sing"),
        ("ＦＵＬＬ width ½", "full width one two"),
        ("кошка мяукает", "кошка мяукает"),
        ("कुत्ता भौंकता है", "कुत्ता भौंकता है"),
    ],
)
def test_a_caption_is_cut_down_to_its_base_words(text: str, words: str) -> None:
    assert clean(text) == words


@pytest.mark.parametrize("text", ["it is what it is", "It's THIS!", "and", "The Who"])
def test_a_caption_of_stop_words_alone_keeps_them(text: str) -> None:
    assert clean(text).split()


def test_only_a_text_without_words_becomes_nothing() -> None:
    assert [clean(text) for text in ("", "  \n", "...", "?!", "♪")] == [""] * 5
    assert all(clean(word) for word in captions.STOP_WORDS)


@pytest.mark.parametrize(
    "text",
    [
        "A man speaks while dogs bark and birds' chirping is heard 3.5 times, then no 2nd bell rings",
        "recordings of buildings, meetings, and the best singing; worse mixes",
        "isn't it what it was?",
        "people were speaking as 1,999 engines idled",
    ],
)
def test_what_is_clean_stays_as_it_is(text: str) -> None:
    assert clean(clean(text)) == clean(text)


def test_a_tag_and_a_caption_of_one_meaning_meet() -> None:
    assert clean("A dog is barking.") == clean(from_tags(["Dog", "Bark"]))


def test_negations_and_words_of_order_stay() -> None:
    kept = {"no", "not", "without", "before", "after", "then", "while", "during"}
    assert not kept & captions.STOP_WORDS
    assert all(clean(f"rain {word} wind") == f"rain {word} wind" for word in kept)


def test_without_its_packages_cleaning_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *given: Any, **options: Any) -> Any:
        if name in ("num2words", "simplemma"):
            raise ModuleNotFoundError(name)
        return real(name, *given, **options)

    captions._tools.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"num2words and simplemma: pip install audiolm_kit\[text\]$"):
        clean("a caption that no other test cleans")


# --- joining


def test_captions_are_joined_unless_one_says_it_all() -> None:
    assert join("a dog", "rain") == "a dog rain"
    assert join("a dog", "rain", " and ") == "a dog and rain"
    assert join("a dog", " a dog ") == "a dog"
    assert join("a dog", "") == join("", "a dog") == join("a dog", "  ") == "a dog"
    assert join("", "") == ""


# --- labels


LABELS = ("dog", "rain", "sea_waves", "sea", "Boat, Water vehicle", "Cats and dogs")


@pytest.mark.parametrize(
    ("caption", "places"),
    [
        ("dog", [0]),
        (" DOG ", [0]),
        ("rain, dog", [1, 0]),
        ("dog and rain", [0, 1]),
        ("dog, rain, and sea", [0, 1, 3]),
        ("dog and dog", [0, 0]),
        ("sea waves", [2]),
        ("Sea_Waves", [2]),
        ("sea, sea waves", [3, 2]),
        ("boat, water vehicle and cats and dogs, dog", [4, 5, 0]),
        ("dog rain", [0, 1]),
        ("", []),
        (" \n", []),
    ],
)
def test_a_caption_names_labels(caption: str, places: list[int]) -> None:
    assert LabelReader(LABELS)(caption) == places


def test_every_label_names_itself() -> None:
    reader = LabelReader(LABELS)
    assert [reader(label) for label in LABELS] == [[place] for place in range(len(LABELS))]


@pytest.mark.parametrize(
    ("caption", "said", "close"),
    [("dgo", "dgo", "dog"), ("rain, big dog and rain", "big dog", "dog"), ("waves", "waves", "sea_waves")],
)
def test_an_unknown_label_is_named_with_the_closest_one(caption: str, said: str, close: str) -> None:
    with pytest.raises(ValueError, match=f"unknown label '{said}', the closest known one is '{close}': all 6 stand"):
        LabelReader(LABELS)(caption)


@pytest.mark.parametrize("caption", [",", "and", ", and"])
def test_a_caption_of_separators_alone_is_no_blank_one(caption: str) -> None:
    with pytest.raises(ValueError, match="unknown label"):
        LabelReader(LABELS)(caption)


@pytest.mark.parametrize("labels", [(), ("dog", ""), ("dog", "Dog"), ("sea_waves", "sea  waves")])
def test_tables_that_name_nothing_or_one_twice_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"name (at least one class|each once)"):
        LabelReader(labels)
