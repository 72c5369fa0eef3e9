"""A client of the console that keeps cookies like a browser and sends what a test wants."""

import re
from dataclasses import dataclass, field

import aiohttp

TOKEN = "a-token-of-the-console"
ACTOR = "Ana (shared token)"  # as the audit has the client's name
HTML = {"Accept": "text/html"}


@dataclass
class Answer:
    """An answer of the console."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def form_token(self) -> str:
        return re.search(r'name="form_token" value="([\w.-]+)"', self.text)[1]


@dataclass
class Client:
    """Sends requests with the cookies of earlier answers."""

    url: str
    session: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=lambda: dict(HTML))

    async def get(self, path: str, **headers: str) -> Answer:
        return await self._ask("GET", path, None, headers)

    async def post(self, path: str, form: dict[str, str], **headers: str) -> Answer:
        return await self._ask("POST", path, form, headers)

    async def log_in(self, token: str = TOKEN, actor: str = "Ana", **headers: str) -> Answer:
        return await self.post("/console/login", {"token": token, "actor": actor}, **headers)

    async def act(self, action: str, fields: dict[str, str], **headers: str) -> Answer:
        """Send the form of an action, with a valid form token."""
        form_token = (await self.get("/console/search")).form_token
        answer = await self.post(
            f"/console/actions/{action}", {"form_token": form_token, **fields}, **headers
        )
        if answer.status == 303:  # to its result
            return await self.get(answer.headers["Location"], **headers)
        return answer

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
