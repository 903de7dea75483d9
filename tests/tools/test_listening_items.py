"""The sounds of a listening page: found in folders and lists, in their order, beside what they belong to."""

from __future__ import annotations

import json
from pathlib import Path

import listening_items as tool
import torch

from audiolm_kit.audio import Sound, write


def sound(path: Path) -> None:
    """A tenth of a second of something."""
    write(path, Sound(torch.full((1, 800), 0.5), 8000))


def grouped(folder: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """Headings, and role and name of what stands under each."""
    groups = tool.by_text(tool.read_items(folder))
    return [(heading, [(item.role, item.name) for item in group]) for heading, group in groups]


def test_a_folder_gives_every_sound_with_its_sub_folder_as_role(tmp_path: Path) -> None:
    for place in ("real/a.wav", "generated/a.flac", "generated/deep/b.wav"):
        sound(tmp_path / "in" / place)
    (tmp_path / "in/real/a.json").write_text('{"text": "a chirp"}')
    items = tool.read_items(tmp_path / "in")
    assert [(item.role, item.name, item.text) for item in items] == [
        ("generated", "a", ""),
        ("generated", "b", ""),
        ("real", "a", "a chirp"),
    ]


def test_numbered_sounds_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        sound(tmp_path / f"in/generated/{number}.wav")
    assert [item.name for item in tool.read_items(tmp_path / "in")] == ["1", "2", "10"]


def test_digits_of_any_alphabet_can_stand_in_a_name() -> None:
    assert [path.name for path in sorted([Path("1\u06632"), Path("1a2")], key=tool.natural)] == ["1a2", "1\u06632"]


def test_sounds_without_text_belong_together_by_name_where_roles_share_one(tmp_path: Path) -> None:
    for place in ("real/a.wav", "made/a.wav", "made/b.wav", "real/c.wav"):
        sound(tmp_path / "in" / place)
    assert grouped(tmp_path / "in") == [
        ("a", [("real", "a"), ("made", "a")]),
        ("", [("real", "c"), ("made", "b")]),
    ]


def test_a_prompt_that_a_sidecar_names_stands_beside_what_follows_it(tmp_path: Path) -> None:
    sound(tmp_path / "prompts/voice.wav")
    for name, prompt in (("1", "../prompts/voice.wav"), ("2", "../prompts/gone.wav")):
        sound(tmp_path / f"in/{name}.wav")
        (tmp_path / f"in/{name}.json").write_text(json.dumps({"text": name, "prompt": prompt}))
    assert grouped(tmp_path / "in") == [("1", [("prompt", "voice"), ("sound", "1")]), ("2", [("sound", "2")])]


def test_without_text_what_follows_one_prompt_stands_together_beside_it(tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        sound(tmp_path / f"prompts/{name}.wav")
    for name, prompt in (("1", "ann"), ("2", "bob"), ("3", "ann"), ("4", "")):
        sound(tmp_path / f"in/{name}.wav")
        (tmp_path / f"in/{name}.json").write_text(json.dumps({"prompt": prompt and f"../prompts/{prompt}.wav"}))
    assert grouped(tmp_path / "in") == [
        ("ann", [("prompt", "ann"), ("sound", "1"), ("sound", "3")]),
        ("bob", [("prompt", "bob"), ("sound", "2")]),
        ("", [("sound", "4")]),
    ]
