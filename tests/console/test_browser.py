"""The console in a real browser, on a real service that sends to a simulated provider."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import asyncpg
import pytest
import pytest_asyncio
from client import TOKEN
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect
from screenshots import ARGUMENTS, CHROMIUM, FOLDER, save
from support.service import DEADLINE, Service, app_settings, running, until

from dispatcher.db.database import connect
from dispatcher.simulator import Simulator, read_faults

# All tests share a browser, which belongs to one event loop: so do they, and their fixtures.
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        CHROMIUM is None, reason="chromium is missing (Debian: apt install chromium)"
    ),
]
AXE = Path(__file__).parent / "axe" / "axe.min.js"
# The rules of axe that are asked: in dark those that colors change.
SCHEMES = {"light": {}, "dark": {"runOnly": ["color-contrast", "link-in-text-block"]}}
SIZES = {"desktop": (1280, 800), "phone": (390, 844), "narrow": (320, 640)}
NUMBER = "+8613112345678"
INSERT = """
    INSERT INTO dispatcher.message (recipient, template_id, params, reference)
    SELECT '+86131' || lpad(n::text, 8, '0'), 'tpl', '{837465}', 'order ' || n
    FROM generate_series(1, $1::int) n
"""


# As long as they may be, and without a blank at which a line breaks.
LONG_NAMES = """
    WITH made AS (
        INSERT INTO dispatcher.message (app, recipient, template_id, campaign, reference)
        VALUES (repeat('a', 63), '+8613100000000', repeat('t', 32), $1, $2) RETURNING id
    )
    INSERT INTO dispatcher.outcome (message_id, state, attempts, code, reason)
    SELECT id, 'rejected', 1, 'E200028', $2 FROM made
