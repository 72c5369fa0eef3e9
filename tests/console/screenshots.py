"""Screenshots of the console's pages, in the folder that SCREENSHOTS names."""

import asyncio
import os
import shutil
from pathlib import Path

from client import TOKEN
from playwright.async_api import Page, async_playwright

FOLDER = os.environ.get("SCREENSHOTS")  # without it no screenshots are made
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
]


async def save_dashboard(url: str, name: str) -> None:
    """Save a screenshot of the dashboard, as a desktop shows it without scrolling."""
    if FOLDER is None or CHROMIUM is None:
        return
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.goto(f"{url}/console")
        await page.get_by_label("Your name").fill("Ana")
        await page.get_by_label("Token").fill(TOKEN)
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_text("Updated every second.").wait_for()
        await save(page, f"failure {name}")
        await browser.close()


async def save(page: Page, name: str, *, full: bool = False) -> None:
    """Save a screenshot of *page*; with *full*, also of the part below the window."""
    folder = Path(FOLDER)
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    await page.screenshot(path=folder / f"{name}.png", full_page=full)
