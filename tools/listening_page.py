"""Make a page to listen at and to judge by: sounds side by side with their pictures, a blind A/B test and a MOS test.

    python tools/listening_page.py ITEMS.json|FOLDER -o page/index.html --title "..."

ITEMS.json is a list of {"path", "text", "role", "name"}; paths are relative to it, all but the path may be left out. A
FOLDER stands for every sound in it, each with its sub-folder's name as its role. What an item does not say is read from
the sidecar beside the sound (``out.json`` beside ``out.wav``: text, seed, sampling, prompt). The page needs no server
and no network, and its folder can be moved anywhere; docs/listening.md says how its tests work.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import sys
from dataclasses import dataclass, replace
from html import escape
from itertools import combinations
from pathlib import Path
from string import Template
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # run as a program or imported by a test alike

from listening_items import PROMPT, ROLES, SUFFIXES, Item, by_text, read_items, role_rank
from listening_markup import figure, in_short, section, slug
from listening_pictures import DYNAMIC_RANGE, decibels, draw, mel_picture, waveform

from audiolm_kit.audio import Sound, loudness, pcm16, read, wav_header, write_bytes
from audiolm_kit.evaluation.page import anchor

__all__ = ["DYNAMIC_RANGE", "ROLES", "SUFFIXES", "Item", "by_text", "decibels", "draw", "in_short", "read_items"]

PARTS = Path(__file__).resolve().parent / "listening"
"""What the page is made of: its frame, its style, and its scripts in this order."""
SCRIPTS = ("sounds.js", "trials.js", "browse.js", "judging.js", "page.js")
MODES = ("browse", "ab", "mos")
KINDS = {".wav": "audio/wav", ".flac": "audio/flac", ".ogg": "audio/ogg", ".mp3": "audio/mpeg", ".png": "image/png"}


@dataclass(frozen=True)
class Options:
    """What the page is to hold and to ask."""

    title: str = "Listening page"
    modes: tuple[str, ...] = MODES
    """Without ``browse`` nothing shows which sound is which: the page for listeners."""
    arms: tuple[str, ...] = ()
    """The roles that are judged; none named: all but the prompts."""
    against: str = ""
    """A/B pairs all have this arm; empty: every arm with every other."""
    trials: int = 0
    """The most of one test; 0: all there are."""
    forced: bool = False
    """A/B without the answer that there is no difference."""
    ab_question: str = "Which one sounds better?"
    mos_question: str = "How good does it sound?"
    embed: bool = False
    """Sounds and pictures within the page rather than beside it."""
    same_loudness: bool = False
    """The sounds of an item are turned down to the loudness of its quietest one."""


@dataclass(frozen=True)
class Shown:
    """One sound as the page has it."""

    item: Item
    number: int
    """From 1 in the order of the page."""
    take: int
    """From 1 among the sounds of its role and group."""
    sound: Sound
    content: bytes
    suffix: str

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.sound.samples.shape[-1] / self.sound.sample_rate

    @property
    def digest(self) -> str:
        """A name that does not tell the role."""
        return hashlib.sha256(self.content).hexdigest()[:16]


@dataclass(frozen=True)
class Store:
    """Where the page's files go: beside it, or into it."""

    folder: Path
    embed: bool

    def put(self, name: str, content: bytes) -> str:
        """Keep a file; the address that the page has for it."""
        if self.embed:
            return f"data:{KINDS[Path(name).suffix]};base64,{base64.b64encode(content).decode()}"
        write_bytes(self.folder / name, content)
        return name


