"""report.html as a person opens it: from disk, in a real browser, narrow and wide, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from odd_worlds import NAMES, SCRIPT, Runs
from opened import WIDTHS, opened

from gen2real.report import write_report


@pytest.fixture(scope="module")
def page_of_run(runs: Runs) -> Path:
    return write_report(runs.run)


@pytest.fixture(scope="module")
def page_of_comparison(runs: Runs) -> Path:
    return write_report(runs.comparison)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("of", ["run", "comparison"])
def test_it_opens_and_nothing_overlaps(
    browser: Any, page_of_run: Path, page_of_comparison: Path, of: str, width: int
) -> None:
    with opened(browser, page_of_run if of == "run" else page_of_comparison, width=width) as found:
        assert found.faults() == []
        for details in found.page.query_selector_all("summary"):
            details.click()
        assert found.faults() == []
    assert found.said == []
    assert found.asked == []


def test_light_and_dark_can_be_read(browser: Any, page_of_run: Path) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        with opened(browser, page_of_run, scheme=scheme) as found:
            contrasts = found.contrasts()
            assert len(contrasts) >= 4
            assert min(contrasts.values()) >= 4.5, contrasts
            grounds.add(found.page.evaluate("getComputedStyle(document.body).backgroundColor"))
            axis = found.page.eval_on_selector("svg.chart text", "one => getComputedStyle(one).fill")
            assert axis != found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert len(grounds) == 2


def test_a_class_called_script_is_text(browser: Any, page_of_run: Path) -> None:
    with opened(browser, page_of_run) as found:
        names = found.page.eval_on_selector_all(".class h3 .name", "all => all.map((one) => one.textContent)")
        assert sorted(names) == sorted(NAMES)
        assert found.page.locator("script").count() == 1
        assert found.page.locator("img[src='x']").count() == 0
        assert SCRIPT in found.page.inner_text("#provenance")
        alts = found.page.eval_on_selector_all("#pictures img", "all => all.map((one) => one.alt)")
        assert f"generated picture of {SCRIPT}" in alts
    assert found.said == []


def test_classes_are_filtered_by_click_and_by_keyboard(browser: Any, page_of_run: Path) -> None:
    with opened(browser, page_of_run) as found:
        page = found.page
        shown = ".class:not([hidden])"
        assert page.locator(shown).count() == 3
        for kind in ("gained", "same", "lost"):
            page.click(f"[data-class-filter={kind}]")
            assert page.get_attribute(f"[data-class-filter={kind}]", "aria-pressed") == "true"
            assert page.get_attribute("[data-class-filter=all]", "aria-pressed") == "false"
            assert page.locator(shown).count() == page.locator(f".class[data-change={kind}]").count()
        page.focus("[data-class-filter=all]")
        page.keyboard.press("Enter")
        assert page.locator(shown).count() == 3
        assert page.eval_on_selector(":focus", "one => getComputedStyle(one).outlineStyle") == "solid"
        page.fill("#class-search", "YELL")
        assert page.locator(shown).count() == 1
        assert page.inner_text("#class-count") == "1 of 1 classes"


def test_a_picture_opens_larger_and_escape_closes_it(browser: Any, page_of_run: Path) -> None:
    with opened(browser, page_of_run) as found:
        thumb = found.page.locator("#pictures button.thumb").first
        thumb.focus()
        found.page.keyboard.press("Enter")
        assert found.page.locator("dialog[open] img").get_attribute("alt") == thumb.locator("img").get_attribute("alt")
        found.page.keyboard.press("Escape")
        assert found.page.locator("dialog[open]").count() == 0
        assert found.page.evaluate("document.activeElement.className").startswith("thumb")


def test_one_arm_is_shown_at_a_time(browser: Any, page_of_comparison: Path) -> None:
    with opened(browser, page_of_comparison) as found:
        page = found.page
        panels = page.locator(".panel:not([hidden])")
        assert panels.count() == 1
        assert panels.get_attribute("aria-label") == f"half {SCRIPT}"
        page.get_by_role("button", name="head", exact=True).click()
        assert (panels.count(), panels.get_attribute("aria-label")) == (1, "head")
        assert page.get_by_role("button", name="head", exact=True).get_attribute("aria-pressed") == "true"
        assert page.locator("#results small", has_text="<b>not bold</b>").count() == 1


def test_the_check_for_overlaps_finds_them(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<body><main><p style='width:2000px'>wide</p><p style='font-size:8px'>small</p><img src='data:,' alt='gone'>"
        "<p style='height:0;margin:0'>under the next line</p><p style='margin:0'>over the last line</p></main></body>"
    )
    with opened(browser, page) as found:
        told = " | ".join(found.faults())
    for part in (
        "the page is 20",
        "too small: small",
        "a picture does not show: gone",
        "overlap: “under the next line”",
    ):
        assert part in told
