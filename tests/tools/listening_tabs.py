"""Listening pages of a few tones, and a tab of a real browser in which a person listens and answers."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import browser as driver
import listening_page
import torch

from audiolm_kit.audio import Sound, write

ROLES = ("real", "reconstruction", "generated")
TEXTS = ("a bell", 'a "loud", low <b>hum</b>', "rain & thunder over a long, long sea")
SECONDS = 0.3
PHONE, DESK = (390, 800), (1280, 800)
PLAYING = "[...browse.tracks, ...judging.tracks].filter((track) => !track.audio.paused).length"


class Listener(driver.Tab):
    """A tab, and what a person does in it."""

    def go(self, page: Path, address: str = "") -> None:
        self.open(page.as_uri() + address)
        self.wait("typeof page !== 'undefined' && page.modes.length")

    def begin(self, page: Path, mode: str, name: str = "anna", seed: int = 7) -> None:
        self.go(page, f"?listener={name}&seed={seed}#{mode}")
        self.click(".main-button")
        self.wait("judging.number === 1")

    def hear_all(self) -> None:
        for place, key in enumerate(("ArrowLeft", "ArrowRight")[: self.run("judging.tracks.length")]):
            self.press(key)
            self.wait(f"judging.tracks[{place}].heard")

    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.run("judging.run.csv()"))))


def write_sounds(folder: Path) -> Path:
    """Three texts, each real, reconstructed and generated, and a prompt for the first; each of its own pitch."""
    entries = []
    for number, text in enumerate(TEXTS):
        for role in (*ROLES, *(["prompt"] if number == 0 else [])):
            path = folder / f"{role}-{number}.wav"
            pitch = 200.0 + 50 * len(entries)
            times = torch.arange(round(SECONDS * 8000)) / 8000
            write(path, Sound(0.3 * torch.sin(2 * torch.pi * pitch * times)[None], 8000))
            facts = {"seed": number, "sampling": {"temperature": 0.9, "top_k": 250}} if role == "generated" else {}
            entries.append({"path": path.name, "text": text, "role": role, "name": f"n{number}", **facts})
    (folder / "items.json").write_text(json.dumps(entries))
    return folder / "items.json"


def write_pages(sounds: Path, folder: Path) -> dict[str, Path]:
    """A page with everything, a short one for listeners, and one that is a single file."""
    options = {
        "all": [],
        "blind": ["--modes", "ab", "mos", "--trials", "3", "--forced", "--arms", "real", "generated"],
        "single": ["--embed", "--trials", "2"],
    }
    made = {}
    for name, own in options.items():
        made[name] = folder / name / "index.html"
        listening_page.main([str(sounds), "-o", str(made[name]), "--title", "Sounds", *own])
    (folder / "elsewhere").mkdir()
    made["single"] = made["single"].rename(folder / "elsewhere" / "alone.html")
    return made