def write_page(items: list[Item], page: Path, options: Options) -> None:
    """Keep the sounds and their pictures in or beside the page and write the page, last."""
    groups = by_text(items)
    check(groups, options)
    store, browse = Store(page.parent, options.embed), "browse" in options.modes
    # Of one name the generation, not the recording, and what follows a prompt, not the prompt.
    linked = {item.name: item for _, group in groups for item in sorted(group, key=lambda each: each.role != PROMPT)}
    sections, tested, digests, count = [], [], [], 0
    for heading, members in groups:
        group = opened(members, count, options.same_loudness)
        count += len(group)
        sources = {shown.number: store.put(sound_name(shown, browse), shown.content) for shown in group}
        if browse:
            peak = max(float(shown.sound.samples.abs().max()) for shown in group)
            named = [anchor(each.item.name) if linked[each.item.name] is each.item else "" for each in group]
            figures = [
                show(each, sources[each.number], store, peak, name) for each, name in zip(group, named, strict=True)
            ]
            sections.append(section(heading, figures))
        tested += tested_items(heading, entries(group, {} if browse else sources))
        digests.append([heading, [(shown.item.role, shown.digest) for shown in group]])
    told = design(tested, digests, arms_of(groups, options), options)
    write_bytes(page, render(options.title, sections, told, count).encode())


def opened(group: list[Item], before: int, same_loudness: bool) -> list[Shown]:
    """The sounds of a group, read; ``before`` is how many the page has above them."""
    shown: list[Shown] = []
    for number, item in enumerate(group, before + 1):
        take = 1 + sum(each.item.role == item.role for each in shown)
        shown.append(Shown(item, number, take, read(item.path), item.path.read_bytes(), item.path.suffix.lower()))
    return levelled(shown) if same_loudness else shown


def levelled(group: list[Shown]) -> list[Shown]:
    """The same sounds, as WAV, turned down to the loudness of the quietest; silent ones stay as they are."""
    levels = [loudness(shown.sound) for shown in group]
    target = min((level for level in levels if level > -math.inf), default=0.0)
    made = []
    for shown, level in zip(group, levels, strict=True):
        gain = 10 ** ((target - level) / 20) if level > -math.inf else 1.0
        sound = Sound(shown.sound.samples * gain, shown.sound.sample_rate)
        content = wav_header(sound.sample_rate, *sound.samples.shape) + pcm16(sound.samples)
        made.append(replace(shown, sound=sound, content=content, suffix=".wav"))
    return made


def check(groups: list[tuple[str, list[Item]]], options: Options) -> None:
    """Refuse arms that no sound has, and a page on which nothing could be done.

    Raises:
        ValueError: says which.
    """
    roles = list(dict.fromkeys(item.role for _, group in groups for item in group))
    if missing := [role for role in (*options.arms, options.against) if role and role not in roles]:
        raise ValueError(f"no sound has the role {missing[0]!r}; there are {', '.join(roles)}")
    arms, pairs = arms_of(groups, options)
    if options.against and options.against not in arms:
        raise ValueError(f"--against {options.against} is not among --arms {' '.join(arms)}: add it there")
    if options.trials < 0:
        raise ValueError(f"--trials is {options.trials}: want how many at the most, or 0 for all")
    if not arms and "browse" not in options.modes:
        raise ValueError("all sounds are prompts, which no test judges: add sounds, or say --arms prompt")
    there = [{item.role for item in group} for _, group in groups]
    if set(options.modes) == {"ab"} and not any(set(pair) <= own for pair in pairs for own in there):
        raise ValueError("no text has sounds of two roles: an A/B test has nothing to compare")


def arms_of(groups: list[tuple[str, list[Item]]], options: Options) -> tuple[list[str], list[list[str]]]:
    """The roles that are judged, in the order of the columns, and the pairs of them that are compared."""
    items = sorted((item for _, group in groups for item in group), key=role_rank)
    roles = dict.fromkeys(item.role for item in items)
    arms = [role for role in roles if role in (options.arms or roles.keys() - {PROMPT})]
    pairs = [list(pair) for pair in combinations(arms, 2) if not options.against or options.against in pair]
    return arms, pairs


def sound_name(shown: Shown, browse: bool) -> str:
    """A file name that says what it is or, where nothing may, one that does not."""
    item = shown.item
    told = f"{shown.number:03d}-{slug(item.role)}-{slug(item.text or item.name)}"
    return f"sounds/{told if browse else shown.digest}{shown.suffix}"


def show(shown: Shown, source: str, store: Store, peak: float, name: str) -> str:
    """The figure of one sound; ``peak`` reaches the edge of the waveform, other pages link to ``name``."""
    file = Path(sound_name(shown, browse=True)).stem
    picture = store.put(f"pictures/{file}.png", mel_picture(shown.sound))
    links = (source, picture, waveform(shown.sound, peak))
    return figure(shown.item, shown.number, links, shown.sound, name)


