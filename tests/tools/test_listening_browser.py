"""The listening page in a real browser: what is heard, seen, pressed, kept and saved, without any server."""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser as driver
import listening_page
import listening_scores
import pytest
import torch

from audiolm_kit.audio import Sound, write

ROLES = ("real", "reconstruction", "generated")
TEXTS = ("a bell", 'a "loud", low <b>hum</b>', "rain & thunder over a long, long sea")
SECONDS = 0.3
PHONE, DESK = (390, 800), (1280, 800)
PLAYING = "[...browse.tracks, ...judging.tracks].filter((track) => !track.audio.paused).length"


@pytest.fixture(scope="module")
def chromium() -> Iterator[driver.Browser]:
    """The browser of all tests here; each of them has a profile of its own."""
    program = driver.installed()
    if program is None:
        pytest.skip("no Chromium is installed: apt-get install chromium, or name one in CHROMIUM")
    try:
        running = driver.Browser(program)
    except RuntimeError as error:
        # What the page is not to blame for: a container without namespaces, a package that only points to a snap.
        if not any(word in str(error).lower() for word in ("sandbox", "snap")):
            raise
        pytest.skip(f"{program} cannot run here: {error}")
    with running:
        yield running


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three texts, each real, reconstructed and generated, and a prompt for the first; each of its own pitch."""
    folder, entries = tmp_path_factory.mktemp("sounds"), []
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


@pytest.fixture(scope="module")
def pages(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page with everything, a short one for listeners, and one that is a single file."""
    folder = tmp_path_factory.mktemp("pages")
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


@pytest.fixture(scope="module")
def tab(chromium: driver.Browser) -> Listener:
    """The one that tests share: a new one takes half a second."""
    return Listener(chromium, DESK)


@pytest.fixture
def listener(tab: Listener, tmp_path: Path) -> Iterator[Listener]:
    """A tab that looks, remembers and complains as if it were new."""
    (tmp_path / "saved").mkdir()
    tab.save_to(tmp_path / "saved")
    tab.look(DESK)
    tab.browser.events.clear()
    yield tab
    tab.run("localStorage.clear()")


@pytest.fixture
def stranger(chromium: driver.Browser) -> Iterator[Listener]:
    """A tab of its own, for what cannot be undone."""
    own = Listener(chromium, DESK)
    yield own
    own.close()


def saved(folder: Path, pattern: str) -> Path:
    """A file that the browser saves, once it is whole."""
    deadline = time.monotonic() + 20
    while not (found := list((folder / "saved").glob(pattern))):
        assert time.monotonic() < deadline, f"nothing was saved as {pattern}: {list((folder / 'saved').iterdir())}"
        time.sleep(0.05)
    return found[0]


# --- side by side -----------------------------------------------------------------------------------------------------


