"""A page opened in a browser, and what a person would notice about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WIDTHS = (390, 1280)

# What a person sees as broken: something wider than the window, text over text, a picture that does not show.
_FAULTS = """() => {
  const faults = [], width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) faults.push(`the page is ${document.documentElement.scrollWidth} wide`);
  const clipped = (one) => one.closest(".scroll, pre, .long, dialog, .skip, svg");
  const seen = (one) => one.checkVisibility({ visibilityProperty: true }) && one.getClientRects().length > 0;
  const words = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.textContent.trim() || ["SCRIPT", "STYLE", "TITLE", "NOSCRIPT"].includes(parent.tagName.toUpperCase()) || !seen(parent)) continue;
    if (parent.closest("details:not([open]) > :not(summary), .skip")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width > 1 && box.height > 1) words.push([box, node.textContent.trim().slice(0, 40), parent]);
  }
  for (const [box, text, parent] of words)
    if (!clipped(parent) && (box.left < -1 || box.right > width + 1)) faults.push(`outside the window: ${text}`);
  words.sort((a, b) => a[0].top - b[0].top);
  for (let i = 0; i < words.length; i++)
    for (let j = i + 1; j < words.length && words[j][0].top < words[i][0].bottom - 2; j++) {
      const [a, b] = [words[i][0], words[j][0]];
      if (clipped(words[i][2]) !== clipped(words[j][2])) continue;
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
        faults.push(`overlap: “${words[i][1]}” and “${words[j][1]}”`);
    }
  for (const image of document.images) {
    if (!seen(image) || image.closest("dialog")) continue;
    if (!image.complete || image.naturalWidth === 0) faults.push(`a picture does not show: ${image.alt}`);
    if (!image.alt) faults.push(`a picture without an alternative text: ${image.outerHTML.slice(0, 80)}`);
  }
  const small = [...document.querySelectorAll("main *")].filter((one) => seen(one) && one.childNodes.length && [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()) && !one.closest("svg") && parseFloat(getComputedStyle(one).fontSize) < 12);
  for (const one of small) faults.push(`too small: ${one.textContent.trim().slice(0, 40)}`);
  return faults;
}"""

_CONTRAST = """() => {
  const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return ["h1", "p.lead", "section > h2 + p, .told, figcaption", "nav.contents a", "summary, .tag, .chip[aria-pressed=false]"].map((which) => document.querySelector(which)).filter(Boolean).map((one) => {
    const text = light(getComputedStyle(one).color);
    return [one.className || one.tagName, (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05)];
  });
}"""


@dataclass
class Opened:
    """A page in the browser. said: console messages, errors and dialogs; asked: requests but for the page itself."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Everything that overlaps, overflows, is too small to read or does not show."""
        found: list[str] = self.page.evaluate(_FAULTS)
        return found

    def contrasts(self) -> dict[str, float]:
        """Contrast of some texts with the page's ground."""
        return dict(self.page.evaluate(_CONTRAST))


@contextmanager
def opened(browser: Any, path: Path, *, width: int = 1280, scheme: str = "light") -> Iterator[Opened]:
    """Opens a file in a fresh context, from file://."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(60_000)
    page = context.new_page()
    found = Opened(page)
    page.on("console", lambda message: found.said.append(message.text))
    page.on("pageerror", lambda error: found.said.append(str(error)))
    page.on("dialog", lambda dialog: (found.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: found.asked.append(request.url))
    try:
        page.goto(path.as_uri())
        found.asked = [url for url in found.asked if url != path.as_uri() and not url.startswith("data:")]
        yield found
        found.asked = [url for url in found.asked if url != path.as_uri() and not url.startswith("data:")]
    finally:
        context.close()
