"""gallery.html as a person opens it: filters by click and by keyboard, duplicates and leaks side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from odd_worlds import NAMES, SCRIPT, odd_set
from opened import WIDTHS, opened

from gen2real.report import write_gallery
from gen2real.report.gallery import make_gallery

# Twelve pictures, four a class. Two near-duplicates, one leak, one below the threshold, one without a score.
SCORES = [0.5, 0.4, 0.3, 0.2, 0.9, 0.8, 0.7, 0.6, 0.15, 0.05, None, 0.1]
KEPT = [True, True, True, False, True, False, True, True, True, False, True, True]
REASONS = [None, None, None, f"leaked: {SCRIPT}", None, "alike", None, None, None, "margin 0.05", None, None]
RULES = [[], [], [], ["leaked"], [], ["duplicate"], [], [], [], ["margin", "duplicate"], [], []]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gallery")
    real = odd_set(root / "real", origin="real", per_class=1)
    curated = odd_set(
        root / "set",
        score_margin=SCORES,
        score_similarity=[0.3] * 12,
        kept=KEPT,
        reason=REASONS,
        rules=RULES,
        duplicate_group=[None] * 4 + [7, 7] + [None] * 6,
        nearest_evaluation=[real.ids[0]] * 12,
        nearest_evaluation_set=[str(real.manifest)] * 12,
        nearest_evaluation_cosine=[0.9] * 12,
        nearest_evaluation_bits=[3] * 12,
    )
    written = make_gallery(curated)
    assert (written.path, written.pictures, written.shown) == (root / "set" / "gallery.html", 12, 12)
    return written.path


def shown(page: Any) -> list[str]:
    found: list[str] = page.eval_on_selector_all("#grid .shot", "all => all.map((one) => one.dataset.id)")
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_and_nothing_overlaps(browser: Any, gallery: Path, width: int, scheme: str) -> None:
    with opened(browser, gallery, width=width, scheme=scheme) as found:
        assert found.faults() == []
        assert min(found.contrasts().values()) >= 4.5
    assert found.said == []
    assert found.asked == []


def test_filters_work_by_click(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery) as found:
        page = found.page
        everything = shown(page)
        assert len(everything) == 12
        page.click("[data-filter=kept][data-value=dropped]")
        assert shown(page) == [everything[row] for row in (3, 5, 9)]
        page.click("[data-filter=rule][data-value=duplicate]")
        assert shown(page) == [everything[row] for row in (5, 9)]
        page.click("[data-filter=class][data-value='1']")
        assert shown(page) == [everything[5]]
        assert page.inner_text("#count") == "1 of 1 picture"
        page.click("#clear")
        assert shown(page) == everything
        page.click("[data-filter=order][data-value='-1']")
        ranked = sorted((row for row in range(12) if SCORES[row] is not None), key=lambda row: SCORES[row] or 0)
        assert shown(page) == [everything[row] for row in ranked]


def test_filters_work_by_keyboard(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery) as found:
        page = found.page
        page.focus("[data-filter=kept][data-value='']")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        assert page.get_attribute("[data-filter=kept][data-value=dropped]", "aria-pressed") == "true"
        assert len(shown(page)) == 3


def test_a_bar_of_a_histogram_shows_its_pictures(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery) as found:
        page = found.page
        bars = page.locator("[data-score='0']")
        assert bars.count() == 24
        sizes = []
        for place in range(24):
            bars.nth(place).click()
            assert bars.nth(place).get_attribute("aria-pressed") == "true"
            sizes.append(len(shown(page)))
        # The middle bins of 0.05 … 0.9 hold what numpy counts there.
        assert sum(sizes) == 11
        assert sizes[0] == 1
        assert sizes[-1] == 1
        bars.nth(23).click()
        assert len(shown(page)) == 12
        assert page.locator("[data-score='1']").count() == 0  # one value, nothing to draw


def test_best_and_worst_duplicates_and_leaks_lie_side_by_side(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery) as found:
        page = found.page
        first = page.locator(".extreme").nth(1)
        rows = "all => all.map((one) => Number(one.dataset.row))"
        assert first.locator(".strip").nth(0).locator("img").evaluate_all(rows) == [4, 5]
        assert first.locator(".strip").nth(1).locator("img").evaluate_all(rows) == [7, 6]
        assert page.locator("#duplicates .group img").evaluate_all(rows) == [4, 5]
        leak = page.locator("#leaks .group")
        assert leak.count() == 1
        assert leak.locator("img").count() == 2
        assert leak.locator("img").nth(1).get_attribute("alt").startswith("evaluation picture ")
        assert "cosine 0.900, 3 bits" in leak.inner_text()


def test_a_class_called_script_is_text(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery) as found:
        page = found.page
        assert page.eval_on_selector_all(".extreme .name", "all => all.map((one) => one.textContent)") == NAMES
        assert page.locator("script").count() == 3
        assert page.locator("img[src='x']").count() == 0
        assert page.eval_on_selector("#grid .name", "one => one.textContent") == SCRIPT
        page.locator("#grid button.thumb").nth(3).click()
        assert f"a photo of {SCRIPT}" in page.inner_text("dialog figcaption")
        page.keyboard.press("Escape")
    assert found.said == []


def test_what_does_not_fit_is_counted(tmp_path: Path, browser: Any) -> None:
    plain = odd_set(tmp_path / "set")
    whole = make_gallery(plain, tmp_path / "whole.html")
    small = make_gallery(plain, tmp_path / "folder", budget=1200)
    assert write_gallery(plain.root) == plain.root / "gallery.html"
    assert small.path == tmp_path / "folder" / "gallery.html"
    assert 0 < small.shown < whole.shown == 12
    with opened(browser, small.path, width=390) as found:
        assert f"{12 - small.shown} of them are not shown" in found.page.inner_text("header")
        assert len(shown(found.page)) == small.shown
        assert found.faults() == []
