"""Draw the README's picture: one column for each of a few texts, one row for each role, spectrograms on a common clock.

    python tools/picture.py build/spoken_digits/samples/listen.json -o docs/picture.png --columns 5

takes the items of a listening page (tools/listening_page.py) and needs matplotlib, the extra `demo`.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # run as a program or imported by a test alike

from listening_page import DYNAMIC_RANGE, Item, by_text, decibels, read_items

from audiolm_kit.audio import fit, read, write_bytes

ROLES = ("real", "reconstruction", "generated")


def columns_of(items: list[Item], count: int) -> list[tuple[str, dict[str, Item]]]:
    """The first texts that have a sound in every role: text and its sounds by role.

    Raises:
        ValueError: no text has all roles.
    """
    groups = [(text, {item.role: item for item in group}) for text, group in by_text(items)]
    whole = [(text, roles) for text, roles in groups if set(ROLES) <= set(roles)]
    if not whole:
        raise ValueError(f"no text has sounds in all of {', '.join(ROLES)}: give the listen.json of a recipe")
    return whole[:count]


def draw(columns: list[tuple[str, dict[str, Item]]], path: Path) -> None:
    """Write the grid as a PNG: time in seconds from left to right, pitch upwards."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(columns), 5.6), dpi=110, layout="constrained")
    grid = figure.subplots(len(ROLES), len(columns), sharex=True, squeeze=False)
    for column, (text, items) in enumerate(columns):
        sounds = [read(items[role].path) for role in ROLES]
        rate = min(sound.sample_rate for sound in sounds)  # a pitch stands at one height in all rows
        for row, role in enumerate(ROLES):
            sound, axes = fit(sounds[row], rate, 1), grid[row, column]
            seconds = sound.samples.shape[1] / sound.sample_rate
            axes.imshow(
                decibels(sound).numpy(),
                origin="lower",
                aspect="auto",
                cmap="magma",
                vmin=-DYNAMIC_RANGE,
                vmax=0,
                extent=(0, seconds, 0, 1),
            )
            axes.set_yticks([])
            axes.set_facecolor("black")
            if column == 0:
                axes.set_ylabel(role)
        grid[0, column].set_title(wrapped(text), fontsize=9)
        grid[-1, column].set_xlabel("seconds")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_bytes(path, content.getvalue())


def wrapped(text: str, width: int = 26) -> str:
    """A caption over as many lines as it takes."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description="Draw recordings, reconstructions and generations side by side.")
    parser.add_argument("items", type=Path, help="listen.json of a recipe's samples")
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG to write")
    parser.add_argument("--columns", type=int, default=5, help="how many texts; default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        draw(columns_of(read_items(options.items), options.columns), options.output)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(options.output)


if __name__ == "__main__":
    main()
