"""The pages in a real browser, with the network off: what a reader does works, and nothing fails.

Needs Chromium with its driver (Debian: `apt-get install chromium chromium-driver`) and selenium.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Forewarn, Ran
from test_report import EVIL, comparison_page, evaluation_page

pytest.importorskip("selenium", reason="needs selenium")
pytest.importorskip("vl_convert", reason="needs forewarn[report]")

from harbour import hostile
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("needs chromium and chromedriver", allow_module_level=True)

Browser = Any

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--force-prefers-reduced-motion",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1280,1000",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    contents = {
        "evaluation": evaluation_page(),
        "comparison": comparison_page(),
        "hostile": evaluation_page(hostile(EVIL)),
        "hostile-comparison": comparison_page(hostile(EVIL)),
    }
    for name, html in contents.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in contents}


@pytest.fixture
def opened(browser: Browser, pages: dict[str, Path]) -> Browser:
    """The report of the nine rows, just opened."""
    return show(browser, pages["evaluation"])


def show(browser: Browser, path: Path) -> Browser:
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(path.as_uri())
    return browser


def column(browser: Browser, place: int) -> list[str]:
    rows = browser.find_elements(By.CSS_SELECTOR, "#tag-table tbody:not([hidden]) tr")
    return [row.find_elements(By.XPATH, "./*")[place].text for row in rows]


@pytest.mark.parametrize("name", ["evaluation", "comparison", "hostile", "hostile-comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_opens_without_an_error(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str
) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    show(browser, pages[name])
    assert browser.get_log("browser") == []
    requests = browser.execute_script("return performance.getEntriesByType('resource').length")
    assert requests == 0


def test_hostile_text_runs_nothing(browser: Browser, pages: dict[str, Path]) -> None:
    show(browser, pages["hostile"])
    # An alert would make every further command fail.
    assert browser.execute_script("return document.scripts.length") == 1
    assert browser.execute_script("return document.images.length") == 0
    assert "alert(1)" in browser.find_element(By.ID, "tags").find_element(By.XPATH, "./..").text


def test_the_policy_lets_no_other_script_run(opened: Browser) -> None:
    opened.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        "document.body.append(s);"
    )
    assert opened.execute_script("return window.ran") is None
    assert any("Content Security Policy" in entry["message"] for entry in opened.get_log("browser"))


def test_a_head_sorts_its_column_and_turns_it_round(opened: Browser) -> None:
    head = opened.find_element(By.CSS_SELECTOR, "#tag-table th:nth-child(2)")
    button = head.find_element(By.TAG_NAME, "button")
    assert head.get_attribute("aria-sort") is None
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(opened, 1) == ["3", "2", "1"]
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(opened, 1) == ["1", "2", "3"]


def test_sorting_works_by_keyboard_and_on_names(opened: Browser) -> None:
    button = opened.find_element(By.CSS_SELECTOR, "#tag-table th:first-child button")
    button.send_keys(Keys.ENTER)
    assert column(opened, 0) == ["Bees", "Shipwreck", "Storm"]
    button.send_keys(Keys.SPACE)
    assert column(opened, 0) == ["Storm", "Shipwreck", "Bees"]
    sorted_heads = opened.find_elements(By.CSS_SELECTOR, "#tag-table [aria-sort]")
    assert len(sorted_heads) == 1


def test_the_profile_changes_the_table(opened: Browser) -> None:
    assert column(opened, 4)[0] == "0.67"
    opened.find_element(By.CSS_SELECTOR, "input[value=cautious]").click()
    assert column(opened, 4)[0] == "1.00"
    assert len(column(opened, 0)) == 3


def test_texts_are_hidden_until_the_switch_is_on(opened: Browser) -> None:
    spoilers = opened.find_elements(By.CSS_SELECTOR, "#mistakes ~ .cases .spoiler")
    assert spoilers
    assert not any(element.is_displayed() for element in spoilers)
    assert "applause" not in opened.find_element(By.TAG_NAME, "body").text
    switch = opened.find_element(By.ID, "show-texts")
    switch.send_keys(Keys.SPACE)
    assert switch.is_selected()
    assert all(element.is_displayed() for element in spoilers)
    assert [mark.text for mark in opened.find_elements(By.CSS_SELECTOR, "#mistakes ~ .cases mark")]
    switch.send_keys(Keys.SPACE)
    assert not any(element.is_displayed() for element in spoilers)


def test_the_keyboard_reaches_the_controls_in_their_order(opened: Browser) -> None:
    reached = []
    for _ in range(14):
        opened.switch_to.active_element.send_keys(Keys.TAB)
        element = opened.switch_to.active_element
        reached.append(element.get_attribute("id") or element.text)
        outline = element.value_of_css_property("outline-style")
        assert outline not in {"none", ""}, reached[-1]
    assert reached[0] == "To the content"
    assert reached.index("Figures") < reached.index("show-texts")


def test_a_link_opens_the_sheet_of_its_tag(opened: Browser) -> None:
    sheet = opened.find_element(By.ID, "tag-bees")
    assert sheet.get_attribute("open") is None
    opened.find_element(By.CSS_SELECTOR, "#tag-table a[href='#tag-bees']").send_keys(Keys.ENTER)
    assert sheet.get_attribute("open") is not None
    opened.find_element(By.ID, "open-all").send_keys(Keys.ENTER)
    sheets = opened.find_elements(By.CSS_SELECTOR, "details.sheet")
    assert all(each.get_attribute("open") is not None for each in sheets)


def test_the_colours_follow_the_scheme_and_are_easy_to_read(
    browser: Browser, pages: dict[str, Path]
) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        show(browser, pages["evaluation"])
        backgrounds.append(colour(browser, "--paper"))
        for ink in ("--ink", "--soft", "--accent", "--first", "--second", "--third", "--fourth"):
            for ground in ("--paper", "--card"):
                assert contrast(colour(browser, ink), colour(browser, ground)) >= 4.5, (scheme, ink)
        assert contrast(colour(browser, "--ink"), colour(browser, "--heat")) >= 4.5
        assert contrast(colour(browser, "--mark-ink"), colour(browser, "--mark")) >= 4.5
        line = browser.find_element(By.CSS_SELECTOR, "#curves ~ .plots svg path[stroke]")
        assert rgb(line.value_of_css_property("stroke")) == colour(browser, "--ink")
    assert backgrounds[0] > backgrounds[1]


def test_a_phone_scrolls_tables_and_not_the_page(browser: Browser, pages: dict[str, Path]) -> None:
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        for name in ("evaluation", "comparison", "hostile"):
            show(browser, pages[name])
            browser.execute_script("document.getElementById('show-texts').click()")
            assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_printing_opens_every_sheet_and_leaves_out_the_controls(opened: Browser) -> None:
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    try:
        assert not opened.find_element(By.CSS_SELECTOR, ".bar").is_displayed()
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    opened.execute_script("dispatchEvent(new Event('beforeprint'))")
    sheets = opened.find_elements(By.CSS_SELECTOR, "details.sheet")
    assert all(each.get_attribute("open") is not None for each in sheets)
    opened.execute_script("dispatchEvent(new Event('afterprint'))")
    assert all(each.get_attribute("open") is None for each in sheets)


@pytest.mark.slow
def test_the_report_of_a_training_run_opens_and_sorts(
    browser: Browser, starter_training: tuple[Ran, Path], forewarn: Forewarn
) -> None:
    _, folder = starter_training
    show(browser, folder.parent / "report.html")
    assert browser.get_log("browser") == []
    browser.find_element(By.CSS_SELECTOR, "#tag-table th:nth-child(9) button").click()
    values = [float(value) for value in column(browser, 8)]
    assert values == sorted(values, reverse=True)
    assert len(values) == 36


def colour(browser: Browser, name: str) -> tuple[int, ...]:
    script = "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0])"
    text = browser.execute_script(script, name).strip().lstrip("#")
    text = "".join(c * 2 for c in text) if len(text) == 3 else text
    return tuple(int(text[place : place + 2], 16) for place in (0, 2, 4))


def rgb(text: str) -> tuple[int, ...]:
    inside = text[text.index("(") + 1 : text.index(")")]
    return tuple(int(part) for part in inside.replace(",", " ").split()[:3])


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """The contrast ratio of WCAG 2.2."""

    def luminance(colour_: tuple[int, ...]) -> float:
        parts = [c / 255 for c in colour_]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
