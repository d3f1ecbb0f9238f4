"""The report in a real browser: it asks for nothing, fits a phone, and can be read by all.

Needs Chromium and the package playwright, which drives it. RESQUE_AXE names the axe.min.js of
axe-core, which checks what assistive technology needs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forecasts import forecast_of
from resque.reporting.html import report
from test_report import comparison_of, shift_of, updates_of

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright, which drives a browser, is not installed"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
# What the margins leave of A4.
PAPER = {"width": 672, "height": 900}
# The levels of the guidelines that the page is held to.
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
# Contrast of what is written with what lies behind it, as WCAG 2 defines it; the page has no
# transparent colours but that of a figure, which has none behind it.
CONTRAST = """() => {
    const rgb = text => text.match(/[\\d.]+/g).map(Number);
    const light = text => {
        const [r, g, b] = rgb(text).slice(0, 3).map(
            v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (rgb(colour).length === 3 || rgb(colour)[3] === 1) return colour;
        }
    };
    const ratio = element => {
        const style = getComputedStyle(element);
        const of = light(element.tagName === 'text' ? style.fill : style.color);
        const [high, low] = [of, light(behind(element))].sort((a, b) => b - a);
        return (high + 0.05) / (low + 0.05);
    };
    const told = [...document.querySelectorAll(
        'text, p, li, a, dt, dd, th, td, caption, figcaption, summary, h1, h2, code')];
    return [told.length, told.filter(e => e.tagName === 'text').length, Math.min(...told.map(ratio))];
}"""  # noqa: E501


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"there is no browser here: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with every kind of section, a name that is too long, and a folded table."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    names = ("ant", "bee", "supercalifragilisticexpialidocious_" * 3, "dog")
    report(
        shift=shift_of(names), comparison=comparison_of(), history=updates_of(30),
        forecast=forecast_of(from_scratch=forecast_of(), notes=("beware",)),
        command="resque report " + "--label shift=blur " * 20,
    ).save(path)  # fmt: skip
    return path.as_uri()


def opened(browser: Any, address: str, **options: Any) -> Any:
    page = browser.new_context(**{"viewport": DESK} | options).new_page()
    page.goto(address)
    return page


def test_the_page_asks_for_nothing_and_nothing_complains(browser: Any, address: str) -> None:
    """One request, for the file itself; not a word on the console."""
    page = browser.new_context(viewport=DESK).new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address, wait_until="networkidle")
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert said == []
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_never_scrolls_sideways(browser: Any, address: str, scheme: str) -> None:
    """What is too wide scrolls in its own frame, folded tables that are opened as well."""
    page = opened(browser, address, viewport=PHONE, color_scheme=scheme)
    for _ in range(2):
        wide = page.evaluate(
            "() => [document.documentElement.scrollWidth, [...document.querySelectorAll('.wide')]"
            ".filter(e => e.scrollWidth > e.clientWidth).length]"
        )
        assert wide[0] <= PHONE["width"]
        assert wide[1] > 0
        page.evaluate("() => document.querySelectorAll('details').forEach(e => e.open = true)")
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_that_is_written_can_be_read(browser: Any, address: str, scheme: str) -> None:
    """Contrast of 4.5 or more, in the figures as well, in the light and in the dark."""
    page = opened(browser, address, color_scheme=scheme)
    words, in_figures, least = page.evaluate(CONTRAST)
    assert words > 300
    assert in_figures > 50
    assert least >= 4.5
    behind = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (behind == "rgb(255, 255, 255)") == (scheme == "light")
    page.context.close()


def test_without_scripts_all_is_there(browser: Any, address: str) -> None:
    page = opened(browser, address, java_script_enabled=False)
    text = page.locator("main").inner_text()
    assert "head: it takes 0.2 kWh" in text
    assert page.locator("svg").count() == 4
    page.context.close()


def test_keys_lead_to_the_report_and_through_its_frames(browser: Any, address: str) -> None:
    """The first one skips what comes before it; frames that scroll can be reached."""
    page = opened(browser, address, viewport=PHONE)
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.getAttribute('aria-label')"))
    assert "Figure: Shift of each class (4)" in reached
    assert "Table: Options: medians and 90% intervals" in reached
    page.context.close()


def test_it_prints_with_what_was_folded(browser: Any, address: str) -> None:
    """Dark pages are printed light, nothing is cut off, and folded tables are there."""
    page = opened(browser, address, color_scheme="dark", viewport=PAPER)
    folded = (
        "() => [...document.querySelectorAll('details:not([open]) table')].map(e => e.offsetHeight)"
    )
    assert page.evaluate(folded)
    page.emulate_media(media="print")
    assert min(page.evaluate(folded)) > 100
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert page.evaluate("() => document.documentElement.scrollWidth") <= PAPER["width"]
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_assistive_technology_finds_its_way(
    browser: Any, address: str, scheme: str, viewport: dict[str, int]
) -> None:
    """No rule of axe-core is broken: landmarks, headings, names, contrast, order."""
    axe = os.environ.get("RESQUE_AXE")
    if not axe or not Path(axe).is_file():
        pytest.skip("axe-core is not here: point RESQUE_AXE at its axe.min.js")
    # The page's own policy lets no script in, this one neither.
    page = opened(browser, address, color_scheme=scheme, viewport=viewport, bypass_csp=True)
    page.add_script_tag(path=axe)
    found = page.evaluate("rules => axe.run({runOnly: {type: 'tag', values: rules}})", list(RULES))
    broken = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]
    assert broken == []
    assert len(found["passes"]) > 20
    page.context.close()
