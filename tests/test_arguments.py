"""Command lines made of signatures: every type of option, its spellings, its help and its refusals."""

from __future__ import annotations

import json
from argparse import ArgumentError
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest

from audiolm_kit import arguments
from audiolm_kit.arguments import Numbers, first_cause, numbers_of, several_words, spelt_out


@dataclass(frozen=True)
class Brush:
    """How it is painted."""

    width: float | tuple[float, ...] = 1.0
    """Of the stroke: one, or one for each colour."""
    hairs: int | tuple[int, ...] = 250
    span: tuple[float, float] = (0.0, 1.0)
    """From where to where."""
    kind: Literal["oil", "water"] = "oil"
    """What it is made of."""
    dry: bool = False
    marks: tuple[int, ...] = field(default_factory=lambda: (1, 2))


def paint(
    wall: str,
    *colours: str,
    output: str,
    seconds: float = 2.0,
    text: tuple[str, ...] = (),
    word: list[str] | None = None,
    stream: bool = False,
    prompt: str | None = None,
    brush: Brush,
) -> dict[str, Any]:
    """Paint.

    Args:
        wall: What is painted.
        colours (str, optional): With what.
        output: The picture.
        seconds: How long.
        text: What is written on it.
        word: Single ones.
        stream: At once.
        prompt: What stands there.
    """
    return dict(locals())


def called(*given: str) -> dict[str, Any]:
    result: dict[str, Any] = arguments.call(paint, ["wall", "-o", "x.png", *given], "paint", Brush)
    return result


def refused(*given: str) -> str:
    with pytest.raises(ArgumentError) as refusal:
        called(*given)
    told = first_cause(str(refusal.value))
    assert "\n" not in told
    return told


@dataclass(frozen=True)
class Nail:
    """What it hangs on."""

    length: int = 3
    """In centimetres."""


def hang(picture: str, *, brush: Brush, low: bool = False, nail: Nail) -> dict[str, Any]:
    """Hang.

    Args:
        picture: What hangs.
        low: For children.
    """
    return dict(locals())


def help_of(function: Callable[..., Any], options: type[Any] | None = None) -> str:
    """With the line breaks taken out."""
    return " ".join(arguments.parser_of(function, "paint", options).format_help().split())


def test_several_dataclasses_lie_flat_in_their_places() -> None:
    given = arguments.call(hang, ["sea", "--length", "5", "--low", "--kind", "water"], "hang")
    assert given == {"picture": "sea", "brush": Brush(kind="water"), "low": True, "nail": Nail(5)}
    told = help_of(hang)
    assert told.index("--width") < told.index("--low") < told.index("--length") < told.index("In centimetres.")


# --- several numbers


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ("0.9", 0.9),
        ("1", 1.0),
        ("1e-3", 0.001),
        ("-1", -1.0),
        ("0.9,0.8,0.7,0.7", (0.9, 0.8, 0.7, 0.7)),
        ("[0.9,0.8,0.7,0.7]", (0.9, 0.8, 0.7, 0.7)),
        ("[0.9, 0.8]", (0.9, 0.8)),
        ("(0.9, 0.8)", (0.9, 0.8)),
        ("0.9 0.8", (0.9, 0.8)),
        ("0.9,", (0.9,)),
        ("[0.9]", (0.9,)),
    ],
)
def test_one_number_or_several_are_read_as_users_write_them(spelling: str, value: object) -> None:
    for given in (("--width", spelling), (f"--width={spelling}",)):
        got = called(*given)["brush"].width
        assert got == value and type(got) is type(value)


def test_whole_numbers_stay_whole() -> None:
    brush = called("--hairs", "100,50", "--marks", "3")["brush"]
    assert brush.hairs == (100, 50) and brush.marks == (3,)
    assert all(type(number) is int for number in (*brush.hairs, *brush.marks))
    assert called("--hairs", "7")["brush"].hairs == 7


