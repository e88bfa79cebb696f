"""The page in a real browser, served by the real command."""

import importlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REQUIRED = os.environ.get("GLIMPSENET_REQUIRE_BROWSER") == "1"
"""Where these tests must not be skipped, as in CI."""
if not REQUIRED:
    pytest.importorskip("playwright", reason="drives the browser: pip install playwright")
playwright = importlib.import_module("playwright.sync_api")
expect = playwright.expect
COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = (
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
    Path(os.environ.get("PROGRAMFILES", "C:/Program Files")) / "Google/Chrome/Application/chrome.exe",
)
HOW_TO_INSTALL = (
    "needs Chromium or Chrome: apt-get install chromium (Debian), snap install chromium (Ubuntu),"
    " brew install --cask google-chrome (macOS), winget install Google.Chrome (Windows)"
)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
expect.set_options(timeout=30_000)


def find_browser() -> str | None:
    """The program of an installed browser."""
    return next(
        (place for place in [*map(shutil.which, COMMANDS), *map(str, PLACES)] if place and Path(place).is_file()), None
    )


def choose_browser(found: str | None, required: bool) -> str:
    """The one that was found; without one, the test is skipped, or fails where it is required."""
    if found is None:
        (pytest.fail if required else pytest.skip)(HOW_TO_INSTALL)
    return found


@pytest.fixture(scope="module")
def address(browser):  # no server where there is no browser
    command = [sys.executable, "-m", "glimpsenet", "demo", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[0]
        server.send_signal(signal.SIGINT)
        _, told = server.communicate(timeout=60)
        assert (server.returncode, told) == (0, "")  # it ends in peace, and had nothing to complain of


@pytest.fixture(scope="module")
def browser():
    program = choose_browser(find_browser(), REQUIRED)
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, address):
    """Opens the page as a new visitor; scripts that fail fail the test."""
    contexts, errors = [], []

    def visit(width: int = 1280, height: int = 800, motion: str = "reduce"):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, reduced_motion=motion))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        settled(page)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not errors


def settled(page, steps: int = 4) -> None:
    """Wait until the whole scanpath is shown; to who wants little motion it is shown at once."""
    expect(page.locator(f"#steps button[aria-current=step]:text-is('{steps}')")).to_be_visible()
    expect(page.locator("#play:not(.playing)")).to_be_visible()


def open_photo(page, file: dict) -> None:
    before = glimpse(page, 1)
    page.set_input_files("#file", file)
    expect(page.locator(".card[data-glimpse='1'] img")).not_to_have_attribute("src", before)
    settled(page)


def glimpse(page, step: int) -> str:
    return page.locator(f".card[data-glimpse='{step}'] img").get_attribute("src")


