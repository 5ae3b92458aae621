"""The page in a real Chromium: no console error, no foreign host, halting end to end, no wider than a phone."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from apiflask import APIFlask
from playwright.sync_api import Browser, Page, sync_playwright
from werkzeug.serving import make_server

from tests.support.outside import Outside
from tests.support.status_seed import seed_week
from tests.trading_api.conftest import CONTROL, READ, SESSION
from tradewind.adapters.database import Database
from tradewind.adapters.login_tickets import login_link
from tradewind.settings import Settings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
SCREENSHOTS = Path(__file__).resolve().parents[2] / ".tradewind" / "screenshots"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def address(app: APIFlask, database: Database, settings: Settings) -> Iterator[str]:
    seed_week(database, settings.account_id)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[tuple[Page, list[str]]]:
    """A signed-in page, and what went wrong in it: console errors, exceptions, requests to other hosts."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda request: wrong.append(request.url) if urlsplit(request.url).netloc != urlsplit(address).netloc else None,
    )
    page.goto(login_link(address, SESSION))
    page.wait_for_url(f"{address}/")
    yield page, wrong
    context.close()


def test_the_page_draws_itself_without_a_word_or_a_foreign_host(visit: tuple[Page, list[str]]) -> None:
    page, wrong = visit
    page.wait_for_selector("#equity-chart .main-svg", timeout=30_000)
    page.wait_for_selector("#candle-chart .main-svg", timeout=30_000)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for width in (1440, 390):
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 1000})
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.screenshot(path=SCREENSHOTS / f"status-{width}-{scheme}.png", full_page=True)
    assert wrong == []