"""
# Of 100,000 messages; on two cores that do nothing else set it to 3.
PREVIEW_SECONDS = float(os.environ.get("PREVIEW_SECONDS", "30"))
LIST_RESULT = """{"messages": 1200, "lines": 1203, "imported_lines": 1200, "rejected": 3,
    "left_out": 0, "blank": 0, "campaign": "may", "notes": ["Skipped before the header: line 1."],
    "assumed_mainland": 12, "respelled": 3, "repeats": 2, "suppressed": 1, "apps": {},
    "unknown_templates": ["tpl"], "earlier_lines": 7, "earlier_name": "april.csv",
    "earlier_at": "2026-11-28T10:00:00Z", "previews": [[2, "+86131****5678", "Your code is 1."]],
    "segments": 1200, "unknown_messages": 5, "cost": {"CNY": "54.00"},
    "refusals": [[4, "it is too short: 2 digits"], [9, "it is empty"]]}"""


@dataclass
class Scene:
    """A browser and the service whose console it opens."""

    service: Service
    browser: Browser
    context: BrowserContext
    page: Page
    errors: list[str] = field(default_factory=list)  # of the browser

    async def go(self, path: str = "") -> Page:
        await self.page.goto(f"{self.service.url}/console{path}")
        return self.page

    async def log_in(self) -> Page:
        page = await self.go()
        await page.get_by_label("Your name").fill("Ana")
        await page.get_by_label("Token").fill(TOKEN)
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("link", name="Dashboard")).to_be_visible()
        return page

    async def reload_until(self, selector: str, text: str) -> None:
        """Load the page again, as a reader without scripts does, until it shows a text."""
        async with asyncio.timeout(DEADLINE):
            while text not in " ".join(await self.page.locator(selector).all_inner_texts()):
                await self.page.reload()

    async def confirm(self, name: str) -> None:
        """Click through a confirmation."""
        await self.page.get_by_role("button", name=name).click()
        await expect(self.page.get_by_role("status")).to_be_visible()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests: each has contexts of its own."""
    expect.set_options(timeout=DEADLINE * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def db(dsn) -> AsyncIterator[asyncpg.Connection]:
    """A connection to this test's database, in the loop of the browser."""
    connection = await connect(dsn)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(loop_scope="module")
async def provider() -> AsyncIterator[Simulator]:
    async with Simulator({"key": "secret"}) as simulator:
        yield simulator


@pytest_asyncio.fixture(loop_scope="module")
async def scene(browser, dsn, provider) -> AsyncIterator[Scene]:
    settings = app_settings(provider.url)
    async with running(dsn, **settings, DISPATCHER_CONSOLE_TOKEN=TOKEN) as service:
        context = await browser.new_context()
        context.set_default_timeout(DEADLINE * 1000)
        page = await context.new_page()
        scene = Scene(service, browser, context, page)
        # The browser logs violations of the content security policy too.
        page.on("console", lambda message: scene.errors.append(message.text))
        page.on("pageerror", lambda error: scene.errors.append(str(error)))
        yield scene
        for each in browser.contexts:
            await each.close()


async def test_a_wrong_token_shows_nothing(scene):
    page = await scene.go()
    await page.get_by_label("Your name").fill("Eve")
    await page.get_by_label("Token").fill("a guess")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_contain_text("This is not the token")
    await scene.go("/problems")
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()


# Notes every headline and rate of the dashboard, which may come and go between two looks.
SHOWN = """() => {
    window.shown = [];
    const text = (each) => document.querySelector(each)?.textContent.trim();
    const note = () => shown.push([text("h1"), text(".rate .big")]);
    const all = {subtree: true, childList: true, characterData: true};
    new MutationObserver(note).observe(document.body, all);
}"""


async def test_the_dashboard_follows_messages_that_go_out(scene, db):
    page = await scene.log_in()
    card = page.get_by_role("region", name="App default")
    await expect(card).to_contain_text("0 accepted")
    await expect(page.locator("h1")).to_have_text("All is sent; nothing is due.")
    await page.evaluate(SHOWN)
    await db.execute(INSERT, 3000)
    await expect(card).to_contain_text("3,000 accepted")
    await expect(page.locator("h1")).to_have_text("All is sent; nothing is due.")
    shown = await page.evaluate("shown")
    assert "Messages are going out." in {headline for headline, _ in shown}
    assert {rate for _, rate in shown} - {"0", None}
    assert scene.errors == []


async def test_resuming_a_paused_app_sends_its_messages(scene, db, provider):
    page = await scene.log_in()
    await page.get_by_role("link", name="Pause default").click()
    await page.get_by_label("Reason").fill("texts look odd")
    await scene.confirm("Pause default")
    await db.execute(INSERT, 10)
    await scene.go()
    await expect(page.locator("h1")).to_have_text("Messages are not going out.")
    await expect(page.locator(".finding").first).to_contain_text(
        "texts look odd (Ana (shared token))"
    )
    await expect(page.get_by_role("region", name="App default")).to_contain_text("Waiting10")
    assert provider.ledger.numbers == 0
    await page.locator(".finding").get_by_role("link", name="Resume default").click()
    await scene.confirm("Resume default")

    async def all_accepted() -> bool:
        query = "SELECT count(*) FROM dispatcher.outcome WHERE state = 'accepted'"
        return await db.fetchval(query) == 10

    await until(all_accepted, what="10 accepted")
    await page.get_by_role("link", name="Audit log").click()
    rows = page.get_by_role("region", name="Audit log").get_by_role("row")
    await expect(rows.nth(1)).to_contain_text("Ana")
    await expect(rows.nth(1)).to_contain_text("resume")
    await expect(rows.nth(2)).to_contain_text("pause")
    assert scene.errors == []


async def test_an_unsure_request_is_settled(scene, db, provider):
    await provider.faults.arm(read_faults(b'[{"fault": "cut", "accept": true, "times": 1}]'))
    page = await scene.log_in()
    await db.execute(INSERT, 5)
    await expect(page.locator(".finding")).to_contain_text("1 unsure request")
    await page.get_by_role("link", name="Problems").click()
    await page.get_by_role("region", name="Unsure requests").get_by_role("link").first.click()
    await expect(page.get_by_role("heading", name="Settle it")).to_be_visible()
    await page.get_by_role("link", name="They were sent").click()
    await scene.confirm("They were sent")
    await expect(page.get_by_role("status")).to_have_text("5 taken as sent.")
    states = await db.fetch("SELECT DISTINCT state FROM dispatcher.message_status")
    assert [row["state"] for row in states] == ["accepted"]
    await scene.go("/problems")
    await expect(page.get_by_text("The result of every request is known")).to_be_visible()


async def test_a_message_is_found_by_number_with_its_timeline(scene, db):
    page = await scene.log_in()
    number = await db.fetchval(
        "INSERT INTO dispatcher.message (recipient, template_id, params)"
        " VALUES ($1, 'tpl', '{837465}') RETURNING id",
        NUMBER,
    )

    async def accepted() -> bool:
        query = "SELECT provider_id FROM dispatcher.outcome WHERE message_id = $1"
        return await db.fetchval(query, number)

    provider_id = await until(accepted, what="the message accepted")
    await page.get_by_role("link", name="Messages").click()
    await page.get_by_label("Whole number").fill("131 1234 5678")
    await page.get_by_role("button", name="Messages to it").click()
    await page.get_by_role("link", name=str(number), exact=True).last.click()
    await expect(page.locator("h1")).to_contain_text(f"Message {number}")
    entries = page.get_by_role("listitem")
    for text in ("Queued", "attempt 1, 1 message", str(provider_id), "Request answered"):
        await expect(entries.filter(has_text=text).first).to_be_visible()
    await expect(page.get_by_text(NUMBER)).to_have_count(0)
    await page.get_by_role("button", name="Show number and variables").click()
    await expect(page.locator("#recipient")).to_have_text(NUMBER)
    await expect(page.locator("#params")).to_have_text("837465")
    assert NUMBER.lstrip("+") not in page.url
    assert scene.errors == []


async def test_the_dashboard_shows_that_the_service_stopped(scene):
    page = await scene.log_in()
    await expect(page.locator("#live-status")).to_have_text("Updated every second.")
    await scene.service.stop()
    await expect(page.locator("#live-status")).to_contain_text("These numbers are old")


async def test_the_dashboard_goes_on_after_a_proxy_has_answered(scene):
    async def refuse(route) -> None:
        await route.fulfill(status=502, body="Bad Gateway")

    await scene.page.route("**/console/live", refuse)
    page = await scene.log_in()
    await expect(page.locator("#live-status")).to_contain_text("Not live any more")
    await page.unroute("**/console/live", refuse)
    await expect(page.locator("#live-status")).to_have_text("Updated every second.")


async def test_a_list_is_uploaded_checked_and_loaded_by_keyboard(scene, db, tmp_path):
    file = tmp_path / "may.csv"
    lines = [f"+86131{n:08d},tpl,{n}" for n in range(30)]
    file.write_text("\n".join(["phone,template,param_1", *lines, "12,tpl,1", ""]), encoding="utf-8")
    page = await scene.log_in()
    await page.get_by_role("link", name="Campaigns").press("Enter")
    await page.get_by_role("link", name="Load a list …").press("Enter")
    await page.get_by_label("File", exact=True).set_input_files(file)
    await page.get_by_role("button", name="Check it …").press("Enter")
    await expect(page.locator("#result")).to_contain_text("30 messages would be enqueued.")
    await page.get_by_role("button", name="Load 30 messages").press("Enter")
    await expect(page.locator("#result")).to_contain_text("30 messages enqueued.")
    await page.get_by_role("link", name="The campaign may.csv").press("Enter")
    await expect(page.get_by_text("30 messages")).to_be_visible()
    await expect(page.locator("progress")).to_have_attribute("value", "30")
    await page.get_by_role("link", name="Cancel for good …").press("Enter")
    await page.get_by_label("Reason").fill("wrong text")
    await scene.confirm("Cancel the campaign may.csv for good")
    assert await db.fetchval("SELECT state FROM dispatcher.campaign") == "cancelled"
    await page.go_back()
    await page.go_back()
    await expect(page.locator("h1")).to_contain_text("may.csv")
    assert scene.errors == []


async def test_the_tab_shows_that_there_is_trouble(scene, db):
    page = await scene.log_in()
    await scene.go("/codes")
    await expect(page).to_have_title(re.compile("^Codes"))
    await db.execute("SELECT dispatcher.pause('default', 'texts look odd', 'Ben')")
    await expect(page).to_have_title(re.compile(r"^\(1\) Codes"))
    await expect(page.locator("#trouble")).to_have_text("1")
    assert "trouble" in await page.locator("#icon").get_attribute("href")
    await db.execute("SELECT dispatcher.resume('default', 'Ben')")
    await expect(page).to_have_title(re.compile("^Codes"))


async def test_every_page_warns_when_its_data_are_old(scene):
    page = await scene.log_in()
    await scene.go("/messages")
    await expect(page.locator("#stale")).to_be_hidden()
    await scene.service.stop()
    await expect(page.locator("#stale")).to_contain_text("No fresh data since")


async def test_a_double_click_sends_a_form_once(scene, db):
    page = await scene.log_in()
    await scene.go("/actions/pause?app=default")
    await page.get_by_role("button", name="Pause default").dblclick()
    await expect(page.locator("h1")).to_have_text("Pause default: done")
    await page.reload()
    await expect(page.locator("h1")).to_have_text("Pause default: done")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.audit") == 1


async def test_a_form_after_the_end_of_a_login_is_sent_again(scene, db):
    page = await scene.log_in()
    await scene.go("/actions/pause?app=default")
    await page.get_by_label("Reason").fill("texts look odd")
    cookies = await page.context.cookies()
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Pause default").click()
    await expect(page.locator("h1")).to_have_text("Your login has ended")
    await expect(page.locator("dl")).to_contain_text("texts look odd")
    await page.context.add_cookies(cookies)  # as another tab does that logs in
    for title in ("Nothing was done", "Pause default: done"):  # a look at it, then it is done
        await page.get_by_role("button", name="Send it again").click()
        await expect(page.locator("h1")).to_have_text(title)
    reason = await db.fetchval("SELECT pause_reason FROM dispatcher.app")
    assert reason.startswith("texts look odd")


async def test_the_sign_in_page_of_a_proxy_is_no_fresh_data(scene):
    page = await scene.log_in()
    await scene.go("/messages")
    html = {"status": 200, "content_type": "text/html", "body": "<h1>Sign in</h1>"}
    await page.route("**/console/fresh", lambda route: route.fulfill(**html))
    await expect(page.locator("#stale")).to_contain_text("Your login has ended")


@pytest.mark.parametrize(
    ("count", "shown"),
    [(3_000, "3,000"), pytest.param(100_000, "over 10,000", marks=pytest.mark.slow)],
)
@pytest.mark.timeout(300)
async def test_a_count_leads_to_a_list_and_an_action_on_it(scene, db, count, shown):
    await db.execute("SELECT dispatcher.pause('default', 'a test')")
    await db.execute(INSERT, count)
    await db.execute("VACUUM ANALYZE dispatcher.message, dispatcher.queue")
    page = await scene.log_in()
    await page.get_by_role("link", name=shown, exact=True).click()
    await expect(page.get_by_text(f"{shown} wait.")).to_be_visible()
    await page.get_by_role("link", name="Older messages").click()
    await page.go_back()
    await page.reload()
    began = monotonic()
    await page.get_by_role("button", name="Cancel them").click()
    await expect(page.locator("h1")).to_have_text(f"Cancel {count:,} messages?")
    assert monotonic() - began < PREVIEW_SECONDS
    await page.reload()
    await page.get_by_role("button", name=f"Cancel {count:,} messages").click()
    done = f"{count:,} of {count:,} cancelled."
    await expect(page.locator("#result")).to_have_text(done, timeout=200_000)
    await page.get_by_role("link", name="Audit", exact=True).click()
    await page.get_by_role("link", name="started as action").click()
    await expect(page.locator("#result")).to_have_text(done)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 0
    assert scene.errors == []


@pytest.mark.timeout(600)  # checks 72 pages, in light and dark
async def test_every_page_is_accessible(scene, db, provider):
    await _fill(db, provider)
    await scene.log_in()
    pages = await _pages(db)
    errors = []
    for size, (width, height) in SIZES.items():
        context = await scene.browser.new_context(viewport={"width": width, "height": height})
        page = await context.new_page()
        for name, path in pages.items():
            if name != "login":
                await context.add_cookies(await scene.context.cookies())
            await page.goto(f"{scene.service.url}/console{path}")
            place = f"{name}-{size}"
            # A narrow screen has the layout of a phone: only the width can differ.
            schemes = {} if size == "narrow" and not FOLDER else SCHEMES
            errors += [f"{place}: {each}" for each in await _check(page, place, width, schemes)]
        await context.close()
    assert errors == []


# Words that stay as they are in Chinese: names, and what operators, files and programs wrote.
SAME_IN_CHINESE = {
    *("shared", "token"),  # of the name of who logs in with the shared token
    "Success",  # as the provider says
    *("a" * 63, "t" * 32),  # of LONG_NAMES
    *("dispatcher", "English", "rules", "params", "Key", "postgres", "pause", "default"),
    *("Ana", "Ben", "marketing", "ghost", "bank", "order", "tpl", "texts", "look", "odd", "asked"),
    *("to", "be", "left", "alone", "the", "number", "is", "on", "block", "list", "codes", "for"),
    *("logging", "in", "The", "fails", "For", "details", "see", "Status", os.uname().nodename),
    *("lost", "may", "from", "Excel", "Your", "code"),
}


@pytest.mark.slow
async def test_every_page_is_whole_in_chinese(scene, db, provider):
    await _fill(db, provider)
    await scene.log_in()
    errors = []
    for size, (width, height) in {**SIZES, "desktop": (1440, 900)}.items():
        context = await scene.browser.new_context(
            viewport={"width": width, "height": height}, locale="zh-CN"
        )
        page = await context.new_page()
        for name, path in (await _pages(db)).items():
            if name != "login":
                await context.add_cookies(await scene.context.cookies())
            await page.goto(f"{scene.service.url}/console{path}")
            place = f"{name}-{size}-chinese"
            if FOLDER:
                await save(page, place, full=True)
            wide = await page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                errors.append(f"{place}: {wide} pixels wide on a screen of {width}")
            english = set(await page.evaluate(WORDS)) - SAME_IN_CHINESE
            errors += [f"{place}: English {word}" for word in sorted(english)]
        await context.close()
    assert errors == []


# The words of a page that stand in no code, time or field; names of settings are no words.
WORDS = """() => {
    const shown = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text; (text = texts.nextNode()); )
        if (!text.parentElement.closest("code, .code, time, script, noscript, .u-legend, datalist"))
            shown.push(text.nodeValue);
    for (const name of ["aria-label", "title", "data-label"])
        for (const each of document.querySelectorAll(`[${name}]`))
            if (!each.matches("time")) shown.push(each.getAttribute(name));
    return shown.flatMap((text) => text.match(/[\\w.@-]+/g) ?? [])
        .filter((word) => /^[A-Z]?[a-z]{2,}$/.test(word));
}"""


async def _check(page: Page, place: str, width: int, schemes: dict[str, dict]) -> list[str]:
    """Return the accessibility errors of a page in color schemes, and whether it is too wide."""
    if place.startswith("dashboard"):
        await expect(page.locator("#live-status")).to_have_text("Updated every second.")
        await expect(page.locator(".u-legend").first).to_be_visible()
    # What is folded must be accessible and fit as well.
    await page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    # The pages' policy forbids other scripts, but not the browser's own evaluate().
    await page.evaluate(AXE.read_text())
    errors = []
    for scheme, rules in schemes.items():
        await page.emulate_media(color_scheme=scheme)
        await page.evaluate("new Promise(requestAnimationFrame)")  # by then charts are drawn again
        if FOLDER:
            await save(page, f"{place}-{scheme}", full=True)
        options = {"resultTypes": ["violations"], **rules}
        found = await page.evaluate("options => axe.run(options)", options)
        errors += [
            f"{scheme}: {each['id']}: {each['help']}: {each['nodes'][0]['html'][:120]}"
            for each in found["violations"]
        ]
    await page.emulate_media(color_scheme="light")
    wide = await page.evaluate("document.documentElement.scrollWidth")
    return [*errors, f"{wide} pixels wide on a screen of {width}"] if wide > width else errors


async def _fill(db, provider: Simulator) -> None:
    """Make messages, requests, apps, rules and audit entries of every kind."""
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, code, count)"
        " SELECT date_trunc('minute', now()) - make_interval(mins => m), 'default', event,"
        "   CASE event WHEN 'deferred' THEN 'E200015' WHEN 'rejected' THEN 'E200028' ELSE '' END,"
        "   (size * (1 + 0.5 * sin(m / 90.0)))::int"
        " FROM generate_series(1, 1440) m, (VALUES ('accepted', 9000), ('delivered', 8600),"
        "   ('deferred', 300), ('rejected', 120)) e (event, size)"
    )
    await provider.faults.arm(
        read_faults(
            b'[{"fault": "number-code", "code": "E200031", "prefix": "+86131000000"},'
            b' {"fault": "cut", "accept": true, "nth": [2]}]'
        )
    )
    await db.execute(INSERT, 200)  # 50 a claim, so the second request is one of four
    query = (
        "SELECT EXISTS (SELECT FROM dispatcher.batch WHERE state = 'unsure')"
        " AND NOT EXISTS (SELECT FROM dispatcher.queue)"
        " AND NOT EXISTS (SELECT FROM dispatcher.bulk)"
        " AND NOT EXISTS (SELECT FROM dispatcher.batch WHERE state = 'open')"
    )
    await until(lambda: db.fetchval(query), what="all answered but one request")
    await db.execute("SELECT dispatcher.pause('marketing', 'texts look odd (Ben)')")
    await db.execute(
        "INSERT INTO dispatcher.message (app, recipient, template_id)"
        " SELECT 'ghost', '+8613100000000', 'tpl' FROM generate_series(1, 3)"
    )
    await db.execute(
        "INSERT INTO dispatcher.audit (actor, action, target, detail, result)"
        " VALUES ('Ben', 'pause', 'marketing', 'texts look odd', 'paused')"
    )

    await db.execute(
        "INSERT INTO dispatcher.template (template_id, kinds, note) VALUES"
        " ('8ff55eac1d0b478ab3c06c3c6a492300', '{NUM_6,TXT_20}', 'codes for logging in'),"
        " ('0b5f0c4f9d3e4a0f8c7b6a5d4e3f2a1b', '{}', '')"
    )
    await db.execute(
        "INSERT INTO dispatcher.app_limit (app, per_day, daily_limit, quiet_from, quiet_until)"
        " VALUES ('marketing', 2, 100000, '21:00', '08:00')"
    )
    await db.execute(
        "INSERT INTO dispatcher.suppression (recipient, reason, source) VALUES"
        " ('+8613112345678', 'asked to be left alone', 'operator'),"
        " ('+4915112345678', 'MBBLACK: the number is on a block list', 'report')"
    )
    await db.execute("INSERT INTO dispatcher.price VALUES ('CN', 0.045, 'CNY')")
    await db.execute("UPDATE dispatcher.message SET campaign = 'may & june.csv' WHERE id % 2 = 0")
    await db.execute(
        "INSERT INTO dispatcher.campaign (name, file, first_id, created_by)"
        " VALUES ('may & june.csv', 'may & june.csv', 1, 'Ana')"
    )
    await db.execute(LONG_NAMES, "campaign-" * 11, "order-" * 33)
    await db.execute(
        "INSERT INTO dispatcher.unreadable_push (digest, reason, content_type, body)"
        " VALUES ('d', 'The push is empty.', 'text/xml', '')"
    )
    await db.execute(
        "INSERT INTO dispatcher.event (app, event, message_ids, message_count)"
        " SELECT 'default', 'delivered', array_agg(message_id), count(*)"
        " FROM dispatcher.outcome WHERE state = 'accepted'"
    )