def test_a_pair_is_two_numbers() -> None:
    assert called("--span", "0.2,0.8")["brush"].span == (0.2, 0.8)
    assert called("--span", "[0.2, 0.8]")["brush"].span == (0.2, 0.8)
    for wrong in ("0.2", "0.2,0.5,0.8", "[]"):
        assert refused("--span", wrong) == f"span: expected float,float, got {wrong}"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--width", "hot"), "width: expected float, got hot"),
        (("--width", "nan"), "width: expected float, got nan"),
        (("--width", "0.9,inf"), "width: expected float, got inf in 0.9,inf"),
        (("--width", "[0.9, hot]"), "width: expected float, got hot in [0.9, hot]"),
        (("--width", ""), "width: expected float or float,float,..., got nothing"),
        (("--hairs", "2.5"), "hairs: expected int, got 2.5"),
        (("--hairs", "1,2.5"), "hairs: expected int, got 2.5 in 1,2.5"),
        (("--marks", "[]"), "marks: expected int,int,..., got []"),
        (("--width",), "width: expected one argument"),
    ],
)
def test_what_is_no_number_is_named_in_one_line(given: tuple[str, ...], told: str) -> None:
    assert refused(*given) == told


def test_options_survive_the_way_through_json() -> None:
    brush = Brush(width=(0.5, 0.25), hairs=(3, 4), span=(0.25, 0.75), kind="water", dry=True, marks=(9,))
    spelt = [f"--{name}={value}" for name, value in json.loads(json.dumps(asdict(brush))).items()]
    assert called(*spelt)["brush"] == brush
    assert called(*(f"--{name}={value}" for name, value in asdict(Brush()).items()))["brush"] == Brush()


@pytest.mark.parametrize(
    ("hint", "numbers"),
    [
        (float | tuple[float, ...], Numbers(float, None, True)),
        (tuple[int, ...] | int, Numbers(int, None, True)),
        (tuple[float, float], Numbers(float, 2, False)),
        (tuple[int, int, int], Numbers(int, 3, False)),
        (float, None),
        (float | None, None),
        (str | tuple[float, ...], None),
        (tuple[int, float], None),
        (tuple[str, ...], None),
        (tuple[float, ...] | None, None),
    ],
)
def test_the_types_that_hold_several_numbers(hint: object, numbers: Numbers | None) -> None:
    assert numbers_of(hint) == numbers


# --- several words


def test_an_option_that_is_said_again_gathers_its_words_as_they_stand() -> None:
    given = called("--text", "0-4: rain", "--text", "null", "--text", "1:30-2:00: [a, b]", "--word", "7")
    assert given["text"] == ("0-4: rain", "null", "1:30-2:00: [a, b]")
    assert given["word"] == ["7"]
    assert called()["text"] == () and called()["word"] is None


def test_words_replace_the_default_and_do_not_join_it() -> None:
    def write(*, text: tuple[str, ...] = ("a", "b")) -> tuple[str, ...]:
        """Write.

        Args:
            text: What.
        """
        return text

    assert arguments.call(write, [], "write") == ("a", "b")
    assert arguments.call(write, ["--text", "c"], "write") == ("c",)
    assert arguments.call(write, [], "write") == ("a", "b")


def test_the_types_that_hold_several_words() -> None:
    assert several_words(list[str]) is list and several_words(tuple[str, ...] | None) is tuple
    assert several_words(str) is several_words(list[int]) is several_words(tuple[str, str]) is None


# --- names


def test_names_may_be_written_with_hyphens(capsys: pytest.CaptureFixture[str]) -> None:
    def try_(*words: str, top_k: int = 1, at_once: bool = False) -> tuple[Any, ...]:
        """Try.

        Args:
            words: What is said.
            top_k: Of how many.
            at_once: Or by and by.
        """
        return (*words, top_k, at_once)

    expected = ("x", 3, True)
    for given in (
        ["x", "--top-k", "3", "--at-once"],
        ["x", "--top_k=3", "--at-once=true"],
        ["--top-k=3", "--at_once", "x"],
    ):
        assert arguments.call(try_, given, "try") == expected
    assert arguments.call(try_, ["--at-once", "--top-k", "3", "--", "--at-once"], "try") == ("--at-once", 3, True)
    with pytest.raises(ArgumentError, match="--top-q"):
        arguments.call(try_, ["x", "--top-q", "3"], "try")
    help_ = arguments.parser_of(try_, "try").format_help()
    assert "--top_k" in help_ and "--top-k" not in help_


