"""The listening page: well-formed, complete, self-contained, and true to the sidecars."""

from __future__ import annotations

import io
import json
import wave
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import listening_page as tool
import pytest
import torch
from listening_pictures import inks, mel_picture, png, waveform

from audiolm_kit.audio import Sound, loudness, read, write

Image = pytest.importorskip("PIL.Image")
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """A page's links, headings, captions and roles; refuses tags that do not close."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.folder, self.open, self.links, self.texts = path.parent, [], [], {}
        self.tags: list[str] = []
        self.named: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        self.named += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append((tag, dict(attributes).get("class")))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    @property
    def told(self) -> dict[str, Any]:
        """What the page's scripts are given."""
        return json.loads(next(text for text in self.texts["script"] if text.startswith("{")))

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
    assert page.tags.count("audio") == page.tags.count("img") == 4


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
    page = make_page(items, tmp_path / "page")
    assert page.texts["named"] == ["real", "again", "made · seed 7", "other"]
    assert page.texts["dt"] == ["temperature", "top k", "guidance scale"] and page.texts["dd"] == ["0.9", "250", "3"]


def test_lists_in_the_sampling_are_told_in_short() -> None:
    assert tool.in_short([0.0, [1.0, 2.5]]) == "0, 1, 2.5"


def test_title_is_escaped(items: Path, tmp_path: Path) -> None:
    page = make_page(items, tmp_path / "page", "--title", "</script><script>alert(1)</script>")
    assert page.texts["h1"] == ["</script><script>alert(1)</script>"]
    assert page.tags.count("script") == 1 + len(tool.SCRIPTS)  # the data, and the page's own
    assert page.told["title"] == "</script><script>alert(1)</script>"


def test_relative_folder_is_found_from_where_the_tool_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chirp(tmp_path / "in/real/a.wav")
    monkeypatch.chdir(tmp_path)
    assert len(make_page(Path("in"), Path("page")).links) == 2


def test_an_evaluation_can_link_to_the_generation_of_a_name(tmp_path: Path) -> None:
    for role in ("real", "generated"):
        chirp(tmp_path / "in" / role / "a b.wav")
    page = make_page(tmp_path / "in", tmp_path / "page")
    assert [name for name in page.named if name.startswith("sound-")] == ["sound-a_b"]
    text = (tmp_path / "page/index.html").read_text()
    assert text.index('id="sound-a_b"') > text.index(">real<")


def test_an_evaluation_links_to_what_follows_a_prompt_of_the_same_name(tmp_path: Path) -> None:
    for role in ("prompt", "generated"):
        chirp(tmp_path / "in" / role / "3.wav")
    text = (make_page(tmp_path / "in", tmp_path / "page").folder / "index.html").read_text()
    assert text.index(">generated<") - 200 < text.index('id="sound-3"') < text.index(">generated<")


# --- what the tests are told ------------------------------------------------------------------------------------------


def test_all_roles_but_the_prompt_are_judged_and_every_pair_is_compared(items: Path, tmp_path: Path) -> None:
    told = make_page(items, tmp_path / "page").told
    assert told["arms"] == ["real", "reconstruction", "generated"]
    assert told["pairs"] == [["real", "reconstruction"], ["real", "generated"], ["reconstruction", "generated"]]
    one = make_page(items, tmp_path / "page", "--against", "real").told
    assert one["pairs"] == [["real", "reconstruction"], ["real", "generated"]]
    two = make_page(items, tmp_path / "page", "--arms", "generated", "real").told
    assert two["arms"] == ["real", "generated"] and two["pairs"] == [["real", "generated"]]


def test_what_is_heard_together_is_an_item_and_what_stands_alone_is_one_each(tmp_path: Path) -> None:
    for place in ("real/a.wav", "made/a.wav", "made/b.wav", "real/c.wav"):
        chirp(tmp_path / "in" / place)
    told = make_page(tmp_path / "in", tmp_path / "page").told
    assert [(item["item"], len(item["sounds"])) for item in told["items"]] == [("a", 2), ("c", 1), ("b", 1)]


def test_the_name_of_a_page_follows_its_sounds_and_questions_alone(items: Path, tmp_path: Path) -> None:
    first = make_page(items, tmp_path / "page").told["page"]
    assert make_page(items, tmp_path / "other", "--title", "another", "--embed").told["page"] == first
    assert make_page(items, tmp_path / "page", "--ab_question", "Which is closer?").told["page"] != first
    chirp(items.parent / "made.wav", rising=False)
    assert make_page(items, tmp_path / "page").told["page"] != first


def test_a_page_without_browse_names_no_role_but_in_its_data(items: Path, tmp_path: Path) -> None:
    page = make_page(items, tmp_path / "page", "--modes", "ab", "mos")
    assert page.links == [] and not (tmp_path / "page/pictures").exists()
    sources = [sound["source"] for item in page.told["items"] for sound in item["sounds"]]
    assert all((tmp_path / "page" / source).is_file() for source in sources)
    assert not any(role in source for role in tool.ROLES for source in sources)


