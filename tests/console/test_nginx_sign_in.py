"""The documented nginx configuration, of sign-in and of reports, with a real nginx."""

import asyncio
import io
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from client import TOKEN, Client

from dispatcher.bench.ports import free_port
from dispatcher.console import ProxySignIn, console_routes
from dispatcher.service.http import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
]
OPERATIONS = Path(__file__).parents[2] / "deploy/docs/operations.md"
ROLES = {"sms-admins": "rules", "sms-operators": "act", "*": "see"}
NGINX = """
daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
    server {{
        listen 127.0.0.1:{port}; listen [::1]:{port};
        {documented}
    }}
}}
"""


class SignIn:
    """Answers as oauth2-proxy does: the operator of a cookie, or 401; and a page to sign in."""

    def __init__(self) -> None:
        self.groups: str | None = "sms-operators"

    async def auth(self, request: web.Request) -> web.Response:
        """Answer whether a request is signed in."""
        assert request.headers.get("Content-Length", "0") == "0"
        if request.cookies.get("signed_in") != "yes":
            return web.Response(status=401)
        headers = {"X-Auth-Request-Email": "ana@example.com"}
        if self.groups is not None:
            headers["X-Auth-Request-Groups"] = self.groups
        return web.Response(status=202, headers=headers)

    async def page(self, _request: web.Request) -> web.Response:
        """Show the page to sign in, with the status that oauth2-proxy gives it."""
        return web.Response(text="<h1>Sign in with OpenID</h1>", content_type="text/html")

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the addresses that the documented configuration asks."""
        return [web.get("/oauth2/auth", self.auth), web.get("/oauth2/sign_in", self.page)]


@pytest.fixture
async def sign_in() -> SignIn:
    """What answers for oauth2-proxy."""
    return SignIn()


@asynccontextmanager
async def nginx(
    tmp_path: Path, console_port: int, auth_port: int, port: int
) -> AsyncIterator[None]:
    """Run nginx with the configuration that operations.md shows."""
    blocks = re.findall(r"```nginx\n(.*?)```", OPERATIONS.read_text(), re.DOTALL)
    documented = "".join(blocks)  # of the reports, and of the console
    for written, ours in (("127.0.0.1:4180", auth_port), ("127.0.0.1:8080", console_port)):
        assert written in documented
        documented = documented.replace(written, f"127.0.0.1:{ours}")
    file = tmp_path / "nginx.conf"
    file.write_text(NGINX.format(place=tmp_path, port=port, documented=documented))
    process = await asyncio.create_subprocess_exec(
        "nginx", "-e", tmp_path / "error.log", "-c", file
    )
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionError:
                    assert process.returncode is None, (tmp_path / "error.log").read_text()
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def echo(request: web.Request) -> web.Response:
    """Return the headers that a receiver gets."""
    return web.json_response(dict(request.headers))


@pytest.fixture
async def behind(backend, sign_in, tmp_path) -> AsyncIterator[Client]:
    """A client of nginx before a console and what stands for oauth2-proxy."""
    ours = ProxySignIn(
        [ip_network("127.0.0.1/32")], "X-Auth-Request-Email", "X-Auth-Request-Groups", ROLES
    )
    stop, port = asyncio.Event(), free_port()
    routes = [*console_routes(backend, TOKEN, stop, ours), web.get("/reports/{token}", echo)]
    async with (
        serving("127.0.0.1", 0, routes) as (_, console_port),
        serving("127.0.0.1", 0, sign_in.routes()) as (_, auth_port),
        nginx(tmp_path, console_port, auth_port, port),
        aiohttp.ClientSession() as session,
    ):
        yield Client(f"http://127.0.0.1:{port}", session)
        stop.set()


async def role(client: Client, **headers: str) -> str | None:
    """Return as whom and what the console sees a signed-in request."""
    page = await client.get("/console/rules", Cookie="signed_in=yes", **headers)
    found = re.search(r'class="actor"[^>]*>\s*([^<]*?)\s*<', page.text)
    return found and found[1]


async def test_nginx_signs_an_operator_in_with_the_role(behind, sign_in):
    for groups, shown in (
        ("sms-operators", "act"), ("sms-operators,sms-admins", "rules"), ("other", "see"),
        ("", "see"), (None, "see"),
    ):  # fmt: skip
        sign_in.groups = groups
        assert await role(behind) == f"ana@example.com ({shown})", groups


async def test_headers_of_a_client_count_for_nothing(behind, sign_in):
    sign_in.groups = None
    forged = {
        "X_Auth_Request_Email": "eve@example.com", "X_Auth_Request_Groups": "sms-admins",
        "X_Forwarded_Email": "eve@example.com", "X_Forwarded_Groups": "sms-admins",
    }  # fmt: skip
    assert await role(behind, **forged) == "ana@example.com (see)"
    page = await behind.get("/console/rules", **forged)
    assert "Sign in with OpenID" in page.text


async def test_headers_with_underscores_count_for_nothing(behind, sign_in):
    sign_in.groups = None
    url = f"{behind.url}/console/rules"
    for name in ("X_Auth_Request_Groups", "X-Auth_Request_Groups", "X-Auth-Request_Groups"):
        headers = [("Cookie", "signed_in=yes"), (name, "sms-admins")]
        async with behind.session.get(url, headers=headers) as answer:
            assert "ana@example.com (see)" in await answer.text()


async def test_a_form_passes_nginx_with_the_browsers_origin(behind, db):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    behind.headers["Cookie"] = "signed_in=yes"
    answer = await behind.act("pause", {"app": "shop"}, Origin=behind.url)
    assert answer.status in (200, 303)
    assert await db.fetchval("SELECT actor FROM dispatcher.audit") == "ana@example.com"
    other = await behind.act("resume", {"app": "shop"}, Origin="http://evil.example")
    assert other.status == 403


async def test_a_long_list_passes_nginx(behind, db):
    behind.headers["Cookie"] = "signed_in=yes"
    page = await behind.get("/console/lists")
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("form_token", page.form_token)
    form.add_field(
        "file", io.BytesIO(b"x" * 3_000_000), filename="list.csv", content_type="text/csv"
    )
    answer = await behind.post("/console/lists", form(), Origin=behind.url)
    assert answer.status == 303, answer.text[:200]
    assert await db.fetchval("SELECT sum(length(content)) FROM dispatcher.list_upload_part") == 3e6


async def test_live_numbers_pass_nginx_at_once(behind, db):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    headers = {"Cookie": "signed_in=yes"}
    async with (
        asyncio.timeout(60),
        behind.session.get(f"{behind.url}/console/live", headers=headers) as stream,
    ):
        assert b"shop" in await stream.content.readuntil(b"\n\n")


async def test_a_receiver_gets_the_headers_that_the_provider_has_signed(behind):
    sent = {"Connection": "keep-alive", "X_Forwarded_For": "203.0.113.9"}
    seen = json.loads((await behind.get("/reports/token", **sent)).text)
    assert (seen["Host"], seen["Connection"]) == (behind.url.removeprefix("http://"), "keep-alive")
    assert seen["X-Forwarded-For"] == "127.0.0.1"  # what the client wrote is replaced
