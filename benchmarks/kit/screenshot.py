"""The README's picture: the report that `gen2real quickstart` wrote, as a browser shows it.

    gen2real quickstart --out runs/quickstart
    python benchmarks/kit/screenshot.py runs/quickstart/regft-on-the-kit/report.html docs/pictures/report.png

Needs Chromium on the path and the package playwright (`pip install -e '.[dev]'`).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1_120, 1_900
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--height", type=int, default=HEIGHT)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        sys.exit("no chromium on the path; install it, e.g. apt-get install chromium")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page(
            viewport={"width": WIDTH, "height": options.height}, color_scheme="dark" if options.dark else "light"
        )
        page.goto(options.report.absolute().as_uri())
        taken = page.screenshot()
        browser.close()
    # A palette keeps the file small in the repository.
    Image.open(BytesIO(taken)).convert("RGB").quantize(256).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
