"""A client of the console: keeps cookies like a browser, and has none of its manners."""

import re
from dataclasses import dataclass, field

import aiohttp

TOKEN = "a-token-of-the-console"
HTML = {"Accept": "text/html"}


@dataclass
class Answer:
    """What the console answered."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def form_token(self) -> str:
        return re.search(r'name="form_token" value="([0-9a-f]{64})"', self.text)[1]


@dataclass
class Visitor:
    """A client with cookies, like a browser but without its manners."""

    url: str
    session: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=lambda: dict(HTML))

    async def get(self, path: str, **headers: str) -> Answer:
        return await self._ask("GET", path, None, headers)

    async def post(self, path: str, form: dict[str, str], **headers: str) -> Answer:
        return await self._ask("POST", path, form, headers)

    async def log_in(self, token: str = TOKEN, who: str = "Ana", **headers: str) -> Answer:
        return await self.post("/console/login", {"token": token, "who": who}, **headers)

    async def act(self, deed: str, fields: dict[str, str], **headers: str) -> Answer:
        """Do a deed as its page would, with the token of its form."""
        form_token = (await self.get("/console/find")).form_token
        return await self.post(
            f"/console/act/{deed}", {"form_token": form_token, **fields}, **headers
        )

    async def _ask(self, method, path, form, headers) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(
            method,
            self.url + path,
            data=form,
            headers={**self.headers, **named},
            allow_redirects=False,
        ) as answer:
            return Answer(answer.status, dict(answer.headers), await answer.text())