def test_every_sound_of_the_page_plays_and_every_picture_shows(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    assert listener.run("browse.tracks.length") == 10
    listener.run("for (const image of document.images) image.loading = 'eager'")
    listener.wait("[...document.images].every((image) => image.complete && image.naturalWidth > 10)")
    listener.run("for (const track of browse.tracks) track.audio.load()")
    lengths = "browse.tracks.map((track) => track.audio.duration)"
    listener.run("browse.tracks.forEach((track) => track.audio.preload = 'metadata')")
    listener.wait(f"{lengths}.every((seconds) => Math.abs(seconds - {SECONDS}) < 0.01)")
    assert listener.complaints() == []


def test_only_one_sound_plays_and_its_head_moves(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    listener.press("l")  # over and over, so that none ends by itself
    assert listener.run("player.loop && document.querySelector('[data-key=l]').checked")
    listener.click("figure:nth-of-type(1) .play")
    listener.wait("browse.tracks[0].now > 0.05")
    places = [listener.run("parseFloat(browse.tracks[0].head.style.left)")]
    listener.wait(f"Math.abs(parseFloat(browse.tracks[0].head.style.left) - {places[0]}) > 10")
    assert listener.run("browse.tracks[0].box.classList.contains('playing')")
    listener.click("figure:nth-of-type(2) .play")
    listener.wait("browse.tracks[1].now > 0")
    assert listener.run(PLAYING) == 1 and listener.run("browse.tracks[0].audio.paused")
    assert listener.run("browse.tracks[1].button.getAttribute('aria-label')") == "pause reconstruction: a bell"
    listener.click("figure:nth-of-type(2) .play")
    listener.wait(f"{PLAYING} === 0")


def test_a_click_on_the_picture_goes_there_and_so_do_its_arrow_keys(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    listener.click("figure:nth-of-type(1) .play")
    listener.wait("browse.tracks[0].audio.ended")
    listener.click("figure:nth-of-type(1) .timeline", across=0.75)
    assert listener.run("browse.tracks[0].now") == pytest.approx(0.75 * SECONDS, abs=0.01)
    listener.run("browse.tracks[0].line.focus()")
    listener.press("ArrowLeft", "ArrowLeft")
    assert listener.run("browse.tracks[0].now") == pytest.approx(0.65 * SECONDS, abs=0.01)
    assert listener.run("player.current === browse.tracks[0] && !document.querySelector('.playing')")


def test_space_plays_and_arrows_go_from_sound_to_sound(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    listener.press("l", " ")
    listener.wait("browse.tracks[0].now > 0")
    listener.press(" ")
    listener.wait(f"{PLAYING} === 0")
    listener.press("ArrowRight", "ArrowRight", "ArrowLeft")
    listener.wait("player.current === browse.tracks[1] && !browse.tracks[1].audio.paused")
    assert listener.run("document.activeElement === browse.tracks[1].button")
    listener.press(" ")  # goes to the button, once
    listener.wait(f"{PLAYING} === 0")


def test_the_next_sound_goes_on_at_the_same_place_where_that_was_ticked(
    listener: Listener, pages: dict[str, Path]
) -> None:
    listener.go(pages["all"])
    for key, at_least in (("", 0.0), ("k", 0.2)):
        listener.press(*key)
        listener.run("browse.tracks[0].seek(0.25), browse.tracks[1].seek(0), player.current = browse.tracks[0], 0")
        first = "(player.play(browse.tracks[1]), browse.tracks[1].now)"
        assert at_least <= listener.run(first) <= at_least + 0.06
        listener.run("player.stop()")


def test_a_sound_that_is_gone_says_so(listener: Listener, pages: dict[str, Path], tmp_path: Path) -> None:
    text = pages["all"].read_text(encoding="utf-8").replace("sounds/001", "sounds/gone")
    (tmp_path / "index.html").write_text(text, encoding="utf-8")
    listener.go(tmp_path / "index.html")
    listener.press(" ")
    listener.wait("browse.tracks[0].clock.textContent === 'cannot be played'")


def test_a_single_file_plays_elsewhere(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["single"])
    listener.press(" ")
    listener.wait("browse.tracks[0].now > 0.1")
    listener.begin(pages["single"], "ab")
    listener.hear_all()
    assert listener.complaints() == []


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_trials_follow_from_the_seed_alone(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    for mode in ("ab", "mos"):
        orders = listener.run(f"[1, 1, 2].map((seed) => JSON.stringify(trialsOf('{mode}', page.design, seed)))")
        assert orders[0] == orders[1] != orders[2]


def test_every_pair_is_compared_once_and_every_arm_is_left_half_the_time(
    listener: Listener, pages: dict[str, Path]
) -> None:
    listener.go(pages["all"])
    for seed in range(8):
        trials = listener.run(f"abTrials(page.design, {seed}).map((t) => [t.item, ...t.sides.map((s) => s.arm)])")
        assert len(trials) == 9
        compared = Counter((item, *sorted((left, right))) for item, left, right in trials)
        assert len(compared) == 9 and set(compared.values()) == {1}
        sides = Counter((left, right) for _, left, right in trials)
        assert all(abs(sides[one, other] - sides[other, one]) == 1 for one, other in sides)
    rated = listener.run("mosTrials(page.design, 3).map((t) => [t.item, t.sides[0].arm])")
    assert sorted(map(tuple, rated)) == sorted((text, role) for text in TEXTS for role in ROLES)


def test_the_odd_side_and_the_order_are_drawn(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    firsts = listener.run("[...Array(40).keys()].map((seed) => abTrials(page.design, seed)[0])")
    assert {trial["item"] for trial in firsts} == set(TEXTS)
    lefts = Counter(trial["sides"][0]["arm"] for trial in firsts)
    assert set(lefts) == set(ROLES) and max(lefts.values()) < 25


def test_fewer_trials_keep_the_balance(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    for seed in range(5):
        few = f"{{ ...page.design, trials: 6 }}, {seed}"
        pairs = listener.run(f"abTrials({few}).map((t) => t.sides.map((s) => s.arm))")
        kinds = Counter(tuple(sorted(pair)) for pair in pairs)
        assert set(kinds.values()) == {2} and len(kinds) == 3
        assert all(pairs.count(pair) == 1 for pair in pairs)  # each of two sides once
        arms = Counter(listener.run(f"mosTrials({few}).map((t) => t.sides[0].arm)"))
        assert set(arms.values()) == {2} and len(arms) == 3


def test_numbers_are_even(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    drawn = listener.run("(() => { const next = numbers(5); return [...Array(20000)].map(next); })()")
    assert 0 <= min(drawn) and max(drawn) < 1
    counts = Counter(int(10 * number) for number in drawn)
    assert max(abs(counts[part] - 2000) for part in range(10)) < 5 * 2000**0.5


# --- the tests --------------------------------------------------------------------------------------------------------


def test_an_ab_test_by_keyboard_saves_what_was_heard_and_chosen(
    listener: Listener, pages: dict[str, Path], tmp_path: Path
) -> None:
    listener.begin(pages["single"], "ab")
    trials = listener.run("judging.run.trials.map((t) => [t.item, ...t.sides.map((s) => s.arm)])")
    for key in "12":
        listener.hear_all()
        listener.press(key)
    listener.wait("judging.number === 0")
    listener.click(".main-button")
    path = saved(tmp_path, "ab-anna-7.csv")
    rows = list(csv.DictReader(open(path, encoding="utf-8", newline="")))
    assert list(rows[0]) == "page mode listener seed trial item left right take choice seconds time".split()
    assert [[row["item"], row["left"], row["right"]] for row in rows] == trials
    assert [row["choice"] for row in rows] == ["left", "same"]
    assert all((row["mode"], row["listener"], row["seed"], row["take"]) == ("ab", "anna", "7", "1") for row in rows)
    assert all(2 * 0.9 * SECONDS < float(row["seconds"]) < 60 for row in rows)
    answers = listening_scores.read_answers([path])
    assert [answer.value for answer in answers] == [1.0 if trials[0][1] < trials[0][2] else 0.0, 0.5]
    assert listener.complaints() == []


def test_a_rating_by_mouse_saves_scores(listener: Listener, pages: dict[str, Path], tmp_path: Path) -> None:
    listener.begin(pages["blind"], "mos", "Zoë B.", 12)
    for number, score in enumerate("415", 1):
        listener.click(".side .play")
        listener.wait("judging.ready")
        listener.click(f".answer[data-value='{score}']")
        listener.wait(f"judging.number !== {number}")
    assert listener.run("document.querySelector('h2').textContent") == "Thank you"
    assert not listener.run("document.querySelector('#test details')")  # a blind page tells nothing at the end
    listener.click(".main-button")
    rows = list(csv.DictReader(open(saved(tmp_path, "mos-Zoë_B_-12.csv"), encoding="utf-8", newline="")))
    assert list(rows[0]) == "page mode listener seed trial item arm take score seconds time".split()
    assert [row["score"] for row in rows] == ["4", "1", "5"] and rows[0]["listener"] == "Zoë B."


def test_answers_are_closed_until_all_was_heard(listener: Listener, pages: dict[str, Path]) -> None:
    listener.begin(pages["all"], "ab")
    listener.press("1")
    listener.click(".answer")
    assert listener.run("judging.number") == 1 and listener.rows() == []
    assert listener.run("judging.notice.textContent") == "Listen to A and B first."
    listener.press("ArrowLeft")
    listener.wait("judging.tracks[0].heard")
    listener.wait("judging.notice.textContent === 'Listen to B first.'")
    listener.press("1", "3")
    assert listener.run("judging.number") == 1
    listener.press("ArrowRight")
    listener.wait("judging.ready")
    assert listener.run(PLAYING) <= 1
    listener.press("3")
    assert listener.run("judging.number") == 2 and listener.rows()[0]["choice"] == "right"


def test_a_forced_choice_has_two_answers(listener: Listener, pages: dict[str, Path]) -> None:
    listener.begin(pages["blind"], "ab")
    assert listener.run("[...document.querySelectorAll('.answer')].map((b) => b.dataset.value)") == ["left", "right"]


def test_nothing_in_a_test_names_an_arm(listener: Listener, pages: dict[str, Path]) -> None:
    for page in ("all", "blind"):
        for mode in ("ab", "mos"):
            listener.begin(pages[page], mode)
            parts = "document.getElementById('test').outerHTML + document.body.innerText"
            parts += "" if page == "all" else "+ document.querySelector('#browse').outerHTML"
            shown = listener.run(parts)
            assert not [role for role in ROLES if role in shown] and "sounds/" not in shown
            assert '<svg viewBox="0 0 240' not in shown and "<img" not in shown  # a picture would tell
    assert listener.run("location.search + document.title").count("real") == 0


def test_a_prompt_is_heard_beside_and_not_judged(listener: Listener, pages: dict[str, Path]) -> None:
    listener.begin(pages["all"], "mos")
    number = listener.run("1 + judging.run.trials.findIndex((trial) => trial.prompt)")
    listener.run(f"judging.trial({number})")
    listener.press("p")
    listener.wait("judging.promptTrack.now > 0.1")
    assert not listener.run("judging.ready")
    listener.run("judging.trial(1 + judging.run.trials.findIndex((trial) => !trial.prompt))")
    assert not listener.run("document.querySelector('.prompt')")


def test_progress_is_kept_and_can_be_gone_back_to(listener: Listener, pages: dict[str, Path]) -> None:
    listener.begin(pages["all"], "mos")
    listener.hear_all()
    listener.press("4")
    kept = listener.rows()
    listener.go(pages["all"], "#mos")
    listener.wait("document.querySelector('.main-button')?.textContent === 'Go on with 2 of 9'")
    assert listener.run("[...document.querySelectorAll('#test input')].map((i) => i.value)") == ["anna", "7"]
    listener.click(".main-button")
    listener.wait("judging.number === 2")
    assert listener.rows() == kept
    listener.press("Backspace")
    assert listener.run("document.querySelector('.answer[aria-pressed=true]').dataset.value") == "4"
    listener.press("2")  # heard before: it may be changed at once
    assert listener.rows()[0]["score"] == "2" and listener.run("judging.number") == 2
    listener.begin(pages["all"], "mos", "ben")
    assert listener.rows() == []
    listener.begin(pages["all"], "mos", "anna", 8)
    assert listener.rows() == []


def test_what_was_skipped_is_offered_at_the_end(listener: Listener, pages: dict[str, Path]) -> None:
    listener.begin(pages["blind"], "mos")
    listener.hear_all()
    listener.press("3")
    for number in (2, 3):
        assert listener.run("judging.number") == number
        listener.click(".row .quiet:nth-child(2)")
    assert listener.run("document.querySelector('.card p').textContent").startswith("1 of 3 answered")
    listener.click(".row .quiet:nth-child(2)")
    assert listener.run("judging.number") == 2


def test_a_browser_that_keeps_nothing_says_so_and_the_test_works(stranger: Listener, pages: dict[str, Path]) -> None:
    source = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no'); } });"
    stranger.call("Page.addScriptToEvaluateOnNewDocument", source=source)
    stranger.go(pages["blind"], "?listener=anna&seed=1#mos")
    assert "leave it open until you have saved" in stranger.run("document.querySelector('.notice').textContent")
    stranger.begin(pages["blind"], "mos")
    stranger.hear_all()
    stranger.press("5")
    assert stranger.run("judging.number") == 2 and stranger.rows()[0]["score"] == "5"
    assert "leave it open" in stranger.run("judging.notice.textContent")


def test_csv_is_read_back_as_it_was(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    cells = ["plain", 'a "quoted", one', "two\nlines", "Zoë", "7"]
    row = json.dumps(dict(zip("abcde", cells, strict=True)))
    text = listener.run(f"csv(['a', 'b', 'c', 'd', 'e'], [{row}])")
    assert list(csv.reader(io.StringIO(text, newline=""))) == [list("abcde"), cells]


def test_letters_typed_into_the_name_are_no_commands(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"], "#ab")
    listener.run("document.querySelector('input[name=listener]').focus()")
    listener.press("l", "k", "1", "p", " ", "x")
    assert listener.run("document.querySelector('input[name=listener]').value") == "lk1p x"
    assert not listener.run("player.loop || player.samePlace")
    listener.press("Enter")
    assert listener.run("judging.run.listener") == "lk1p x"


# --- how it looks -----------------------------------------------------------------------------------------------------

VIEWS = ("browse", "start", "ab", "mos", "end")
OVERFLOWING = """[...document.querySelectorAll('button, .role, h1, h2, .axis, nav, dt, dd, td, th')].filter((element) =>
  element.offsetParent && element.scrollWidth > element.clientWidth + 1).map((element) => element.outerHTML)"""
# Text whose contrast is below 4.5 (WCAG 2.2, 1.4.3).
FAINT = """(() => {
  const rgb = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const paper = (element) => { for (let e = element; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
  const faint = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.offsetParent || element.closest('button:disabled, noscript, script')) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(paper(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(element.outerHTML.slice(0, 80));
  }
  return faint;
})()"""


PRESSED = ("button", "slider", "checkbox", "textbox", "spinbutton", "link", "image", "progressbar")


def view(listener: Listener, page: Path, name: str) -> None:
    """Show one of ``VIEWS``."""
    if name in ("browse", "start"):
        listener.go(page, "" if name == "browse" else "#ab")
        listener.run("for (const each of document.querySelectorAll('#browse details')) each.open = true")
        return
    listener.begin(page, "mos" if name == "mos" else "ab")
    if name == "end":
        listener.run("judging.run.trials.forEach((_, i) => judging.run.answer(i + 1, 'left', 1)), judging.end()")
        listener.run("document.querySelector('#test details').open = true")


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_fits_its_width_can_be_read_and_is_named(
    listener: Listener, pages: dict[str, Path], name: str
) -> None:
    view(listener, pages["all"], name)
    for size in ((320, 640), PHONE, DESK):
        for dark in (False, True):
            listener.look(size, dark)
            assert listener.run("document.documentElement.scrollWidth - innerWidth") <= 0, (size, dark)
            assert listener.run(OVERFLOWING) == [], (size, dark)
            assert listener.run(FAINT) == [], (size, dark)
    assert listener.run("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 24)"
    nodes: list[dict[str, Any]] = listener.call("Accessibility.getFullAXTree")["nodes"]
    heard = [node for node in nodes if not node.get("ignored") and node["role"]["value"] in PRESSED]
    unnamed = [node["role"]["value"] for node in heard if not node.get("name", {}).get("value")]
    assert len(heard) >= 4 and unnamed == []


def test_sounds_stand_side_by_side_also_on_a_phone(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    places = "[...document.querySelector('.items').children].map((f) => Math.round(f.getBoundingClientRect().x))"
    for size, count in ((DESK, 4), (PHONE, 2)):
        listener.look(size)
        assert len(set(listener.run(places))) == count


def test_without_scripts_the_browsers_own_players_are_there(stranger: Listener, pages: dict[str, Path]) -> None:
    stranger.call("Emulation.setScriptExecutionDisabled", value=True)
    stranger.open(pages["all"].as_uri())
    assert (
        stranger.run("[...document.querySelectorAll('audio')].filter((a) => a.controls && a.offsetHeight > 20).length")
        == 10
    )
    assert stranger.run("document.getElementById('modes').offsetHeight") == 0
