"""A real browser for tests: Debian's Chromium, driven by Playwright, with WebGL2 computed by the CPU."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
READY_MS = 120_000  # a busy machine computes every pixel itself


def find_browser() -> str | None:
    """The path of a Chromium of this machine."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def launched() -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and all that it complained of or asked a network for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def watch(self) -> "Watched":
        self.page.on("console", lambda said: self._said(said.type, said.text))
        self.page.on("pageerror", lambda error: self._said("error", str(error)))
        self.page.on("dialog", lambda dialog: self._said("error", f"dialog {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        return self

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")


def open_page(browser: Any, address: str, **how: Any) -> Watched:
    """Open a page in a window so small that a CPU can draw it."""
    watched = Watched(browser.new_page(viewport={"width": 560, "height": 480}, **how)).watch()
    watched.page.set_default_timeout(READY_MS)
    watched.page.goto(address)
    return watched


def wait_for_viewer(watched: Watched) -> None:
    """Wait until the viewer stands or has given up."""
    watched.page.wait_for_selector("#viewer.ready, #viewer.still", state="attached", timeout=READY_MS)


COUNT = """(color) => {
  const { planes } = window.radiogenViewer;
  planes.drawScene();
  const gl = planes.gl, pixels = new Uint8Array(4 * gl.drawingBufferWidth * gl.drawingBufferHeight);
  gl.readPixels(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  let found = 0;
  for (let at = 0; at < pixels.length; at += 4) {
    if (color.every((value, part) => Math.abs(pixels[at + part] - value) < 40)) found += 1;
  }
  return found;
}"""


def count_pixels(watched: Watched, color: tuple[int, int, int]) -> int:
    """How many pixels of the planes have about this colour."""
    return int(watched.page.evaluate(COUNT, list(color)))


CROSSHAIR = """() => {
  const { planes } = window.radiogenViewer;
  return Array.from(planes.frac2mm(planes.scene.crosshairPos)).slice(0, 3);
}"""


def crosshair_mm(watched: Watched) -> tuple[float, float, float]:
    """Where the cross stands, LPS; NiiVue says it in RAS."""
    x, y, z = watched.page.evaluate(CROSSHAIR)
    return -x, -y, z
