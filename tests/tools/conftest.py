"""The scripts of tools/ that import one another find each other; a browser for the tests of listening pages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from browser import Browser
    from listening_tabs import Listener

sys.path[:0] = [str(Path(__file__).parents[2] / "tools"), str(Path(__file__).parent)]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser of all tests; each tab of it may have a profile of its own."""
    import browser

    program = browser.installed()
    if program is None:
        pytest.skip("no Chromium is installed: apt-get install chromium, or name one in CHROMIUM")
    try:
        running = browser.Browser(program)
    except RuntimeError as error:
        # What the page is not to blame for: a container without namespaces, a package that only points to a snap.
        if not any(word in str(error).lower() for word in ("sandbox", "snap")):
            raise
        pytest.skip(f"{program} cannot run here: {error}")
    with running:
        yield running


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Those of ``write_pages``, by their names."""
    from listening_tabs import write_pages, write_sounds

    return write_pages(write_sounds(tmp_path_factory.mktemp("sounds")), tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="session")
def tab(chromium: Browser) -> Listener:
    """The one that tests share: a new one takes half a second."""
    from listening_tabs import DESK, Listener

    return Listener(chromium, DESK)


@pytest.fixture
def listener(tab: Listener, tmp_path: Path) -> Iterator[Listener]:
    """A tab that looks, remembers and complains as if it were new."""
    from listening_tabs import DESK

    (tmp_path / "saved").mkdir()
    tab.save_to(tmp_path / "saved")
    tab.look(DESK)
    tab.browser.events.clear()
    yield tab
    tab.run("localStorage.clear()")


@pytest.fixture
def stranger(chromium: Browser) -> Iterator[Listener]:
    """A tab of its own, for what cannot be undone."""
    from listening_tabs import DESK, Listener

    own = Listener(chromium, DESK)
    yield own
    own.close()