def entries(group: list[Shown], sources: dict[int, str]) -> list[dict[str, Any]]:
    """What the tests know of sounds; ``sources`` are the addresses of those that have no figure, where these stand."""
    prompts = {shown.item.path.resolve(): shown.number for shown in group if shown.item.role == PROMPT}
    made = []
    for shown in group:
        told = {"number": shown.number, "arm": shown.item.role, "take": shown.take, "name": shown.item.name}
        told |= {"seconds": round(shown.seconds, 3)}
        told |= {"prompt": prompts[shown.item.prompt]} if shown.item.prompt in prompts else {}
        made.append(told | ({"source": sources[shown.number]} if sources else {}))
    return made


def tested_items(heading: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is heard together in a test; sounds without anything in common are an item each."""
    if heading:
        return [{"item": heading, "sounds": entries}]
    return [{"item": each["name"], "sounds": [{**each, "take": 1}]} for each in entries]


def design(
    tested: list[dict[str, Any]], digests: list[Any], arms: tuple[list[str], list[list[str]]], options: Options
) -> dict[str, Any]:
    """All that the scripts need; ``page`` names these sounds and questions, wherever the page lies."""
    told = {
        "title": options.title,
        "modes": list(options.modes),
        "arms": arms[0],
        "pairs": arms[1],
        "prompt": PROMPT,
        "trials": options.trials,
        "forced": options.forced,
        "questions": {"ab": options.ab_question, "mos": options.mos_question},
        "items": tested,
    }
    named = [told[key] for key in ("arms", "pairs", "trials", "forced", "questions")]
    return {"page": hashlib.sha256(json.dumps([named, digests]).encode()).hexdigest()[:10], **told}


def render(title: str, sections: list[str], told: dict[str, Any], count: int) -> str:
    """The whole page."""
    frame = Template((PARTS / "page.html").read_text(encoding="utf-8"))
    return frame.substitute(
        title=escape(title),
        style=(PARTS / "page.css").read_text(encoding="utf-8"),
        summary=f"{count} sound{'' if count == 1 else 's'}, grouped by text." if sections else "",
        sections="\n".join(sections),
        browse="" if sections else "hidden",
        dynamic_range=f"{DYNAMIC_RANGE:.0f}",
        # Within a script only "<" could end it, or open a comment.
        data=json.dumps(told, ensure_ascii=False).replace("<", "\\u003c"),
        scripts="\n".join(f"<script>\n{(PARTS / name).read_text(encoding='utf-8')}</script>" for name in SCRIPTS),
    )


def parsed(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    add, default = parser.add_argument, Options()
    add("source", type=Path, help="JSON list of items, or a folder of sounds")
    add("-o", "--output", type=Path, default=Path("page/index.html"), help="default: %(default)s")
    add("--title", default=default.title, help="default: %(default)s")
    add("--modes", nargs="+", choices=MODES, default=MODES, help="default: all; without browse: for listeners")
    add("--arms", nargs="+", default=(), metavar="ROLE", help="roles that are judged; default: all but the prompts")
    add("--against", default="", metavar="ROLE", help="a role that every A/B pair has; default: all pairs")
    add("--trials", type=int, default=0, help="the most of one test, drawn by its seed; default: all")
    add("--forced", action="store_true", help="A/B without 'no difference'")
    add("--ab_question", default=default.ab_question, help="default: %(default)s")
    add("--mos_question", default=default.mos_question, help="default: %(default)s")
    add("--embed", action="store_true", help="sounds and pictures within the page: one file")
    add("--same_loudness", action="store_true", help="turn an item's sounds down to the loudness of its quietest")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, make the page and print where it is."""
    parser = argparse.ArgumentParser(description="Make a page to listen at and to judge by.")
    given = vars(parsed(parser, arguments))
    source, output = given.pop("source"), given.pop("output")
    chosen: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        write_page(read_items(source), output, Options(**chosen))
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(output.resolve())


if __name__ == "__main__":
    main()
