"""The status page of the running stack in a real browser: alone, inside Airflow's navigation, halted, at work."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import quote, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.e2e.conftest import BAR, RunningSystem
from tests.e2e.test_outages import ready, wait
from tradewind.adapters.login_tickets import login_link
from tradewind.settings import PROJECT_DIR

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]
SCREENSHOTS = PROJECT_DIR / ".tradewind" / "screenshots"
WORDS_AND_SHARE = "job => [job.innerText, job.querySelector('progress')?.value ?? null]"
REFRESH = "document.dispatchEvent(new Event('visibilitychange'))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(system: RunningSystem, browser: Browser) -> Iterator[BrowserContext]:
    """A browser that is signed in to the status page and to Airflow."""
    settings = system.settings
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.goto(login_link(address(system), settings.api_session_key.get_secret_value()))
    page.wait_for_url(f"{address(system)}/")
    page.goto(f"{settings.airflow_url}/auth/login")
    page.fill("input[name=username]", settings.airflow_username)
    page.fill("input[name=password]", settings.airflow_password.get_secret_value())
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/login" not in url, timeout=60_000)
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    page = context.new_page()
    yield page
    page.close()


def address(system: RunningSystem) -> str:
    return f"http://127.0.0.1:{system.settings.status_port}"


def test_the_page_of_the_running_stack(system: RunningSystem, page: Page) -> None:
    wait(lambda: ready(system)["ready"], 240)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    port = system.settings.status_port
    page.on("request", lambda request: wrong.append(request.url) if urlsplit(request.url).port != port else None)
    page.goto(address(system))
    assert page.locator(".banner").inner_text().startswith("PAPER MONEY · SYNTHETIC MARKET")
    # Drawn, or told that nothing is stored yet.
    page.wait_for_selector("#candle-chart:not(:empty)", timeout=60_000)
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=SCREENSHOTS / f"running-{width}.png", full_page=True)
    assert wrong == []


def test_airflow_shows_the_page_in_its_navigation(system: RunningSystem, page: Page) -> None:
    page.goto(system.settings.airflow_url)
    page.locator('a[href$="/plugin/tradewind"]').first.click(timeout=60_000)
    inside = page.frame_locator("iframe")
    inside.locator("#q-trade").wait_for(timeout=60_000)
    assert page.url.endswith("/plugin/tradewind")
    assert inside.locator(".banner").inner_text().startswith("PAPER MONEY")
    page.screenshot(path=SCREENSHOTS / "airflow-view.png")


def test_a_cycles_task_leads_to_its_decisions(system: RunningSystem, page: Page) -> None:
    system.admin.step(1)
    bar = system.now() - BAR
    assert system.run("collect_candles_15m")["state"] == "success"
    run = system.run("run_trade_cycle", {"bar": bar.isoformat()})
    where = f"dags/run_trade_cycle/runs/{quote(run['dag_run_id'], safe='')}/tasks/filter_signals/details"
    page.goto(f"{system.settings.airflow_url}/{where}")
    link = page.get_by_role("link", name="Decisions")
    link.wait_for(timeout=60_000)
    page.goto(str(link.get_attribute("href")))
    assert urlsplit(page.url).port == system.settings.status_port
    assert f"bar of {bar:%d %b %H:%M}" in page.locator("#h-decisions").inner_text()


def test_halt_and_resume_end_to_end(system: RunningSystem, page: Page) -> None:
    """The page's buttons through PostgreSQL, Airflow's API and the run that opens the latch."""
    wait(lambda: ready(system)["ready"], 240)
    page.goto(address(system))
    page.click('[data-action="halt"]')
    page.fill("#control-reason", "a rehearsal")
    _confirm(system, page)
    page.wait_for_selector(".answer .chip:has-text('halted by hand')")
    latch = system.wiring.trading_store.latch()
    assert (latch.mode.value, latch.reason) == ("reduce_only", "a rehearsal")
    page.click('[data-action="resume"]')
    _confirm(system, page)
    page.wait_for_selector("#control:not([open])", state="attached", timeout=120_000)
    assert system.wiring.trading_store.latch().mode.value == "active"
    rows = system.rows("SELECT outcome FROM audit WHERE action = 'resume' AND source LIKE 'api%%' ORDER BY audit_id")
    assert [row["outcome"] for row in rows] == ["requested", "opened"]


def _confirm(system: RunningSystem, page: Page) -> None:
    page.check("#control-sure")
    page.fill("#control-token", system.settings.api_control_token.get_secret_value())
    page.click("#control-go")


def test_a_jobs_bar_moves(system: RunningSystem, page: Page) -> None:
    page.goto(address(system))
    bar_end = system.now() - timedelta(days=30)
    answer = httpx.post(
        f"{address(system)}/api/collect-historical-data",
        json={"from": (bar_end - timedelta(days=700)).isoformat(), "to": bar_end.isoformat()},
        headers={"X-Tradewind-Control": system.settings.api_control_token.get_secret_value()},
        timeout=30,
        trust_env=False,
    )
    assert answer.status_code == 202, answer.text
    job = page.locator(f'[data-job="{answer.json()["job_id"]}"]')
    seen: list[float] = []
    words = ""
    deadline = time.monotonic() + 120
    while (not seen or seen[-1] < 1) and time.monotonic() < deadline:
        page.evaluate(REFRESH)
        page.wait_for_timeout(250)
        # Other loads of this stack, and how they ended, stand in the same list; this one may not be drawn yet.
        words, value = job.evaluate(WORDS_AND_SHARE, timeout=30_000)
        assert "backfill history" in words
        assert "failed" not in words, words
        if value is not None:
            seen.append(value)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert len({value for value in seen if 0 < value < 1}) >= 2, f"a bar that jumps tells nothing: {seen}"
    assert re.search(r"[\d\u2009]+ bars new", words)
