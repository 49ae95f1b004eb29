"""A page opened in a browser, and what a person would notice about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WIDTHS = (390, 1280)

_FAULTS, _CONTRASTS = (
    (Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("faults.js", "contrasts.js")
)


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
        return dict(self.page.evaluate(_CONTRASTS))


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