def test_each_sound_is_told_the_prompt_that_its_note_names(tmp_path: Path) -> None:
    for number in (1, 2):
        chirp(tmp_path / f"prompts/{number}.wav", rising=number == 1)
    for name, prompt in (("a", 2), ("b", 1), ("c", 2)):
        chirp(tmp_path / f"in/continuation/{name}.wav")
        note = {"text": "a dog", "prompt": f"../../prompts/{prompt}.wav"}
        (tmp_path / f"in/continuation/{name}.json").write_text(json.dumps(note))
    [item] = make_page(tmp_path / "in", tmp_path / "page").told["items"]
    names = {sound["number"]: sound["name"] for sound in item["sounds"] if sound["arm"] == "prompt"}
    told = {sound["name"]: names[sound["prompt"]] for sound in item["sounds"] if "prompt" in sound}
    assert told == {"a": "2", "b": "1", "c": "2"}


def test_an_embedded_page_is_one_file_that_holds_the_very_sounds(items: Path, tmp_path: Path) -> None:
    page = make_page(items, tmp_path / "page", "--embed")
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["index.html"]
    sounds = [b64decode(link.split(",")[1]) for link in page.links if link.startswith("data:audio/wav;base64,")]
    assert sounds[0] == (items.parent / "real.wav").read_bytes() and len(sounds) == 4


def test_same_loudness_turns_down_to_the_quietest_of_an_item(tmp_path: Path) -> None:
    for role, gain in (("real", 1.0), ("made", 0.25), ("silent", 0.0)):
        sound = read(chirp(tmp_path / "chirp.wav"))
        write(tmp_path / "in" / role / "a.wav", Sound(sound.samples * gain, sound.sample_rate))
    make_page(tmp_path / "in", tmp_path / "page", "--same_loudness")
    levels = {path.name.split("-")[1]: loudness(read(path)) for path in (tmp_path / "page/sounds").iterdir()}
    assert levels["real"] == pytest.approx(levels["made"], abs=0.05) and levels["silent"] < -70
    with wave.open(str(next((tmp_path / "page/sounds").glob("*real*")))) as file:
        assert file.getnframes() == 8000


def test_picture_has_low_pitches_at_the_bottom_and_time_to_the_right(tmp_path: Path) -> None:
    tool.draw(Sound(read_chirp(tmp_path), 16000), tmp_path / "chirp.png")
    picture = torch.tensor(list(Image.open(tmp_path / "chirp.png").convert("L").tobytes()))
    width, height = Image.open(tmp_path / "chirp.png").size
    picture = picture.view(height, width)
    first, last = picture[:, width // 8].argmax(), picture[:, -width // 8].argmax()
    assert height == 96 and width > 300
    assert first > 0.6 * height and last < 0.5 * height


def test_png_gives_back_its_pixels_in_its_colours() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).view(3, 4) * 20
    picture = Image.open(io.BytesIO(png(pixels, inks()))).convert("RGB")
    assert picture.size == (4, 3)
    assert [picture.getpixel((x, y)) for y in range(3) for x in range(4)] == [
        tuple(inks()[int(level)].tolist()) for level in pixels.flatten()
    ]


def points(path: str) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in path.strip("MZ").split()]


def test_waveform_reaches_the_edge_at_the_peak_and_is_a_thin_line_in_silence() -> None:
    samples = torch.zeros(1, 2400)
    samples[0, 600], samples[0, 1800] = 0.5, -0.25
    drawn = points(waveform(Sound(samples, 16000), 0.5))
    assert len(drawn) == 480 and min(y for _, y in drawn) == 1 and max(y for _, y in drawn) == 74.5
    assert drawn[0] == (0, 49.5) and drawn[-1] == (0, 50.5)
    assert [x for x, _ in drawn[:240]] == sorted(x for x, _ in drawn[:240]) and drawn[239][0] == 240


def read_chirp(folder: Path) -> torch.Tensor:
    return read(chirp(folder / "chirp.wav")).samples


@pytest.mark.parametrize("num_samples", [1, 100, 5000])
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_short_and_silent_sounds_can_be_drawn(tmp_path: Path, num_samples: int, level: float) -> None:
    sound = Sound(torch.full((2, num_samples), level), 44100)
    assert Image.open(io.BytesIO(mel_picture(sound))).size[1] == 96
    assert all(0 <= x <= 240 and 0 <= y <= 100 for x, y in points(waveform(sound, level)))


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
        ('[{"path": "items.json"}]', "items.json: not every browser plays that; want .wav"),
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--arms", "real", "made"], "no sound has the role 'made'; there are real, reconstruction, generated"),
        (["--against", "base"], "no sound has the role 'base'"),
        (["--arms", "real", "--against", "generated"], "--against generated is not among --arms real: add it there"),
        (["--modes", "ab", "--arms", "real"], "nothing to compare"),
        (["--trials", "-1"], "--trials is -1"),
    ],
)
def test_bad_options_end_with_one_line_and_no_page(items: Path, tmp_path: Path, capsys, options, said: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        make_page(items, tmp_path / "page", *options)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and said in error
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize(
    ("roles", "options", "said"),
    [
        (["prompt"], ["--modes", "mos"], "all sounds are prompts, which no test judges"),
        (["prompt"], ["--modes", "ab", "mos"], "all sounds are prompts, which no test judges"),
        (["prompt", "made"], ["--against", "prompt"], "--against prompt is not among --arms made: add it there"),
    ],
)
def test_a_page_on_which_nothing_can_be_done_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], roles: list[str], options: list[str], said: str
) -> None:
    for role in roles:
        chirp(tmp_path / "in" / role / "a.wav")
    with pytest.raises(SystemExit):
        make_page(tmp_path / "in", tmp_path / "page", *options)
    assert said in capsys.readouterr().err and not (tmp_path / "page").exists()
