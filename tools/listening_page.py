"""Make a page to listen at: every sound with its spectrogram, side by side with the others of its text.

    python tools/listening_page.py ITEMS.json|FOLDER -o page/index.html --title "..."

ITEMS.json is a list of {"path", "text", "role", "name"}; paths are relative to it, all but the path may be left out. A
FOLDER stands for every sound in it, each with its sub-folder's name as its role. What an item does not say is read from
the sidecar beside the sound (``out.json`` beside ``out.wav``: text, seed, sampling). The page needs no script and no
network, and its folder can be moved anywhere.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from audiolm_kit.audio import Sound, log_mel, read, write_bytes

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
ROLES = ("real", "reconstruction", "generated", "prompt", "continuation")
"""The order of the columns; other roles follow in the order of the alphabet."""

NUM_MELS = 96
DYNAMIC_RANGE = 70.0
"""Decibels from a picture's brightest colour down to its darkest."""


@dataclass(frozen=True)
class Item:
    """One sound of the page and what is written under it."""

    path: Path
    text: str = ""
    role: str = "sound"
    name: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """Seed, sampling and whatever else belongs in the small print, in this order."""


# --- gathering items --------------------------------------------------------------------------------------------------


def read_items(source: Path) -> list[Item]:
    """The items of a JSON list or of a folder of sounds."""
    source = source.resolve()
    if source.is_dir():
        sounds = sorted((path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES), key=natural)
        items = [read_item({"path": str(path)}, source, role=role_by_folder(path, source)) for path in sounds]
    elif source.is_file():
        entries = read_json(source)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and "path" in entry for entry in entries):
            raise ValueError(f'{source}: want a list of {{"path", "text", "role", "name"}}, each with a path')
        items = [read_item(entry, source.parent) for entry in entries]
    else:
        raise FileNotFoundError(f"{source}: neither a folder of sounds nor a JSON list of items")
    if not items:
        raise ValueError(f"{source}: no sounds in it; want {' '.join(SUFFIXES)} files")
    return items


def natural(path: Path) -> list[str | int]:
    """A key that sorts 2.wav before 10.wav."""
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"([0-9]+)", str(path))]


def role_by_folder(path: Path, source: Path) -> str:
    """The sub-folder a sound lies in, however deep; directly in the folder there is none."""
    parts = path.relative_to(source).parts
    return parts[0] if len(parts) > 1 else "sound"


def read_item(entry: dict[str, Any], folder: Path, role: str = "sound") -> Item:
    """An item from its entry, completed from the sidecar beside the sound."""
    path = folder / entry["path"]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such sound; paths are relative to the list")
    sidecar = path.with_suffix(".json")
    known = read_json(sidecar) if sidecar.is_file() else {}
    known = {**(known if isinstance(known, dict) else {}), **entry}
    sampling = known.get("sampling")
    facts = {"seed": known.get("seed"), **(sampling if isinstance(sampling, dict) else {})}
    return Item(
        path=path,
        text=str(known.get("text") or known.get("caption") or ""),
        role=str(known.get("role") or role),
        name=str(known.get("name") or path.stem),
        facts={key: value for key, value in facts.items() if value is not None},
    )


def read_json(path: Path) -> Any:
    """A JSON file's content, or one line that says which file is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error}); mend or remove it") from None


def by_text(items: list[Item]) -> list[tuple[str, list[Item]]]:
    """Items grouped by their text, texts in order of appearance, items of a text in order of their roles."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.text, []).append(item)
    return [(text, sorted(group, key=role_rank)) for text, group in groups.items()]


def role_rank(item: Item) -> tuple[int, str]:
    """Where a role's column stands."""
    return (ROLES.index(item.role) if item.role in ROLES else len(ROLES), item.role)


# --- pictures ---------------------------------------------------------------------------------------------------------


