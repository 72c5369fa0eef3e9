"""Makes the screenshots of the dashboard that the READMEs show: in both languages, light and dark.

    README_IMAGES=deploy/docs/images ./dev test tests/console/test_readme_image.py -n 0

WebP, because PNG takes twice as much. One of three apps is paused with its reason; the other two
send to a simulated provider while the screenshot is made. The counters of the day before are
invented.
"""

import asyncio
import base64
import os
import re
from pathlib import Path

import pytest
from client import TOKEN
from playwright.async_api import Page, async_playwright, expect
from screenshots import ARGUMENTS, CHROMIUM
from support.service import DEADLINE, running

from dispatcher.simulator import Simulator

IMAGES = os.environ.get("README_IMAGES")
pytestmark = pytest.mark.skipif(
    IMAGES is None or CHROMIUM is None, reason="only with README_IMAGES=FOLDER, and chromium"
)
SIZE = {"width": 1180, "height": 1290}
QUALITY = 80  # of WebP, in percent
LIVE = {"": "Updated every second.", ".zh-CN": "每秒更新。"}
APPS = {"shop": 40, "alerts": 6, "marketing": 0}  # messages a second
DAY_OF_EVENTS = """
    INSERT INTO dispatcher.event_count (minute, app, event, code, count)
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


async def test_the_dashboard_is_saved_for_the_readmes(db, dsn):
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
            await db.execute(DAY_OF_EVENTS)
            reason = "the price in the text is wrong; the new template is being approved"
            await db.execute("SELECT dispatcher.pause('marketing', $1, 'Ben')", reason)
            await db.execute(INSERT, "marketing", 8240)
            inserting = asyncio.create_task(_insert(db))
            try:
                await _save(service.url)
            finally:
                inserting.cancel()


async def _insert(db) -> None:
    while True:
        for app, rate in APPS.items():
            await db.execute(INSERT, app, rate)
        await asyncio.sleep(1.0)  # the rate of an application; nothing is waited for


async def _save(url: str) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await browser.new_page(viewport=SIZE, timezone_id="UTC", locale="en")
        await page.goto(f"{url}/console")
        await page.get_by_label("Your name").fill("Ana")
        await page.get_by_label("Token").fill(TOKEN)
        await page.get_by_role("button", name="Log in").click()
        for language in LIVE:
            for theme, scheme in (("", "light"), ("-dark", "dark")):
                await page.emulate_media(color_scheme=scheme)
                await page.reload()  # charts take their colors when they are drawn
                await _live(page, language)
                await _save_picture(page, f"dashboard{theme}{language}.webp")
            await page.goto(f"{url}/console/language/zh-CN")
        await browser.close()


async def _save_picture(page: Page, name: str) -> None:
    """Save a screenshot as WebP, which only the browser's own protocol makes."""
    protocol = await page.context.new_cdp_session(page)
    taken = await protocol.send(
        "Page.captureScreenshot", {"format": "webp", "quality": QUALITY, "optimizeForSpeed": False}
    )
    picture = base64.b64decode(taken["data"])
    await asyncio.to_thread(Path(IMAGES, name).write_bytes, picture)


async def _live(page: Page, language: str) -> None:
    """Wait until the page is live, with charts and measured rates."""
    await expect(page.locator("#live-status")).to_have_text(LIVE[language], timeout=DEADLINE * 1000)
    await expect(page.locator(".u-legend").first).to_be_visible()
    shop = page.locator(".card").filter(has=page.get_by_role("heading", name="shop"))
    # The invented counters leave out this minute, so only real sending reaches this rate.
    await expect(shop.locator(".rate .big")).to_have_text(
        re.compile(r"^(3[5-9]|4[0-5])$"), timeout=DEADLINE * 1000
    )
