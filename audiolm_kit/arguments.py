"""A function's signature as a command line: its docstring is the help, a dataclass among its parameters lies flat."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

# jsonargparse is imported where it is used, so that a list of commands can be shown without it.

SHORT = {"output": "-o"}
FRAME = re.compile(  # the lines of a jsonargparse message that hold no reason
    r"(- )?(Parser key \"[^\"]+\":|Does not validate against .*|Subtypes: .*|Errors:|Problem with given class_path .*:|"
    r"Expected a path but .*|Given value.*|Expected a <class 'NoneType'>)?"
)


def call(function: Callable[..., Any], arguments: list[str], prog: str, options: type[Any] | None = None) -> Any:
    """Parse ``arguments`` by the signature of ``function`` and call it.

    Args:
        function: Its positional parameters are arguments in their order, its keyword-only ones options; all are
            annotated and described under ``Args:``.
        prog: The command as the user types it.
        options: A dataclass whose fields become options too; the one parameter of that type gets them.

    Raises:
        argparse.ArgumentError: The arguments do not fit; `first_cause` makes one line of it.
    """
    values = vars(parser_of(function, prog, options).parse_args(arguments).as_flat())
    named: dict[str, Any] = {}
    positional: list[Any] = []
    for parameter, hint in described(function, options):
        if options is not None and hint is options:
            named[parameter.name] = options(**{field.name: values[field.name] for field in fields(options)})
        elif parameter.kind is Parameter.VAR_POSITIONAL:
            positional += values[parameter.name]
        elif parameter.kind is Parameter.KEYWORD_ONLY:
            named[parameter.name] = values[parameter.name]
        else:
            positional.append(values[parameter.name])
    return function(*positional, **named)


def parser_of(function: Callable[..., Any], prog: str, options: type[Any] | None = None) -> ArgumentParser:
    """The parser that `call` uses; it raises instead of exiting."""
    import docstring_parser
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    about = {each.arg_name: each.description for each in docstring_parser.parse(function.__doc__ or "").params}
    parser = ArgumentParser(prog=prog, description=first_line(function), exit_on_error=False)
    for parameter, hint in described(function, options):
        if options is not None and hint is options:
            parser.add_class_arguments(options, as_group=False)
        else:
            names, settings = argument_of(parameter)
            parser.add_argument(*names, type=hint, help=about[parameter.name], **settings)
    return parser


def argument_of(parameter: Parameter) -> tuple[list[str], dict[str, Any]]:
    """How a parameter is spelt on the command line, and how often it must or may stand there."""
    settings: dict[str, Any] = {} if parameter.default is Parameter.empty else {"default": parameter.default}
    if parameter.kind is Parameter.KEYWORD_ONLY:
        short = [SHORT[parameter.name]] if parameter.name in SHORT else []
        return [*short, f"--{parameter.name}"], settings or {"required": True}
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return [parameter.name], {"nargs": "+"}
    return [parameter.name], {**settings, "nargs": "?"} if settings else {}


def described(function: Callable[..., Any], options: type[Any] | None) -> Iterator[tuple[Parameter, Any]]:
    """Each parameter with its type, in order; ``options`` may be imported for type checkers only."""
    hints = get_type_hints(function, localns={options.__name__: options} if options else None)
    for parameter in signature(function).parameters.values():
        yield parameter, hints[parameter.name]


def first_line(function: Callable[..., Any]) -> str:
    """The claim that a docstring opens with."""
    return (function.__doc__ or "").strip().splitlines()[0]


def first_cause(message: str) -> str:
    """One line: jsonargparse nests its reasons and lists all it tried; the whole key and the innermost reason stay."""
    lines = [line.strip() for line in re.sub(r'(Parser key "[^"]+":) ', r"\1\n", message).splitlines()]
    reasons = [line.removeprefix("- ") for line in lines if not FRAME.fullmatch(line)]
    if len(reasons) == len(lines) or not reasons:  # not one of theirs
        return " ".join(message.split())
    reason = reasons[0]
    if wrong := re.fullmatch(r"Expected an? (.+)\. Got value: (.*)", reason):
        wanted = re.sub(r"typing\.|<class '(?:\w+\.)*(\w+)'>", r"\1", wrong[1])
        reason = f"expected {wanted}, got {wrong[2]}"
    keys = re.findall(r'Parser key "([^"]+)":', message)
    return f"{'.'.join(keys)}: {reason}" if keys else reason
