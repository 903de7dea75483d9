"""The listening page: well-formed, complete, self-contained, and true to the sidecars."""

from __future__ import annotations

import importlib.util
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
import torch

from audiolm_kit.audio import Sound, write

pytest.importorskip("matplotlib")
TOOL = Path(__file__).parents[2] / "tools" / "listening_page.py"
VOID = {"meta", "img", "br", "link"}


def load_tool() -> ModuleType:
    """The tool as a module: tools/ is a folder of scripts, no package."""
    spec = importlib.util.spec_from_file_location("listening_page", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["listening_page"] = module
    spec.loader.exec_module(module)
    return module


tool = load_tool()


class Page(HTMLParser):
    """A page's links, headings, captions and roles; refuses tags that do not close."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.folder, self.open, self.links, self.texts = path.parent, [], [], {}
        self.tags: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append((tag, dict(attributes).get("class")))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            tag, kind = self.open[-1]
            self.texts.setdefault(kind or tag, []).append(data)


def chirp(path: Path, rising: bool = True) -> Path:
    """Half a second from 200 to 3200 Hz, or back."""
    frequency = torch.linspace(200, 3200, 8000)
    phase = torch.cumsum((frequency if rising else frequency.flip(0)) / 16000, 0)
    write(path, Sound(0.5 * torch.sin(2 * torch.pi * phase)[None], 16000))
    return path


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """A list of four sounds of two texts, one of them with a sidecar."""
    for name in ("real", "made", "again", "other"):
        chirp(tmp_path / "in" / f"{name}.wav")
    sidecar = {"text": "ignored", "seed": 7, "sampling": {"temperature": 0.9, "top_k": 250, "guidance_scale": 3.0}}
    (tmp_path / "in/made.json").write_text(json.dumps(sidecar))
    entries = [
        {"path": "made.wav", "text": "a <b>loud</b> chirp & more", "role": "generated", "name": "made"},
        {"path": "other.wav", "text": "another", "role": "generated"},
        {"path": "real.wav", "text": "a <b>loud</b> chirp & more", "role": "real", "name": "real"},
        {"path": "again.wav", "text": "a <b>loud</b> chirp & more", "role": "reconstruction", "name": "again"},
    ]
    path = tmp_path / "in/items.json"
    path.write_text(json.dumps(entries))
    return path


def make_page(source: Path, folder: Path, *options: str) -> Page:
    tool.main([str(source), "-o", str(folder / "index.html"), *options])
    return Page(folder / "index.html")


def test_every_link_is_relative_and_exists(items: Path, tmp_path: Path) -> None:
    page = make_page(items, tmp_path / "page")
    assert len(page.links) == 8
    assert all(not link.startswith(("/", "http")) and (page.folder / link).stat().st_size for link in page.links)
    assert "script" not in page.tags and page.tags.count("audio") == page.tags.count("img") == 4


def test_page_shows_its_sounds_after_it_was_moved(items: Path, tmp_path: Path) -> None:
    make_page(items, tmp_path / "page")
    (tmp_path / "page").rename(tmp_path / "elsewhere")
    for path in items.parent.iterdir():
        path.unlink()
    assert all((tmp_path / "elsewhere" / link).is_file() for link in Page(tmp_path / "elsewhere/index.html").links)


def test_sounds_of_one_text_stand_together_in_the_order_of_their_roles(items: Path, tmp_path: Path) -> None:
    page = make_page(items, tmp_path / "page")
    assert page.texts["h2"] == ["a <b>loud</b> chirp & more", "another"]
    assert page.texts["role"] == ["real", "reconstruction", "generated", "generated"]


def test_small_print_says_seed_and_sampling_of_the_sidecar(items: Path, tmp_path: Path) -> None:
    captions = make_page(items, tmp_path / "page").texts["figcaption"]
    assert captions[2] == "made · seed 7 · temperature 0.9 · top k 250 · guidance scale 3"
    assert captions[0] == "real"


def test_title_is_escaped(items: Path, tmp_path: Path) -> None:
    page = make_page(items, tmp_path / "page", "--title", "<script>alert(1)</script>")
    assert page.texts["h1"] == ["<script>alert(1)</script>"] and "script" not in page.tags


def test_a_folder_gives_every_sound_with_its_sub_folder_as_role(tmp_path: Path) -> None:
    for place in ("real/a.wav", "generated/a.flac", "generated/deep/b.wav"):
        chirp(tmp_path / "in" / place)
    (tmp_path / "in/real/a.json").write_text('{"text": "a chirp"}')
    items = tool.read_items(tmp_path / "in")
    assert [(item.role, item.name, item.text) for item in items] == [
        ("generated", "a", ""),
        ("generated", "b", ""),
        ("real", "a", "a chirp"),
    ]


def test_numbered_sounds_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        chirp(tmp_path / f"in/generated/{number}.wav")
    assert [item.name for item in tool.read_items(tmp_path / "in")] == ["1", "2", "10"]


def test_relative_folder_is_found_from_where_the_tool_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chirp(tmp_path / "in/real/a.wav")
    monkeypatch.chdir(tmp_path)
    assert len(make_page(Path("in"), Path("page")).links) == 2


def test_picture_has_low_pitches_at_the_bottom_and_time_to_the_right(tmp_path: Path) -> None:
    from matplotlib.image import imread

    tool.draw(Sound(read_chirp(tmp_path), 16000), tmp_path / "chirp.png")
    picture = imread(tmp_path / "chirp.png")[..., :3].sum(-1)
    height, width = picture.shape
    first, last = picture[:, width // 8].argmax(), picture[:, -width // 8].argmax()
    assert height > 150 and width > 300
    assert first > 0.6 * height and last < 0.5 * height


def read_chirp(folder: Path) -> torch.Tensor:
    from audiolm_kit.audio import read

    return read(chirp(folder / "chirp.wav")).samples


@pytest.mark.parametrize("num_samples", [1, 100, 5000])
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_short_and_silent_sounds_can_be_drawn(tmp_path: Path, num_samples: int, level: float) -> None:
    tool.draw(Sound(torch.full((2, num_samples), level), 44100), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 100


def test_page_path_is_printed_last(items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_page(items, tmp_path / "page")
    assert capsys.readouterr().out.splitlines()[-1] == str((tmp_path / "page/index.html").resolve())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ('{"path": "made.wav"}', "want a list"),
        ('[{"text": "no path"}]', "want a list"),
        ('[{"path": "missing.wav"}]', "no such sound"),
        ("[]", "no sounds"),
    ],
)
def test_bad_lists_end_with_one_line_and_no_page(items: Path, tmp_path: Path, capsys, content: str, said: str) -> None:
    items.write_text(content)
    with pytest.raises(SystemExit) as stopped:
        make_page(items, tmp_path / "page")
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and said in error
    assert not (tmp_path / "page/index.html").exists()