async def _pages(db) -> dict[str, str]:
    query = "SELECT message_id FROM dispatcher.outcome WHERE state = $1 LIMIT 1"
    action = await db.fetchval(
        "INSERT INTO dispatcher.message_action"
        " (created_by, action, filter, address, counts, messages, targets) VALUES ('Ana',"
        " 'cancel', 'state queued', 'state=queued', '[[\"default\", \"queued\", null, 12],"
        ' ["default", "accepted", "the provider has it", 3]]\', 12, \'{1}\') RETURNING id'
    )
    checked = await db.fetchval(
        "INSERT INTO dispatcher.list_upload (created_by, name, options, state, result)"
        " VALUES ('Ana', '五月名单.xlsx', '{}', 'checked', $1::text::jsonb) RETURNING id",
        LIST_RESULT,
    )
    token = await db.fetchval("SELECT token FROM dispatcher.batch WHERE state = 'unsure'")
    return {
        "login": "",
        "dashboard": "",
        "problems": "/problems",
        "search": "/search",
        "messages": "/messages?state=rejected",
        "action": f"/message-action/{action}",
        "codes": "/codes?q=number",
        "audit": "/audit",
        "long names": f"/message/{await db.fetchval('SELECT max(id) FROM dispatcher.message')}",
        "campaign with a long name": f"/campaign?name={'campaign-' * 11}",
        "list of long names": f"/messages?app={'a' * 63}",
        "rejected": f"/message/{await db.fetchval(query, 'rejected')}",
        "accepted": f"/message/{await db.fetchval(query, 'accepted')}",
        "request": f"/batch/{token}",
        "rules": "/rules",
        "actions": "/actions",
        "campaigns": "/campaigns",
        "campaign": "/campaign?name=may+%26+june.csv",
        "lists": "/lists",
        "list": f"/lists/{checked}",
        "delivery": "/delivery",
        "unreadable": "/problems/unreadable",
        "confirm": "/actions/pause?app=default",
        "missing": "/message/999999",
    }


