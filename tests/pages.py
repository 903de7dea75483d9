"""The pages of the documentation as tests read them: README.md, docs/ and recipes' READMEs, their code and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^\n|\A)((?:^ {4}.*\n)+)", re.MULTILINE)
PROGRAMS = re.compile(r"(?:.*/)?(?:audiolm-kit|make|python|srun|torchrun)|audiolm_kit")


class Page(NamedTuple):
    """A Markdown file of this project."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """What is no code."""
        return re.sub(r"`[^`\n]+`", "", INDENTED.sub("\n", FENCE.sub("", self.text)))

    def blocks(self, language: str) -> list[str]:
        """The contents of the code blocks of a language."""
        return [content for name, content in FENCE.findall(self.text) if name == language]

    def lines(self) -> list[str]:
        """Every line for a shell, in fenced blocks and in indented ones, those that go on put together."""
        indented = "".join(INDENTED.findall(FENCE.sub("", self.text)))
        own, others = ("".join(each).replace("\\\n", " ").splitlines() for each in (self.blocks("sh"), indented))
        return [line.strip() for line in [*own, *filter(is_command, others)] if line.strip()]

    def commands(self) -> Iterator[list[str]]:
        """The words of every program that the lines call, those behind a pipe by themselves, without what calls it."""
        for line in self.lines():
            for part in re.split(r" \| (?=\w)", line):
                words = shlex.split(part, comments=True)
                places = [place for place, word in enumerate(words) if PROGRAMS.fullmatch(word)]
                if places:
                    yield words[places[-1] if "audiolm" in words[places[-1]] else places[0] :]

    def kit(self) -> list[list[str]]:
        """What follows `audiolm-kit` in every command."""
        return [words[1:] for words in self.commands() if re.fullmatch(r"(?:.*/)?audiolm[-_]kit", words[0])]

    def spans(self) -> list[list[str]]:
        """What follows `audiolm-kit` in the commands that stand whole within the text, those of `fit` aside."""
        found = re.findall(r"`audiolm-kit ([^`\n]+)`", INDENTED.sub("\n", FENCE.sub("", self.text)))
        commands = [shlex.split(command) for command in found]
        return [words for words in commands if len(words) > 2 and words[0] != "fit" and "--help" not in words]

    def links(self) -> list[str]:
        """Where its links and pictures lead."""
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    def anchors(self) -> set[str]:
        """Its headings as code-hosting sites and the documentation's site name them in addresses."""
        headings = re.findall(r"^#+ (.+)$", FENCE.sub("", self.text), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_command(line: str) -> bool:
    """Whether an indented line is for a shell, and not a figure or YAML."""
    return bool(PROGRAMS.fullmatch(line.split()[0]))


def pages() -> list[Page]:
    """All of them; the changelog, which tells of what was, is none."""
    found = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*/*.md")]
    return [Page(path) for path in sorted(found)]


def page(name: str) -> Page:
    """One page, by its place in the repository."""
    return Page(ROOT / name)