# --- flags, choices, nothing


@pytest.mark.parametrize(
    ("given", "dry"),
    [
        ((), False),
        (("--dry",), True),
        (("--dry", "true"), True),
        (("--dry", "false"), False),
        (("--dry=false",), False),
        (("--dry", "yes"), True),
        (("--dry", "No"), False),
        (("--dry", "--stream"), True),
    ],
)
def test_a_flag_stands_alone_or_with_its_truth(given: tuple[str, ...], dry: bool) -> None:
    assert called(*given)["brush"].dry is dry


def test_words_behind_a_flag_are_words() -> None:
    given = called("--dry", "--stream", "rain", "a dog")
    assert given["stream"] is True and given["brush"].dry is True and given["colours"] == ("rain", "a dog")
    assert refused("--stream=maybe") == "stream: expected bool, got maybe"
    assert spelt_out(["--dry", "--", "--dry", "x"], ["--dry"]) == ["--dry=true", "--", "--dry", "x"]


def test_a_wrong_choice_is_told_the_right_ones() -> None:
    assert called("--kind", "water")["brush"].kind == "water"
    assert refused("--kind", "wax") == "kind: expected Literal['oil', 'water'], got wax"


def test_an_optional_word_is_a_word_or_none() -> None:
    assert called()["prompt"] is None
    assert called("--prompt", "1:30")["prompt"] == "1:30"
    assert called("--prompt", "-")["prompt"] == "-"


# --- words that may be left out


def test_words_described_as_optional_may_be_left_out_and_stand_anywhere() -> None:
    assert called()["colours"] == ()
    assert called("red", "blue")["colours"] == ("red", "blue")
    before = arguments.call(paint, ["wall", "red", "blue", "-o", "x.png"], "paint", Brush)
    assert before["colours"] == ("red", "blue")


def test_other_words_are_required() -> None:
    def mix(*colours: str, output: str) -> None:
        """Mix.

        Args:
            colours: At least one.
            output: Where.
        """

    with pytest.raises(ArgumentError, match="arguments are required: colours"):
        arguments.call(mix, ["--output", "x"], "mix")
    assert "colours [colours ...]" in help_of(mix)


def test_abbreviations_are_not_guessed() -> None:
    assert refused("red", "--sec", "3") == "unrecognized arguments: --sec 3"
    assert refused("red", "--stre") == "unrecognized arguments: --stre"


# --- help


def test_help_shows_how_each_option_is_written() -> None:
    told = help_of(paint, Brush)
    assert told.startswith("usage: paint -o OUTPUT [--seconds SECONDS] [--text TEXT]")
    assert " wall [colours ...] Paint." in told
    for line in (
        "wall What is painted. (required, type: str)",
        "colours With what. (type: str)",
        "--text TEXT What is written on it. Say it again for each further one. (type: str)",
        "--stream [{true,false}] At once. (type: bool, default: False)",
        "--prompt PROMPT What stands there. (type: str | null, default: null)",
        "--width FLOAT[,FLOAT...] Of the stroke: one, or one for each colour. "
        "(type: float or float,float,..., default: 1.0)",
        "--hairs INT[,INT...] (type: int or int,int,..., default: 250)",
        "--span FLOAT,FLOAT From where to where. (type: float,float, default: (0.0, 1.0))",
        "--kind {oil,water} What it is made of.",
    ):
        assert line in told


def test_an_argparse_message_is_told_as_the_others_are() -> None:
    assert first_cause("argument -o/--output: expected one argument") == "output: expected one argument"
    assert first_cause("argument --model.rate: expected one argument") == "model.rate: expected one argument"
    assert first_cause("the argument x: is odd") == "the argument x: is odd"
