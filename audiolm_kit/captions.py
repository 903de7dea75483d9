"""Captions as words: tag lists to pseudo-sentences, cleaning, joining, and the class labels that a caption names."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

# Words that name no sound. Negations (no, not, without) and words of order (before, after, then, while, during) are
# not among them: a caption without them says something else.
STOP_WORDS = frozenset(
    """
    a an the this that these those such some any each every either both all another other others own same so very too
    i me my mine we us our ours you your yours he him his she her hers it its they them their theirs
    myself ourselves yourself yourselves himself herself itself themselves who whom whose which what where when how why
    am is are was were be been being do does did doing done have has had having can could may might must shall should
    will would get gets got getting
    and or but if because as until of at by for with about against between into through to from up down in out on off
    over under upon onto toward towards near around along across behind beside besides within via per than
    there here just only also even quite rather really still yet again once now
    etc like
    """.split()
)
_ENDINGS = re.compile(r"'(?:s|re|ve|ll|d|m)?$|^'")
_NUMBER = re.compile(r"((?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?)(?:(st|nd|rd|th)(?![^\W\d_]))?")
# Where simplemma's dictionary errs on words of sound.
_BASES = {"saw": "saw", "leaves": "leaf", "best": "good", "worse": "bad"} | {
    form: base
    for base, forms in {
        "beat": "beating", "burn": "burning", "close": "closing", "cut": "cutting", "file": "filing",
        "mix": "mixes mixed mixing", "play": "playing", "rumble": "rumbling", "rustle": "rustling",
        "scrape": "scraping", "sing": "singing", "swing": "swinging", "write": "writing",
    }.items()
    for form in forms.split()
}  # fmt: skip
_LONGEST = 15  # digits that are read as one number; more are read one by one


def from_tags(tags: str | Iterable[str]) -> str:
    """A pseudo-sentence of tags, joined by spaces (AudioGen, arXiv:2209.15352, section 4).

    ``["Bark", "Music, (other)"]`` becomes ``bark music other``: lower case, punctuation and underscores out, each tag
    once, in the order given.

    Args:
        tags: One tag each, or one text that divides them by ``,``, ``;`` or ``|``.
    """
    listed = re.split(r"[,;|]", tags) if isinstance(tags, str) else tags
    said = (" ".join(_letters(tag.lower(), keep="'-")) for tag in listed)
    return " ".join(dict.fromkeys(tag for tag in said if tag))


def join(first: str, second: str, joiner: str = " ") -> str:
    """Both captions of a mixture; one of them where they are equal or the other is blank."""
    if not second.strip() or first.strip() == second.strip():
        return first
    return f"{first}{joiner}{second}" if first.strip() else second


@lru_cache(maxsize=2**18)
def clean(text: str) -> str:
    """A caption cut down to what a tag list would say, so that both speak alike (AudioGen, section 4).

    Numbers become words, punctuation and stop words go, what is left is in its base form: ``2 Dogs are barking!``
    becomes ``two dog bark``. Negations and words of order stay, unlike in common lists. A caption of nothing but stop
    words keeps them; only one without any letter or digit becomes ``""``.

    Raises:
        ValueError: the packages that this takes are not installed.
    """
    to_words, to_base = _tools()
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    words = [word for word in map(_plain, _letters(_spelled(text, to_words), keep="'")) if word]
    bases = (to_base(word) for word in words if word not in STOP_WORDS)
    return " ".join([base for base in bases if base not in STOP_WORDS] or words)


def _letters(text: str, keep: str) -> list[str]:
    """The words: runs of letters, digits and the characters to keep."""
    return "".join(each if each in keep or unicodedata.category(each)[0] in "LMN" else " " for each in text).split()


def _plain(word: str) -> str:
    """Without its apostrophes: ``dog's`` is dog, ``they're`` is they, ``isn't`` is not."""
    return "not" if word.endswith("n't") else _ENDINGS.sub("", word).replace("'", "")


def _spelled(text: str, to_words: Callable[..., str]) -> str:
    """Every number in words: 21, 1,000, 3.5, 2nd; also where letters touch it, as in 50hz."""

    def words(found: re.Match[str]) -> str:
        number, ordinal = found[1].replace(",", ""), bool(found[2])
        whole, point, part = number.partition(".")
        if len(whole) > _LONGEST:
            said = " ".join(to_words(int(digit)) for digit in whole)
        else:
            said = to_words(int(whole), to="ordinal" if ordinal and not point else "cardinal")
        return " ".join(["", said, *(["point"] if point else []), *(to_words(int(digit)) for digit in part), ""])

    return _NUMBER.sub(words, text).replace("-", " ")


@lru_cache(maxsize=1)
def _tools() -> tuple[Callable[..., str], Callable[[str], str]]:
    """Numbers to words, and a word to its base form; both without files or network beside the packages."""
    try:
        from num2words import num2words
        from simplemma import lemmatize
    except ImportError:
        message = "cleaning captions takes num2words and simplemma: pip install audiolm_kit[text]"
        raise ValueError(message) from None

    @lru_cache(maxsize=2**16)
    def to_base(word: str) -> str:
        for _ in range(4):  # until it stands still, so that what is clean stays as it is
            base = _BASES.get(word) or lemmatize(word, lang="en").lower()
            if base == word:
                break
            word = base
        return word

    return num2words, to_base


class LabelReader:
    """Caption -> the places of the labels it names, in its order.

    A caption is one label or several, divided by commas or ``and`` (or by nothing: of the labels that may begin at a
    word the longest counts, so labels may hold commas and ``and`` themselves). Case and underscores do not count.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        """Take the table of labels; their places are the rows of an embedding."""
        words = [tuple(_label_words(label)) for label in labels]
        if not labels or not all(words):
            raise ValueError(f"labels are {list(labels)!r:.80}: name at least one class, and none by an empty text")
        twice = [label for place, label in enumerate(labels) if words[place] in words[:place]]
        if twice:
            raise ValueError(f"label {twice[0]!r} is there twice (case and underscores do not count): name each once")
        self._labels = list(labels)
        self._places = {each: place for place, each in enumerate(words)}
        self._longest = max(map(len, words))

    def __call__(self, caption: str) -> list[int]:
        """The places of its labels; none for a blank caption.

        Raises:
            ValueError: it names something else.
        """
        words, at, found = _label_words(caption), 0, []
        while at < len(words):
            ends = range(min(len(words), at + self._longest), at, -1)
            end = next((end for end in ends if tuple(words[at:end]) in self._places), None)
            if end is not None:
                found.append(self._places[tuple(words[at:end])])
                at = end
            elif words[at] in (",", "and"):
                at += 1
            else:
                raise ValueError(self._unknown(words[at:]))
        if words and not found:
            raise ValueError(self._unknown(words))
        return found

    def _unknown(self, words: list[str]) -> str:
        divided = next((place for place, word in enumerate(words) if word in (",", "and")), len(words))
        said = " ".join(words[: max(1, divided)])
        known = {" ".join(_label_words(label)): label for label in self._labels}
        close = difflib.get_close_matches(said, known, n=1, cutoff=0.0)[0]
        count = "the one label stands" if len(known) == 1 else f"all {len(known)} stand"
        return (
            f"unknown label {said!r}, the closest known one is {known[close]!r}: {count} under text.labels in the "
            "model's config.json"
        )


def _label_words(text: str) -> list[str]:
    return re.findall(r"[^\s,]+|,", text.casefold().replace("_", " "))