async def test_without_scripts_all_but_charts_works(scene, db, tmp_path):
    context = await scene.browser.new_context(java_script_enabled=False)
    context.set_default_timeout(DEADLINE * 1000)
    scene.page = page = await context.new_page()
    await scene.log_in()
    await expect(page.get_by_role("region", name="App default")).to_contain_text("The last hour")
    await expect(page.locator(".chart").first).to_be_hidden()
    file = tmp_path / "may.csv"
    file.write_text("phone,template\n+8613100000001,tpl\n+8613100000002,tpl\n", encoding="utf-8")
    await scene.go("/lists")
    await page.get_by_label("File", exact=True).set_input_files(file)
    await page.get_by_role("button", name="Check it …").click()
    await scene.reload_until("#result", "2 messages would be enqueued.")
    await page.get_by_role("button", name="Load 2 messages").click()
    await scene.reload_until("#result", "2 messages enqueued.")
    await page.get_by_role("link", name="The campaign may.csv").click()
    await scene.reload_until("main", "2 messages")
    await scene.go("/messages?campaign=may.csv")
    await page.get_by_text("Columns", exact=True).click()
    await page.get_by_label("Template").last.check()
    await page.get_by_role("button", name="Show these columns").click()
    await expect(page.get_by_role("columnheader", name="Template")).to_be_visible()
    await scene.go("/rules")
    await page.get_by_text("Set a price").click()
    await page.get_by_label("Country: two letters, or its calling code").fill("CN")
    await page.get_by_label("Price of a segment").fill("0.05")
    await page.get_by_role("button", name="Set it …").click()
    await scene.confirm("Set it")
    assert await db.fetchval("SELECT price::text FROM dispatcher.price") == "0.05"
    await context.close()
