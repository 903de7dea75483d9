"""The HTML of one sound on the listening page, and of the sounds that belong together."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from listening_items import Item
from listening_pictures import WAVE_COLUMNS, WAVE_HEIGHT

from audiolm_kit.audio import Sound


def section(heading: str, figures: list[str]) -> str:
    """Sounds side by side under what they have in common."""
    title = f"<h2>{escape(heading)}</h2>\n" if heading else ""
    return f'<section class="group">\n{title}<div class="items">\n' + "\n".join(figures) + "\n</div>\n</section>"


def figure(item: Item, number: int, links: tuple[str, str, str], sound: Sound, anchor: str) -> str:
    """One sound: its role, waveform, spectrogram, facts, and a player that works without any script.

    Args:
        links: Addresses of the sound and of the spectrogram, and the waveform's path.
        anchor: What other pages link to; empty: nothing.
    """
    source, picture, wave = (escape(each, quote=True) for each in links)
    seconds = sound.samples.shape[-1] / sound.sample_rate
    of = escape(f"{item.role}: {item.text or item.name}", quote=True)
    mark = f' id="{escape(anchor, quote=True)}"' if anchor else ""
    return f"""<figure{mark} class="sound" data-number="{number}" data-seconds="{seconds:.3f}" data-name="{of}">
<div class="top"><span class="role">{escape(item.role)}</span></div>
<div class="timeline">
<svg viewBox="0 0 {WAVE_COLUMNS} {WAVE_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="waveform of {of}">\
<path d="{wave}"></path></svg>
<img src="{picture}" alt="spectrogram of {of}" loading="lazy">
</div>
<div class="axis"><span>0 s</span><span>0–{sound.sample_rate / 2000:g} kHz</span><span>{seconds:.2f} s</span></div>
<audio controls preload="none" src="{source}"></audio>
<figcaption>{small_print(item)}</figcaption>
</figure>"""


def small_print(item: Item) -> str:
    """Name and seed at once, the sampling behind a click."""
    facts = dict(item.facts)
    seed = facts.pop("seed", None)
    said = [item.name] if seed is None else [item.name, f"seed {in_short(seed)}"]
    line = f'<span class="named">{escape(" · ".join(said))}</span>'
    if not facts:
        return line
    rows = "".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(in_short(value))}</dd>" for key, value in facts.items()
    )
    return f"{line}<details><summary>sampling</summary><dl>{rows}</dl></details>"


def slug(text: str) -> str:
    """A text as a short piece of a file name."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40] or "sound"


def in_short(value: Any) -> str:
    """A value as short as it can be said: 3 for 3.0, items of a list one after the other."""
    if isinstance(value, (list, tuple)):
        return ", ".join(in_short(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