def decibels(sound: Sound, columns: int = 480) -> Tensor:
    """A sound's mel spectrogram below its own peak, [M, about ``columns``], from -DYNAMIC_RANGE to 0."""
    fft_size = 1 << round(sound.sample_rate * 0.04).bit_length()
    hop_length = max(1, sound.samples.shape[-1] // columns)
    levels = log_mel(sound.samples.mean(0), sound.sample_rate, fft_size, hop_length, NUM_MELS) * (20 / math.log(10))
    return (levels - levels.max()).clamp_min(-DYNAMIC_RANGE)


def draw(sound: Sound, path: Path) -> None:
    """Write a sound's spectrogram, low pitches at the bottom, as a PNG without axes (the page writes those)."""
    from matplotlib.image import imsave  # the extra `demo`; imsave needs no display

    picture = io.BytesIO()
    levels = decibels(sound).repeat_interleave(2, dim=0).numpy()
    imsave(picture, levels, cmap="magma", vmin=-DYNAMIC_RANGE, vmax=0.0, origin="lower", format="png")
    write_bytes(path, picture.getvalue())


# --- page -------------------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #6b6b70; --paper: #fdfcfa; --line: #e4e2dd; }
@media (prefers-color-scheme: dark) { :root { --ink: #eceae6; --soft: #9a9890; --paper: #161618; --line: #333236; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.75rem; font-weight: 600; letter-spacing: -.01em; line-height: 1.2; }
h2 { margin: 0 0 1rem; font-size: 1.15rem; font-weight: 600; }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.25rem; }
.items { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 12.4rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; min-width: 0; }
.role { display: block; margin-bottom: .35rem; font-size: .8rem; color: var(--soft); }
img { display: block; width: 100%; height: 8rem; border-radius: 4px; background: #000; }
.axis { display: flex; justify-content: space-between; margin: .15rem 0 .5rem; font-size: .75rem; color: var(--soft);
  font-variant-numeric: tabular-nums; }
audio { display: block; width: 100%; height: 2.5rem; }
figcaption { margin-top: .4rem; font-size: .8rem; color: var(--soft); overflow-wrap: anywhere; }
p, footer { margin: 0; color: var(--soft); font-size: .9rem; max-width: 44rem; }
footer { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1rem; max-width: none; }
"""


def write_page(items: list[Item], page: Path, title: str) -> None:
    """Copy the sounds beside the page, draw them and write the page, last."""
    sounds, pictures = page.parent / "sounds", page.parent / "pictures"
    sections = []
    numbers: Iterator[int] = iter(range(1, len(items) + 1))
    for text, group in by_text(items):
        figures = [figure(item, next(numbers), sounds, pictures) for item in group]
        heading = f"<h2>{escape(text)}</h2>" if text else ""
        sections.append(f'<section>\n{heading}\n<div class="items">\n' + "\n".join(figures) + "\n</div>\n</section>")
    write_bytes(page, render(title, sections, len(items)).encode())


def figure(item: Item, number: int, sounds: Path, pictures: Path) -> str:
    """Put one sound and its picture into the page's folders; the HTML that shows them."""
    sound = read(item.path)
    stem = f"{number:03d}-{slug(item.role)}-{slug(item.text or item.name)}"
    copy, picture = sounds / f"{stem}{item.path.suffix.lower()}", pictures / f"{stem}.png"
    write_bytes(copy, item.path.read_bytes())
    draw(sound, picture)
    seconds = sound.samples.shape[-1] / sound.sample_rate
    said = [item.name, *(f"{key.replace('_', ' ')} {in_short(value)}" for key, value in item.facts.items())]
    picture_of = escape(f"spectrogram of {item.role}: {item.text or item.name}", quote=True)
    return f"""<figure>
<span class="role">{escape(item.role)}</span>
<img src="pictures/{picture.name}" alt="{picture_of}" loading="lazy">
<div class="axis"><span>0 s</span><span>0–{sound.sample_rate / 2000:g} kHz</span><span>{seconds:.2f} s</span></div>
<audio controls preload="metadata" src="sounds/{copy.name}"></audio>
<figcaption>{escape(" · ".join(said))}</figcaption>
</figure>"""


def render(title: str, sections: list[str], count: int) -> str:
    """The whole page."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>{count} sound{"" if count == 1 else "s"}, grouped by text.</p>
{chr(10).join(sections)}
<footer>Spectrograms: mel scale, low pitches at the bottom; black is {DYNAMIC_RANGE:.0f} dB below the peak.</footer>
</body>
</html>
"""


def slug(text: str) -> str:
    """A text as a short piece of a file name."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40] or "sound"


def in_short(value: Any) -> str:
    """A value as short as it can be said: 3 for 3.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, make the page and print where it is."""
    parser = argparse.ArgumentParser(description="Make a page to listen at.")
    parser.add_argument("source", type=Path, help="JSON list of items, or a folder of sounds")
    parser.add_argument("-o", "--output", type=Path, default=Path("page/index.html"), help="default: %(default)s")
    parser.add_argument("--title", default="Listening page", help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        write_page(read_items(options.source), options.output, options.title)
    except ModuleNotFoundError as error:
        parser.exit(2, f'{parser.prog}: {error.name} is missing: pip install "audiolm-kit[demo]"\n')
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(options.output.resolve())


if __name__ == "__main__":
    main()
