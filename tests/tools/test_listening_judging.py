"""Listening tests in a real browser: what is heard, answered, kept and saved, without any server."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

import listening_scores
from listening_tabs import PLAYING, ROLES, SECONDS, Listener


def saved(folder: Path, pattern: str) -> Path:
    """A file that the browser saves, once it is whole."""
    deadline = time.monotonic() + 20
    while not (found := list((folder / "saved").glob(pattern))):
        assert time.monotonic() < deadline, f"nothing was saved as {pattern}: {list((folder / 'saved').iterdir())}"
        time.sleep(0.05)
    return found[0]


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
