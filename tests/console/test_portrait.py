"""Makes the picture of the console's first page that the README shows.

    PORTRAIT=deploy/docs/images/dashboard.png ./dev test tests/console/test_portrait.py -n 0

Three apps, of which one is paused with its reason; two of them send while the picture is taken, to
a simulated provider, after a day that is made up.
"""

import asyncio
import os
import re
from pathlib import Path

import pytest
from onlooker import ARGUMENTS, CHROMIUM
from playwright.async_api import Page, async_playwright, expect
from running import DEADLINE, running
from visitor import TOKEN

from dispatcher.simulator import Simulator

PORTRAIT = os.environ.get("PORTRAIT")
pytestmark = pytest.mark.skipif(
    PORTRAIT is None or CHROMIUM is None, reason="makes a picture where PORTRAIT names a file"
)
SIZE = {"width": 1180, "height": 1096}
APPS = {"shop": 40, "alerts": 6, "marketing": 0}  # messages a second
A_DAY = """
    INSERT INTO dispatcher.tally (minute, app, event, code, count)
    SELECT date_trunc('minute', now()) - make_interval(mins => m), app, event, '',
        (rate * 60 * share * (1 + 0.5 * sin(m / 230.0) + 0.06 * sin(m * 1.7 + rate))
        * CASE m WHEN 0 THEN extract(second FROM now()) / 60 ELSE 1 END)::int
    FROM generate_series(0, 1440) m,
        (VALUES ('shop', 40), ('alerts', 6)) a (app, rate),
        (VALUES ('accepted', 1.0), ('delivered', 0.95), ('deferred', 0.03), ('undelivered', 0.04))
            e (event, share)
"""
INSERT = """
    INSERT INTO dispatcher.message (app, recipient, template_id, params)
    SELECT $1, '+86131' || lpad(n::text, 8, '0'), 'tpl', '{837465}'
    FROM generate_series(1, $2::int) n
"""


async def test_the_first_page_is_drawn(db, dsn):
    async with Simulator({"key": "secret"}) as simulator:
        settings = {
            f"DISPATCHER_APPS__{app.upper()}__{name}": value
            for app in APPS
            for name, value in {
                "ENDPOINT": simulator.url,
                "APP_KEY": "key",
                "APP_SECRET": "secret",
                "SENDER": "csms100000001",
                "NUMBERS_PER_SECOND": "100",
            }.items()
        }
        async with running(dsn, **settings, DISPATCHER_CONSOLE_TOKEN=TOKEN) as service:
            await db.execute(A_DAY)
            reason = "the price in the text is wrong; the new template is being approved (Ben)"
            await db.execute("SELECT dispatcher.pause('marketing', $1)", reason)
            await db.execute(INSERT, "marketing", 8240)
            feed = asyncio.create_task(_feed(db))
            try:
                await _draw(service.url)
            finally:
                feed.cancel()


async def _feed(db) -> None:
    while True:
        for app, rate in APPS.items():
            await db.execute(INSERT, app, rate)
        await asyncio.sleep(1.0)  # the pace of an application, not a wait for anything


async def _draw(url: str) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await browser.new_page(viewport=SIZE, color_scheme="light", timezone_id="UTC")
        await page.goto(f"{url}/console")
        await page.get_by_label("Your name").fill("Ana")
        await page.get_by_label("Token").fill(TOKEN)
        await page.get_by_role("button", name="Log in").click()
        await _lively(page)
        await page.screenshot(path=Path(PORTRAIT))
        await browser.close()


async def _lively(page: Page) -> None:
    """Wait until the page is live, with charts, and rates that it has measured itself."""
    await expect(page.locator("#pulse")).to_have_text("Live.", timeout=DEADLINE * 1000)
    await expect(page.locator(".u-legend").first).to_be_visible()
    shop = page.get_by_role("region", name="App shop")
    # The made-up day leaves out this minute, so only what is sent now brings it to this.
    await expect(shop.locator(".rate .big")).to_have_text(
        re.compile(r"^(3[5-9]|4[0-5])$"), timeout=DEADLINE * 1000
    )