# The ratio of WCAG 2 for every element with text of its own, against the nearest painted background.
CONTRAST = """() => {
  const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const parse = (text) => {
    const n = numbers(text);
    if (text.startsWith('color(srgb')) return [...n.slice(0, 3).map((x) => x * 255), n[3] ?? 1];
    return [n[0] ?? 0, n[1] ?? 0, n[2] ?? 0, n[3] ?? 1];
  };
  const light = ([r, g, b]) => {
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const low = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const unseen = element.closest('svg, .sr, .skip, script, :disabled, dialog:not([open])');
    if (!own || unseen || !element.checkVisibility()) continue;
    let at = element, back = null;
    while (at && !back) {
      const style = getComputedStyle(at);
      if (style.backgroundImage !== 'none') back = 'picture';
      else if (parse(style.backgroundColor)[3] > 0.5) back = parse(style.backgroundColor);
      at = at.parentElement;
    }
    if (back === 'picture' || !back) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(style.color)), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700);
    const words = element.textContent.trim().slice(0, 30);
    if (ratio < (large ? 3 : 4.5)) low.push(`${element.className || element.tagName} "${words}" ${ratio.toFixed(2)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast_enough(visit: tuple[Page, list[str]], scheme: str) -> None:
    page, _ = visit
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert page.evaluate(CONTRAST) == []
    # The measure itself: grey on grey is found.
    page.evaluate("document.documentElement.style.setProperty('--muted', 'rgb(128, 128, 128)')")
    page.evaluate("document.documentElement.style.setProperty('--card', 'rgb(110, 110, 110)')")
    assert page.evaluate(CONTRAST) != []


def test_halting_takes_confirmation_and_the_token(visit: tuple[Page, list[str]], database: Database) -> None:
    page, _ = visit
    page.click('[data-action="halt"]')
    page.fill("#control-reason", "the browser says stop")
    page.fill("#control-token", "wrong")
    page.click("#control-go")
    page.wait_for_selector("#control-answer:has-text('Tick the box')")
    page.check("#control-sure")
    page.click("#control-go")
    page.wait_for_selector("#control-answer:has-text('control token')")
    assert database.rows("SELECT 1 FROM latches") == []
    page.fill("#control-token", CONTROL)
    page.click("#control-go")
    page.wait_for_selector(".answer .chip:has-text('halted by hand')")
    assert page.is_hidden("#control")
    assert database.row("SELECT mode, reason FROM latches") == {
        "mode": "reduce_only",
        "reason": "the browser says stop",
    }
    assert page.is_disabled('[data-action="halt"]')
    assert page.is_enabled('[data-action="resume"]')


def test_resuming_waits_for_its_run_and_shows_why_it_was_refused(
    visit: tuple[Page, list[str]], database: Database, around: Outside
) -> None:
    page, _ = visit
    database.execute("SELECT tighten_latch('demo', 'reduce_only', 'lunch', 'control', now())")
    page.wait_for_selector('[data-action="resume"]:enabled', timeout=15_000)
    page.click('[data-action="resume"]')
    page.check("#control-sure")
    page.fill("#control-token", CONTROL)
    page.click("#control-go")
    page.wait_for_selector("#control-answer:has-text('resume trading is queued')")
    ((dag_id, _), run) = next(iter(around.runs.items()))
    assert dag_id == "resume_trading"
    database.execute(
        "INSERT INTO audit (actor, action, outcome, detail, source) SELECT actor, 'resume', 'refused', "
        "'{\"refusals\": [\"SOL/USDT: 3 held\"]}', source FROM audit WHERE outcome = 'requested'"
    )
    run["state"] = "failed"
    page.wait_for_selector("#control-answer:has-text('Refused: SOL/USDT: 3 held')")
    around.runs.clear()
    page.fill("#control-token", CONTROL)
    page.click("#control-go")
    page.wait_for_selector("#control-answer:has-text('resume trading is queued')")
    next(iter(around.runs.values()))["state"] = "success"
    page.wait_for_selector("#control:not([open])", state="attached")


def test_what_changes_shows_without_reloading(visit: tuple[Page, list[str]], database: Database) -> None:
    page, wrong = visit
    page.click('details[data-key="decision-ETH/USDT"] summary')
    page.evaluate("window.sameDocument = true")
    database.execute("UPDATE history_chunks SET done_at = now()")
    database.execute("SELECT tighten_latch('demo', 'halted', 'loss of 3.2 %%', 'watch', now())", ())
    page.wait_for_selector(".answer .chip:has-text('breaker latched')", timeout=15_000)
    page.wait_for_selector('progress[value="1.0"]', state="attached", timeout=15_000)
    assert page.evaluate("window.sameDocument") is True
    assert page.get_attribute('details[data-key="decision-ETH/USDT"]', "open") is not None, "what was open stays open"
    assert wrong == []


def test_the_keyboard_is_enough(visit: tuple[Page, list[str]]) -> None:
    page, _ = visit
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus('[data-action="flatten"]')
    page.keyboard.press("Enter")
    assert page.is_visible("#control")
    assert page.evaluate("document.activeElement.id") == "control-sure"
    page.keyboard.press("Escape")
    assert page.is_hidden("#control")


def test_what_has_the_keyboard_or_is_being_copied_stays_while_the_page_refreshes(
    visit: tuple[Page, list[str]], database: Database
) -> None:
    page, _ = visit
    refresh = "document.dispatchEvent(new Event('visibilitychange'))"
    beat = "UPDATE heartbeats SET at = now() - interval '%s minutes'"
    page.focus("#decisions a.tick:nth-of-type(5)")
    where = page.get_attribute("#decisions a.tick:nth-of-type(5)", "href")
    page.evaluate("document.querySelector('#decisions').dataset.old = 'yes'")
    database.execute("UPDATE decisions SET reason = 'another reason'")
    page.evaluate(refresh)
    page.wait_for_selector("#decisions:not([data-old])")
    assert page.evaluate("document.activeElement.getAttribute('href')") == where
    page.evaluate("getSelection().selectAllChildren(document.querySelector('[data-panel=jobs] h3:last-of-type + ul'))")
    chosen = page.evaluate("getSelection().toString()")
    database.execute(beat % 30)
    page.evaluate(refresh)
    page.wait_for_selector("[data-panel=answers] :text('30 min ago'), [data-panel=answers] :text('limit 15 s')")
    assert page.evaluate("getSelection().toString()") == chosen
    page.evaluate("getSelection().removeAllRanges()")
    page.evaluate(refresh)
    page.wait_for_selector("[data-panel=jobs] :text('30 min ago')")


def test_the_login_form(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    assert page.url == f"{address}/login"
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector(".note.bad")
    page.fill("#token", READ)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/")
    page.click("text=Sign out")
    page.wait_for_url(f"{address}/login")
    page.goto(address)
    assert page.url == f"{address}/login"
    context.close()