def photo(width: int = 640, height: int = 480) -> dict:
    file = io.BytesIO()
    pixels = np.random.default_rng(5).integers(256, size=(12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((width, height)).save(file, "JPEG")
    return {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": file.getvalue()}


def test_without_a_browser_the_skip_says_how_to_get_one_and_ci_fails():
    assert choose_browser("/usr/bin/chromium", required=True) == "/usr/bin/chromium"
    ways = ("apt-get install chromium", "snap install chromium", "brew install", "winget install")
    for required, outcome in ((False, pytest.skip.Exception), (True, pytest.fail.Exception)):
        with pytest.raises(outcome) as caught:
            choose_browser(None, required)
        assert all(way in str(caught.value) for way in ways)


def test_an_upload_plays_step_by_step(visit):
    page = visit(motion="no-preference")
    before = glimpse(page, 1)
    page.set_input_files("#file", photo())
    expect(page.locator("#play.playing")).to_be_visible()
    expect(page.locator(".card.later")).to_have_count(3)
    settled(page)
    expect(page.locator(".card.later")).to_have_count(0)
    assert glimpse(page, 1) != before
    expect(page.locator("#verdict")).to_have_text("after 4 glimpses.")  # nobody knows the truth
    expect(page.locator("#cost")).to_have_text(re.compile(r"\d+% of a plain backbone pass.*ms here"))
    expect(page.locator(".card .bars li")).to_have_count(40)
    page.click("#steps button:text-is('2')")
    expect(page.locator("#verdict")).to_have_text("after 2 glimpses.")
    expect(page.locator(".card.later")).to_have_count(2)


def test_an_example_knows_its_truth(visit):
    page = visit()
    expect(page.locator("#verdict")).to_have_text(re.compile("Correct[.]|Correct answer: "))
    page.click(".example >> nth=4")
    expect(page.locator(".example >> nth=4")).to_have_attribute("aria-pressed", "true")
    settled(page)
    first = page.locator(".example img").first.get_attribute("src")
    page.click("#more")
    expect(page.locator(".example img").first).not_to_have_attribute("src", first)


def test_dials_shorten_the_path(visit):
    page = visit()
    page.locator("#glimpses").fill("2")
    expect(page.locator(".card")).to_have_count(2)
    page.locator("#exit").fill("0")
    expect(page.locator("#verdict")).to_have_text(re.compile("after the first glimpse, stopped early: surer than 0%"))
    expect(page.locator(".card.skipped")).to_have_count(1)


def test_a_dragged_window_shows_what_is_there_and_later_ones_react(visit):
    page = visit()
    page.check("#arrows")
    expect(page.locator("#gradient td").first).not_to_have_text("–")
    own = {step: glimpse(page, step) for step in (1, 2, 3, 4)}
    tx, ty = (float(page.locator(f"#{name}").input_value()) for name in ("tx", "ty"))
    area = page.locator("#stage").bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        return area["x"] + (x + 1) / 2 * area["width"], area["y"] + (y + 1) / 2 * area["height"]

    aim = (-0.5 if tx > 0 else 0.5, -0.5 if ty > 0 else 0.5)
    page.mouse.move(*at(tx, ty))
    page.mouse.down()
    page.mouse.move(*at(*aim), steps=8)
    page.mouse.up()
    expect(page.locator(".card[data-glimpse='2'] h2")).to_have_text("2 your window")
    expect(page.locator(".card[data-glimpse='2'] img")).not_to_have_attribute("src", own[2])
    expect(page.locator(".card[data-glimpse='3'] img")).not_to_have_attribute("src", own[3])
    assert glimpse(page, 1) == own[1]
    moved = [float(page.locator(f"#{name}").input_value()) for name in ("tx", "ty")]
    assert moved == pytest.approx(aim, abs=0.02)
    scale = float(page.locator("#s").input_value())
    page.mouse.move(*at(moved[0] - scale, moved[1] + scale))
    page.mouse.down()
    page.mouse.move(*at(moved[0] - scale / 2, moved[1] + scale / 2), steps=4)
    page.mouse.up()
    assert float(page.locator("#s").input_value()) == pytest.approx(scale / 2, abs=0.02)
    page.locator("#stage").press("ArrowRight")
    assert float(page.locator("#tx").input_value()) == pytest.approx(moved[0] + 0.02, abs=1e-3)
    page.click("#free-all")
    for step, url in own.items():
        expect(page.locator(f".card[data-glimpse='{step}'] img")).to_have_attribute("src", url)


def test_a_sweep_draws_curves_and_field_and_a_click_moves_the_window(visit):
    page = visit()
    page.click("#tab-sweep")
    page.click("#do-sweep")
    expect(page.locator("#charts figure")).to_have_count(4)
    for name in ("s", "tx", "ty"):
        assert page.locator(f"figure[data-parameter={name}] circle").count() > 50
        curve = page.locator(f"figure[data-parameter={name}]")
        expect(curve).to_contain_text(re.compile("slope .*(right|wrong) sign"))
    field = page.locator("figure[data-parameter=field] svg")
    expect(field.locator(".downhill")).to_have_count(225)
    field.click(position={"x": 50, "y": 60})
    expect(page.locator(".card[data-glimpse='2'] h2")).to_have_text("2 your window")
    expect(page.locator("#charts.stale")).to_be_visible()


def test_ways_of_looking_stand_side_by_side(visit):
    page = visit()
    page.click("#tab-compare")
    page.click("#do-compare")
    expect(page.locator(".lane h4")).to_have_text(["learned", "random", "centre", "none"])
    assert [page.locator(f".lane >> nth={lane} >> .strip img").count() for lane in range(4)] == [4, 4, 4, 1]


def test_a_broken_file_is_told_in_words_and_the_page_goes_on(visit):
    page = visit()
    before = glimpse(page, 2)
    broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\nnonsense"}
    page.set_input_files("#file", broken)
    expect(page.locator("#problem")).to_contain_text("cannot read the image")
    assert glimpse(page, 2) == before
    open_photo(page, photo())
    expect(page.locator("#problem")).to_be_hidden()


def test_two_visitors_do_not_meet(visit):
    one, other = visit(), visit(390, 844)
    own = glimpse(one, 2)
    open_photo(other, photo(300, 700))
    theirs = glimpse(other, 2)
    one.locator("#stage").press("ArrowLeft")
    expect(one.locator(".card[data-glimpse='2'] h2")).to_have_text("2 your window")
    expect(one.locator(".card[data-glimpse='2'] img")).not_to_have_attribute("src", own)
    assert glimpse(other, 2) == theirs != own
    expect(other.locator(".card[data-glimpse='2'] h2")).to_have_text("2 model's choice")


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_the_page_fits_its_window(visit, width):
    page = visit(width)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
