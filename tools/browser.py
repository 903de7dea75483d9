"""A headless Chromium, driven over its DevTools pipe by the standard library alone: open a page, use it, take pictures.

    python tools/browser.py page/index.html -o page.png --width 390 --dark

The program is the one that CHROMIUM names, or the first of the usual names that is installed. Keys and clicks go in
where those of a person do, so what is tried is the page and the browser's own handling of it. The pipe (two inherited
file descriptors, messages that end in a zero byte) needs no port, no driver program and no package.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-component-update"),
    *("--hide-scrollbars", "--force-color-profile=srgb"),
)
KEYS = {
    " ": ("Space", 32),
    "Enter": ("Enter", 13),
    "Tab": ("Tab", 9),
    "Backspace": ("Backspace", 8),
    "ArrowLeft": ("ArrowLeft", 37),
    "ArrowUp": ("ArrowUp", 38),
    "ArrowRight": ("ArrowRight", 39),
    "ArrowDown": ("ArrowDown", 40),
}
"""Name of a key as pages see it -> its place on the keyboard and its number there."""
PATIENCE = 60.0
"""Seconds that an answer of the browser may take."""


def installed() -> str | None:
    """The program to run; None where there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """A running browser; ``with`` ends it.

    Raises:
        RuntimeError: It does not start; the message is its own.
    """

    def __init__(self, program: str) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which root cannot have
        command = [program, *FLAGS, *sandbox, f"--user-data-dir={self.folder.name}", "about:blank"]
        # The pipe has the numbers 3 and 4 by agreement; the shell moves its own input and output there.
        shell = ["sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >&2', "sh", *command]
        self.said = Path(self.folder.name, "said.txt")
        with open(self.said, "wb") as said:
            self.process = subprocess.Popen(
                shell, stdin=read_there, stdout=write_there, stderr=said, start_new_session=True
            )
        os.close(read_there)
        os.close(write_there)
        self.reading, self.writing = read_here, write_here
        self.pending, self.number = b"", 0
        self.events: list[dict[str, Any]] = []
        try:
            self.version = str(self.call("Browser.getVersion")["product"])
        except (RuntimeError, OSError):
            self.close()
            raise

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Ask the browser, or one page of it, for something; what it answers. Events that come meanwhile are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        try:
            os.write(self.writing, json.dumps(message).encode() + b"\0")
        except BrokenPipeError:
            raise RuntimeError(f"the browser is gone: {self.last_words()}") from None
        deadline = time.monotonic() + PATIENCE
        while (answer := self._next(deadline)).get("id") != self.number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self.pending:
            ready, _, _ = select.select([self.reading], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RuntimeError(f"the browser said nothing for {PATIENCE:.0f} s: {self.last_words()}")
            if not (piece := os.read(self.reading, 1 << 16)):
                raise RuntimeError(f"the browser ended: {self.last_words()}")
            self.pending += piece
        message, _, self.pending = self.pending.partition(b"\0")
        return dict(json.loads(message))

    def last_words(self) -> str:
        """The end of what the program printed."""
        return self.said.read_text(errors="replace").strip()[-300:] or "nothing was printed"

    def close(self) -> None:
        """End the program, by force where it does not go, and remove what it kept."""
        with contextlib.suppress(OSError):
            os.write(self.writing, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.reading)
        os.close(self.writing)
        self.folder.cleanup()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Tab:
    """One page in a profile of its own: nothing that another tab has kept is there.

    Args:
        size: Width and height in CSS pixels.
        downloads: Where saved files go.
    """

    def __init__(
        self, browser: Browser, size: tuple[int, int] = (1280, 900), dark: bool = False, downloads: Path | None = None
    ) -> None:
        self.browser = browser
        self.profile = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=self.profile)["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.look(size, dark)
        if downloads:
            self.save_to(downloads)

    def save_to(self, folder: Path) -> None:
        """Where files go from now on that the page saves."""
        told = {"behavior": "allow", "downloadPath": str(folder.resolve()), "browserContextId": self.profile}
        self.browser.call("Browser.setDownloadBehavior", **told)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask this page for something."""
        return self.browser.call(method, self.session, **parameters)

    def look(self, size: tuple[int, int], dark: bool = False, scale: float = 1.0) -> None:
        """The window's size in CSS pixels, light or dark, and the pixels of one."""
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}  # a picture shows no colour on its way
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])

    def open(self, address: str) -> None:
        """Go there and wait until all of it is loaded."""
        here = str(self.run("location.href")).partition("#")[0] == address.partition("#")[0]
        for each in ("about:blank", address)[not here :]:  # what differs after its # alone would not be loaded anew
            self.run("window.leaving = true")
            self.call("Page.navigate", url=each)
            self.wait("!window.leaving && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for.

        Raises:
            RuntimeError: It throws.
        """
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            told = answer["exceptionDetails"]
            raise RuntimeError(f"{script}: {told.get('exception', {}).get('description', told['text'])}")
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 20.0) -> None:
        """Until an expression is true in the page.

        Raises:
            TimeoutError: It has not become so.
        """
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {seconds:g} s still not: {condition}")
            time.sleep(0.03)

    def press(self, *keys: str) -> None:
        """Keys, each down and up again: a name of ``KEYS`` or a character."""
        for key in keys:
            code, number = KEYS.get(key, (f"Digit{key}" if key.isdigit() else f"Key{key.upper()}", ord(key.upper()[0])))
            told = {"key": key, "code": code, "windowsVirtualKeyCode": number}
            text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", **told, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def click(self, selector: str, across: float = 0.5) -> None:
        """The mouse on the first element of a selector, scrolled to, ``across`` of its width from the left."""
        found = self.run(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)}); if (!element) return null;"
            "element.scrollIntoView({ block: 'center', behavior: 'instant' });"
            "const box = element.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })()"
        )
        if not found:
            raise ValueError(f"nothing to click on: {selector}")
        x, y, width, height = found
        place = {"x": x + across * width, "y": y + height / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **place)

    def write(self, selector: str, text: str) -> None:
        """Text into a field, in place of what stands there."""
        self.run(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)

    def picture(self, path: Path, whole: bool = True) -> None:
        """The page as a PNG, all of its height or what the window shows."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def complaints(self) -> list[str]:
        """Errors of scripts, and files that could not be loaded, since the tab was opened."""
        self.run("1")  # what was said so far has arrived with the answer
        own = [event for event in self.browser.events if event.get("sessionId") == self.session]
        thrown = [e["params"]["exceptionDetails"] for e in own if e["method"] == "Runtime.exceptionThrown"]
        logged = [e["params"]["entry"] for e in own if e["method"] == "Log.entryAdded"]
        return [str(each) for each in thrown] + [str(each) for each in logged if each["level"] == "error"]

    def close(self) -> None:
        """Forget the page and what it has kept."""
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.profile)


def main() -> None:
    """Read the command line and take a picture."""
    parser = argparse.ArgumentParser(description="Take a picture of a page in a headless Chromium.")
    parser.add_argument("page", help="a file or an address")
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG to write")
    parser.add_argument("--width", type=int, default=1280, help="in CSS pixels, default: %(default)s")
    parser.add_argument("--dark", action="store_true", help="as for one who likes dark pages")
    options = parser.parse_args()
    if not (program := installed()):
        parser.exit(2, f"{parser.prog}: no Chromium is installed: apt-get install chromium, or name one in CHROMIUM\n")
    address = options.page if "://" in options.page else Path(options.page).resolve().as_uri()
    try:
        with Browser(program) as browser:
            tab = Tab(browser, (options.width, 900), options.dark)
            tab.open(address)
            tab.picture(options.output)
    except (RuntimeError, TimeoutError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(options.output)


if __name__ == "__main__":
    main()
