"""A page in a real browser, for the tests of everything that this package writes as HTML."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox",  # CI runs as root; the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCHEMES = ("light", "dark")
PHONE, DESKTOP = 360, 1280
MINIMUM = 4.5
"""Contrast of text with its background that WCAG 2 asks for at level AA."""

PATIENCE = 120_000
"""Milliseconds that a busy machine is given for one step."""

# Everything below runs in the page through the debugger's connection, so it also works where scripts are switched off.
OPEN = "() => document.querySelectorAll('details').forEach(item => { item.open = true })"
IMAGES = """() => [...document.images].map(image => ({
  alt: image.alt, drawn: image.complete && image.naturalWidth > 0, figure: image.parentElement.localName === 'picture',
  source: [...image.currentSrc].reduce((hash, letter) => (31 * hash + letter.charCodeAt(0)) | 0, 0),
  shown: image.checkVisibility() && image.getBoundingClientRect().width > 0}))"""
OUTLINE = """() => ({
  language: document.documentElement.lang, title: document.title, scripts: document.scripts.length,
  headings: [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(item => Number(item.localName[1])),
  background: getComputedStyle(document.body).backgroundColor})"""
WIDTH = """() => ({
  page: document.documentElement.scrollWidth,
  wide: [...document.body.querySelectorAll('*')].filter(item => item.getBoundingClientRect().right > innerWidth + 1
    && !item.closest('.scroll, pre')).slice(0, 5).map(item => item.outerHTML.slice(0, 120)),
  spilled: [...document.body.querySelectorAll('*')].filter(item => item.clientWidth
    && item.scrollWidth > item.clientWidth + 1 && !item.closest('.scroll, pre'))
    .slice(0, 5).map(item => item.outerHTML.slice(0, 120))})"""
TEXTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const known = new Map();
  const parse = colour => {  // any CSS colour as [red, green, blue, alpha], the first three in 0..255
    if (!known.has(colour)) {
      canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  };
  const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3])).concat(1);
  const luminance = ([r, g, b]) => [r, g, b].map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const layersBelow = element => {  // from the element down to the page, with the columns of tables
    const layers = [];
    for (let item = element; item; item = item.parentElement) {
      layers.push(getComputedStyle(item).backgroundColor);
      if (item.localName === 'tbody' || item.localName === 'thead') {
        const cell = element.closest('td, th'), columns = item.parentElement.querySelectorAll('col');
        if (cell && columns[cell.cellIndex]) layers.push(getComputedStyle(columns[cell.cellIndex]).backgroundColor);
      }
    }
    return layers;
  };
  const paper = document.createElement('div');
  paper.style.backgroundColor = 'Canvas'; document.body.append(paper);
  const base = parse(getComputedStyle(paper).backgroundColor); paper.remove();
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), range = new Range();
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest('script, style, noscript, template')) continue;
    range.selectNodeContents(node);
    const style = getComputedStyle(element), box = range.getBoundingClientRect();
    let opacity = 1;
    for (let item = element; item; item = item.parentElement) opacity *= Number(getComputedStyle(item).opacity);
    const behind = layersBelow(element).map(parse).reverse().reduce((below, layer) => over(layer, below), base);
    const colour = [...parse(style.color)]; colour[3] *= opacity;
    const [light, dark] = [luminance(over(colour, behind)), luminance(behind)].sort((a, b) => b - a);
    found.push({text: node.data.trim().slice(0, 60), contrast: (light + 0.05) / (dark + 0.05),
      colours: [style.color, behind.slice(0, 3).map(Math.round).join(' ')],
      shown: box.width > 0 && box.height > 0 && element.checkVisibility({checkVisibilityCSS: true})});
  }
  return found;
}"""


@dataclass
class Look:
    """What a page showed and did.

    Args:
        width: Of the window, in CSS pixels.
        troubles: Errors and warnings of the console, and errors of scripts.
        requests: Addresses of everything that was asked for, pictures inside the page left out.
        outline: Language, title, number of scripts, levels of the headings, background.
        images: Every picture.
        texts: Every piece of text with its contrast and whether it can be seen, folded parts opened.
        extent: Width of the page, and elements that stick out of the window or whose content sticks out of them.
    """

    width: int
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    outline: dict[str, Any] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list)
    texts: list[dict[str, Any]] = field(default_factory=list)
    extent: dict[str, Any] = field(default_factory=dict)

    def check(self, address: str) -> None:
        """Everything that holds for every page in every window."""
        assert self.troubles == []
        assert set(self.requests) == {address}, "everything is inside the page"
        assert self.extent["wide"] == []
        assert self.extent["spilled"] == [], "what is wider than the box it is in runs into its neighbour"
        assert self.extent["page"] <= self.width
        assert [image for image in self.images if not image["drawn"] or not image["shown"]] == []
        assert [image for image in self.images if len(image["alt"].split()) < 2] == [], "every picture is described"
        assert [text for text in self.texts if not text["shown"]] == []
        assert [text for text in self.texts if text["contrast"] < MINIMUM] == []

    def check_outline(self) -> None:
        """What screen readers need: a language, a title, one first heading and no level left out."""
        assert self.outline["language"] == "en"
        assert self.outline["title"]
        levels = self.outline["headings"]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert [pair for pair in pairwise(levels) if pair[1] > pair[0] + 1] == []


class Browser:
    """Opens pages of the file system.

    Args:
        chromium: Playwright's browser.
        pictures: Folder for a screenshot of every page that is opened, or None.
    """

    def __init__(self, chromium: Any, pictures: Path | None = None) -> None:
        self.chromium = chromium
        self.pictures = pictures

    def look(self, page: Path, *, width: int = DESKTOP, scheme: str = "light", scripts: bool = True) -> Look:
        """Opens a page in a fresh window, unfolds it and looks at it."""
        context = self.chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            java_script_enabled=scripts,
            offline=True,
        )
        context.set_default_timeout(PATIENCE)
        try:
            return self._look(context, page, width, scheme)
        finally:
            context.close()

    def _look(self, context: Any, page: Path, width: int, scheme: str) -> Look:
        found, tab = Look(width), context.new_page()
        tab.on("console", lambda message: found.troubles.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: found.troubles.append(str(error)))
        tab.on("request", lambda request: found.requests.append(request.url))
        tab.goto(page.as_uri(), wait_until="load")
        tab.evaluate(OPEN)
        found.requests = [address for address in found.requests if not address.startswith("data:")]
        found.outline, found.images, found.texts, found.extent = map(tab.evaluate, (OUTLINE, IMAGES, TEXTS, WIDTH))
        if self.pictures is not None:
            self.pictures.mkdir(parents=True, exist_ok=True)
            tab.screenshot(path=self.pictures / f"{page.parent.name}-{page.stem}-{scheme}-{width}.png", full_page=True)
        return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a file; RETRACE_SCREENSHOTS names a folder for pictures of what they open."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    pictures = os.environ.get("RETRACE_SCREENSHOTS")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), timeout=PATIENCE)
        try:
            yield Browser(chromium, Path(pictures) if pictures else None)
        finally:
            chromium.close()
