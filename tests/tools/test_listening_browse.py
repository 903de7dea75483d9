"""Sounds side by side, in a real browser: what plays, where its head is, and what keys and clicks do."""

from __future__ import annotations

from pathlib import Path

import pytest
from listening_tabs import PLAYING, SECONDS, Listener


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


def test_a_sound_that_the_browser_wants_a_click_for_is_not_broken(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    broken = "browse.tracks[0].fail(new DOMException('', '{}')), browse.tracks[0].broken"
    assert not listener.run(broken.format("NotAllowedError")) and listener.run(broken.format("NotSupportedError"))


def test_a_single_file_plays_elsewhere(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["single"])
    listener.press(" ")
    listener.wait("browse.tracks[0].now > 0.1")
    listener.begin(pages["single"], "ab")
    listener.hear_all()
    assert listener.complaints() == []
