"""The report in a real browser: contents, filter, sort, open an episode, CSV, themes, two widths; nothing asks the network.

python report_page.py REPORT.html SCREENSHOTS
"""

import csv
import json
import re
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright


def failed_drops(page: Page) -> None:
    """Filter by words, by a list, and sort."""
    data = json.loads(page.locator("#episodes").text_content())["episodes"]
    drops = [row for row in data if row["type"] == "drop"]
    rows = page.locator(".explorer tbody tr")
    assert rows.count() == len(data), (rows.count(), len(data))
    page.get_by_label("filter episodes").fill("failure drop")
    assert rows.count() == len(drops) > 0, (rows.count(), len(drops))
    page.get_by_label("filter episodes").fill("")
    page.get_by_label("Type").select_option("drop")
    assert rows.count() == len(drops)
    page.get_by_role("button", name="alarm", exact=True).click()
    shown = [int(text) for text in page.locator(".explorer tbody tr td:nth-child(8)").all_inner_texts() if text]
    assert shown == sorted(row["alarm"] for row in drops if row["alarm"] is not None)


def one_episode(page: Page) -> None:
    """Open it by mouse and by keyboard; its curve says what it shows."""
    first = page.locator(".explorer tbody tr").first
    first.click()
    assert re.match(r"p_fail of episode \d+", page.locator(".detail svg").get_attribute("aria-label"))
    first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".detail").count() == 0
    page.keyboard.press("Enter")
    assert "failsight view test --episode" in page.locator(".detail code").inner_text()


def files(page: Page) -> None:
    """The table as CSV is what is shown; a figure comes as SVG."""
    with page.expect_download() as found:
        page.locator(".explorer button.file").click()
    rows = list(csv.reader(Path(found.value.path()).read_text().splitlines()))
    assert rows[0][:3] == ["episode", "task", "condition"]
    assert len(rows) - 1 == page.locator(".explorer tbody tr[tabindex]").count()
    with page.expect_download() as found:
        page.locator("button.file[title='this figure as SVG']").first.click()
    assert Path(found.value.path()).read_text().startswith("<svg")


def themes(page: Page) -> None:
    """Light and dark at a click."""
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="dark / light").click()
    assert page.evaluate(ground) != light


def main(report: Path, shots: Path) -> None:
    """Every step above; screenshots of both widths and themes."""
    shots.mkdir(parents=True, exist_ok=True)
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", chromium_sandbox=False)
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.on("request", lambda request: asked.append(request.url))
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(report.absolute().as_uri())
        assert page.locator("nav.contents a").count() == page.locator("main h2").count() > 4
        page.screenshot(path=shots / "wide.png")
        failed_drops(page)
        one_episode(page)
        page.locator(".explorer").screenshot(path=shots / "episodes.png")
        files(page)
        themes(page)
        page.screenshot(path=shots / "dark.png")
        page.set_viewport_size({"width": 390, "height": 844})
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"at 390 px the page is {width} px wide"
        page.screenshot(path=shots / "narrow.png", full_page=True)
        browser.close()
    outside = [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    assert not outside, f"the page asked for {outside}"
    assert not wrong, f"the page's script broke: {wrong}"
    size = report.stat().st_size / 1e6
    assert size <= 5, f"the report has {size:.1f} MB"
    print(
        f"report of {size:.2f} MB: contents, filter, sort, episode, files, themes and 390 px work; screenshots in {shots}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
