"""How listening pages look, in a real browser: narrow and wide, light and dark, by name, and without any script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from listening_tabs import DESK, PHONE, Listener

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
