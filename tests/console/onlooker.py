"""A browser that leaves a picture of a page, for people to look at."""

import asyncio
import os
import shutil
from pathlib import Path

from playwright.async_api import async_playwright
from visitor import TOKEN

SCREENS = os.environ.get("SCREENSHOTS")  # a folder; without it nobody looks
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
]


async def picture(url: str, name: str) -> None:
    """Leave a picture of the console's first page, as a desktop shows it without scrolling."""
    if SCREENS is None or CHROMIUM is None:
        return
    folder = Path(SCREENS)
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.goto(f"{url}/console")
        await page.get_by_label("Your name").fill("Ana")
        await page.get_by_label("Token").fill(TOKEN)
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_text("Live.").wait_for()
        await page.screenshot(path=folder / f"drill {name}.png")
        await browser.close()
