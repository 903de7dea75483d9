"""A function's signature as a command line: its docstring is the help, dataclasses among its parameters lie flat.

How types are spelt: numbers, words and choices as they are; several numbers (``float | tuple[float, ...]``,
``tuple[float, float]``) with commas, brackets or not; ``bool`` as ``--flag`` or ``--flag true|false``; several words
(``list[str]``, ``tuple[str, ...]``) by saying the option again for each. Names may be written with - for _.
"""

from __future__ import annotations

import math
import re
from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from inspect import Parameter, signature
from types import UnionType
from typing import TYPE_CHECKING, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

# jsonargparse is imported where it is used, so that a list of commands can be shown without it.

SHORT = {"output": "-o"}
TRUTHS = ("true", "false", "yes", "no")  # what may stand behind a flag
FRAME = re.compile(  # the lines of a jsonargparse message that hold no reason
    r"(- )?(Parser key \"[^\"]+\":|Does not validate against .*|Subtypes: .*|Errors:|Problem with given class_path .*:|"
    r"Expected a path but .*|Given value.*|Expected a <class 'NoneType'>)?"
)


class Argument(NamedTuple):
    """One word or option of a command line, made from a parameter or from a field of an options dataclass."""

    name: str
    hint: Any
    about: str | None
    default: Any  # Parameter.empty where there is none
    kind: Any = Parameter.KEYWORD_ONLY
    optional: bool = False  # of any number of words: there may be none


