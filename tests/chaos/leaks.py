"""Nothing of a person, and no secret, may stand in what the service says while all goes wrong."""

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from support.provider import SECRET
from support.worker import WorkerProcess

from chaos.application import KNOWN, NUMBERS, TEXT

EVERY = 2.0  # seconds between two looks at the pages
PAGE = aiohttp.ClientTimeout(total=1.0)  # a frozen worker does not answer
PATHS = ("/metrics", "/readyz", "/healthz")
_MOST_TOLD = 10


class PageCollector:
    """Collects what workers answer over HTTP, each line once."""

    def __init__(self) -> None:
        self.pages = 0
        self.lines: set[str] = set()
        self._urls: dict[WorkerProcess, str] = {}  # of those that listen

    async def listen(self, workers: Iterable[WorkerProcess]) -> None:
        """Read the pages of *workers*, as far as they answer."""
        async with aiohttp.ClientSession(timeout=PAGE) as session:
            await asyncio.gather(
                *(
                    self._read(session, url + path)
                    for worker in workers
                    if worker.code is None and (url := self._url(worker))
                    for path in PATHS
                )
            )

    def _url(self, worker: WorkerProcess) -> str:
        """Return where *worker* listens; empty if it does not yet."""
        if worker not in self._urls:
            for event in worker.events():
                if event.get("event") == "listening":
                    self._urls[worker] = f"http://{event['host']}:{event['port']}"
        return self._urls.get(worker, "")

    async def _read(self, session: aiohttp.ClientSession, url: str) -> None:
        try:
            async with session.get(url) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return
        self.pages += 1
        self.lines.update(text.splitlines())


def leaks(folder: Path, heard: Iterable[str], secrets: Iterable[str]) -> list[str]:
    """Return the lines, of all logs in *folder* and of those *heard*, that tell too much."""
    wanted = _forbidden(secrets)
    logs = sorted(folder.rglob("*.log"))
    found = [
        f"{log.name} holds what it must not: {line.strip()[:300]}"
        for log in logs
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if wanted.search(line)
    ]
    found += [
        f"told by HTTP, and must not be: {line[:300]}" for line in heard if wanted.search(line)
    ]
    return [
        *found[:_MOST_TOLD],
        *([f"... {len(found)} lines in all"] if found[_MOST_TOLD:] else []),
    ]


def _forbidden(secrets: Iterable[str]) -> re.Pattern[str]:
    """Match each whole number and text that the application uses, and each of *secrets*."""
    varies = len(str(KNOWN - 1))  # digits at the end of a number
    numbers = {re.escape(form.format(0).lstrip("+")[:-varies]) for form in NUMBERS}
    return re.compile(
        "|".join(
            (
                f"(?:{'|'.join(sorted(numbers))})[0-9]{{{varies}}}",
                TEXT.replace("{:08d}", "[0-9]{8}"),
                *(re.escape(secret) for secret in (SECRET, *secrets)),
            )
        )
    )


def password(dsn: str) -> tuple[str, ...]:
    """Return the password of an address, if it has one."""
    found = urlsplit(dsn).password
    return (found,) if found else ()