@dataclass(frozen=True)
class Numbers:
    """Reads numbers that commas part, ``0.9,0.8``, also in brackets as JSON and Python write them.

    It raises what argparse shows; what is no text is a value already and passes.
    """

    item: type
    count: int | None
    """How many there must be; None takes any number of them."""
    alone: bool
    """A single number may stand for all, and stays a number."""

    def __call__(self, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        words = [word for word in re.split(r"[\s,]+", given.strip(" ()[],")) if word]
        bare = not re.search(r"[,()\[\]]", given)
        if len(words) != self.count if self.count else not words:
            raise ArgumentTypeError(f"expected {self}, got {given or 'nothing'}")
        values = tuple(self._number(word, given) for word in words)
        if self.alone and bare and len(values) == 1:
            return values[0]
        return values

    def _number(self, word: str, given: str) -> Any:
        try:
            value = self.item(word)
            if math.isfinite(value):
                return value
        except ValueError:
            pass
        where = "" if word == given else f" in {given}"
        raise ArgumentTypeError(f"expected {self.item.__name__}, got {word}{where}")

    def __repr__(self) -> str:
        name = self.item.__name__
        several = ",".join([name] * self.count) if self.count else f"{name},{name},..."
        return f"{name} or {several}" if self.alone else several

    @property
    def placeholder(self) -> str:
        """What help shows in the value's place."""
        name = self.item.__name__.upper()
        return ",".join([name] * self.count) if self.count else f"{name}[,{name}...]"


def call(function: Callable[..., Any], arguments: list[str], prog: str, options: type[Any] | None = None) -> Any:
    """Parse ``arguments`` by the signature of ``function`` and call it.

    Args:
        function: Its positional parameters are arguments in their order, its keyword-only ones options; all are
            annotated and described under ``Args:``. Of ``*words`` at least one must be given, unless they are described
            as ``words (str, optional): ...``. Fields of a parameter that is a dataclass become options too.
        prog: The command as the user types it.
        options: Such a dataclass that the function's module imports for type checkers alone.

    Raises:
        argparse.ArgumentError: The arguments do not fit; `first_cause` makes one line of it.
    """
    values = vars(parser_of(function, prog, options).parse_args(arguments).as_flat())
    named: dict[str, Any] = {}
    positional: list[Any] = []
    for given in arguments_of(function, options):
        if lies_flat(given.hint):
            own = {field.name: value_of(field, values) for field in fields_of(given.hint)}
            named[given.name] = given.hint(**own)
        elif given.kind is Parameter.VAR_POSITIONAL:
            positional += values[given.name] or []
        elif given.kind is Parameter.KEYWORD_ONLY:
            named[given.name] = value_of(given, values)
        else:
            positional.append(values[given.name])
    return function(*positional, **named)


def parser_of(function: Callable[..., Any], prog: str, options: type[Any] | None = None) -> ArgumentParser:
    """The parser that `call` uses; it raises instead of exiting."""
    from jsonargparse import ArgumentParser

    flags: list[str] = []
    written: dict[str, str] = {}  # how else an option may be written -> its name

    class Parser(ArgumentParser):  # type: ignore[misc]
        """Lets words follow a flag, and shows in brackets what may be left out."""

        def parse_args(self, args: list[str], **settings: Any) -> Any:  # type: ignore[override]
            return super().parse_args(spelt_out(underscored(args, written), flags), **settings)

        def format_help(self, *settings: Any) -> str:
            shown: str = super().format_help(*settings)
            for each in (action.dest for action in self._actions if action.nargs == "+" and not action.required):
                shown = shown.replace(f" {each} [{each} ...]", f" [{each} ...]", 1)
            return shown

    parser = Parser(prog=prog, description=first_line(function), exit_on_error=False, allow_abbrev=False)
    for given in arguments_of(function, options):
        for each in fields_of(given.hint) if lies_flat(given.hint) else [given]:
            names, settings = spelling(each)
            added = parser.add_argument(*names, **settings)
            if each.optional:
                added.required = False  # as nargs "*", but words behind the options are found
            if each.hint is bool:
                flags += names
            written |= {f"--{name[2:].replace('_', '-')}": name for name in names if name.startswith("--")}
    return parser


def spelling(given: Argument) -> tuple[list[str], dict[str, Any]]:
    """How an argument is written, and how often it must or may stand there: names and settings for argparse."""
    settings: dict[str, Any] = {"type": given.hint, "help": given.about}
    if given.default is not Parameter.empty:
        settings["default"] = given.default
    if given.kind is Parameter.VAR_POSITIONAL:
        return [given.name], {**settings, "nargs": "+"}
    if given.kind is not Parameter.KEYWORD_ONLY:
        return [given.name], {**settings, "nargs": "?"} if "default" in settings else settings
    if "default" not in settings:
        settings["required"] = True
    if numbers := numbers_of(given.hint):
        settings |= {"type": numbers, "metavar": numbers.placeholder}
    elif several_words(given.hint):
        about = f"{given.about or ''} Say it again for each further one.".strip()
        settings |= {"type": str, "action": "append", "help": about}
        if "default" in settings:
            settings["default"] = SUPPRESS  # argparse would add to it; `value_of` puts it back
    elif given.hint is bool:
        settings |= {"nargs": "?", "const": True}
    short = [SHORT[given.name]] if given.name in SHORT else []
    return [*short, f"--{given.name}"], settings


def value_of(given: Argument, values: dict[str, Any]) -> Any:
    """What was parsed for an option, as its type wants it."""
    several = several_words(given.hint)
    if several is None:
        return values[given.name]
    return several(values[given.name]) if given.name in values else given.default


def numbers_of(hint: Any) -> Numbers | None:
    """The reader of a type that holds several numbers, ``tuple[X, ...]``, ``tuple[X, X]``, or one of them or an X."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    tuples = [member for member in members if get_origin(member) is tuple]
    if len(tuples) != 1:
        return None
    items = get_args(tuples[0])
    alone = [member for member in members if member is not tuples[0]]
    if items[0] not in (int, float) or {*items, *alone} - {items[0], Ellipsis}:
        return None
    return Numbers(items[0], None if items[-1] is Ellipsis else len(items), bool(alone))


def several_words(hint: Any) -> type[list[Any]] | type[tuple[Any, ...]] | None:
    """The type, list or tuple, that a repeatable option gathers its words in; None for other types."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for member in members:
        if member == list[str]:
            return list
        if member == tuple[str, ...]:
            return tuple
    return None


def underscored(arguments: list[str], written: Mapping[str, str]) -> list[str]:
    """``--some-option`` and ``--some-option=x`` as ``--some_option``, up to a ``--``."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parted = [argument.partition("=") for argument in arguments[:end]]
    return ["".join((written.get(name, name), *value)) for name, *value in parted] + arguments[end:]


def spelt_out(arguments: list[str], flags: list[str]) -> list[str]:
    """``--flag`` as ``--flag=true`` where a word that is no truth value follows, which is not for the flag then."""
    spelt, words = [], False
    for argument, follower in zip(arguments, [*arguments[1:], "--"], strict=False):
        words = words or argument == "--"
        lone = argument in flags and follower.lower() not in TRUTHS
        spelt.append(f"{argument}=true" if lone and not words else argument)
    return spelt


def arguments_of(function: Callable[..., Any], options: type[Any] | None) -> Iterator[Argument]:
    """Each parameter in order; ``options`` may be imported for type checkers only."""
    import docstring_parser

    hints = get_type_hints(function, localns={options.__name__: options} if options else None)
    told = {each.arg_name: each for each in docstring_parser.parse(function.__doc__ or "").params}
    for parameter in signature(function).parameters.values():
        name, hint = parameter.name, hints[parameter.name]
        if lies_flat(hint):
            yield Argument(name, hint, None, Parameter.empty)
            continue
        optional = parameter.kind is Parameter.VAR_POSITIONAL and bool(told[name].is_optional)
        yield Argument(name, hint, told[name].description, parameter.default, parameter.kind, optional)


def lies_flat(hint: Any) -> bool:
    """Whether a parameter's type is a dataclass, whose fields are options each."""
    return isinstance(hint, type) and is_dataclass(hint)


def fields_of(options: type[Any]) -> Iterator[Argument]:
    """Each field of an options dataclass; the string that follows it in the source describes it."""
    import docstring_parser

    hints = get_type_hints(options)
    told = {each.arg_name: each.description for each in docstring_parser.parse_from_object(options).params}
    for field in fields(options):
        yield Argument(field.name, hints[field.name], told.get(field.name), default_of(field))


def default_of(field: Field[Any]) -> Any:
    """A field's default, or Parameter.empty."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return Parameter.empty if field.default is MISSING else field.default


def first_line(function: Callable[..., Any]) -> str:
    """The claim that a docstring opens with."""
    return (function.__doc__ or "").strip().splitlines()[0]


def first_cause(message: str) -> str:
    """One line: jsonargparse nests its reasons and lists all it tried; the whole key and the innermost reason stay."""
    lines = [line.strip() for line in re.sub(r'(Parser key "[^"]+":) ', r"\1\n", message).splitlines()]
    reasons = [line.removeprefix("- ") for line in lines if not FRAME.fullmatch(line)]
    if len(reasons) == len(lines) or not reasons:  # not one of theirs
        line = " ".join(message.split())
        return re.sub(r"^argument (?:-\w/)?(?:--)?([\w.]+): ", r"\1: ", line)
    reason = reasons[0]
    if wrong := re.fullmatch(r"Expected an? (.+)\. Got value: (.*)", reason):
        wanted = re.sub(r"typing\.|<class '(?:\w+\.)*(\w+)'>", r"\1", wrong[1])
        reason = f"expected {wanted}, got {wrong[2]}"
    keys = re.findall(r'Parser key "([^"]+)":', message)
    return f"{'.'.join(keys)}: {reason}" if keys else reason
