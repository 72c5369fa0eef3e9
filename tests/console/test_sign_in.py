"""Tokens with a name and a role, and sign-in by a proxy's header."""

import asyncio
import re
from ipaddress import ip_network
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from client import TOKEN, Client

from dispatcher.console import ConsoleBackend, ProxySignIn, console_routes
from dispatcher.console.backend import CachedQuery
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.db import console_tokens
from dispatcher.service.http import serving

LOOKING = [
    "", "/problems", "/messages", "/campaigns", "/codes", "/rules", "/actions", "/audit", "/search",
]  # fmt: skip
ACTING = [
    ("/actions/pause", {"app": "shop"}),
    ("/actions/resume", {"app": "shop"}),
    ("/actions/pause", {"app": "shop", "ask": "yes"}),
    ("/actions/cancel", {"ids": "1"}),
    ("/actions/settle", {"token": "0" * 32, "how": "sent"}),
    ("/actions/campaign-cancel", {"campaign": "c"}),
    ("/message-action", {"action": "cancel"}),
    ("/message-action/1", {}),
    ("/message/1", {}),
    ("/campaign.csv?name=c", {}),
]
RULING = [
    ("/actions/template", {"template_id": "t", "text": "x"}),
    ("/actions/template-remove", {"template_id": "t"}),
    ("/actions/limits", {"app": "shop", "per_day": "1"}),
    ("/actions/price", {"country": "CN", "price": "1"}),
    ("/actions/suppress", {"numbers": "+8613112345678"}),
    ("/actions/suppress", {"numbers": "+8613112345678", "ask": "yes"}),
    ("/actions/unsuppress", {"numbers": "+8613112345678"}),
    ("/message-action", {"action": "suppress"}),
    ("/message-action", {"action": "suppress", "same_number_as": "1"}),
]


async def log_in(client: Client, db, role: str, name: str = "Ben") -> str:
    """Log in with a new token of *role*; return the token."""
    token = await console_tokens.add(db, "Ana", name, role)
    assert (await client.log_in(token, actor="Eve")).status == 303
    return token


async def answers(client: Client, forms) -> set[int]:
    """Return the statuses of the answers to *forms*."""
    form_token = (await client.get("/console/search")).form_token
    return {
        (await client.post(f"/console{path}", {"form_token": form_token, **form})).status
        for path, form in forms
    }


@pytest.mark.parametrize(
    ("role", "acting", "ruling"),
    [("see", False, False), ("act", True, False), ("rules", True, True)],
)
async def test_a_role_permits_what_it_names(client, db, role, acting, ruling):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    await log_in(client, db, role)
    assert {(await client.get(f"/console{path}")).status for path in LOOKING} == {200}
    before = await db.fetchval("SELECT count(*) FROM dispatcher.audit")
    assert (403 not in await answers(client, ACTING)) is acting
    assert (403 not in await answers(client, RULING)) is ruling
    if not acting:
        assert await answers(client, ACTING + RULING) == {403}
        assert await db.fetchval("SELECT count(*) FROM dispatcher.audit") == before
    elif not ruling:
        assert await answers(client, RULING) == {403}
    page = await client.get("/console/actions/pause?app=shop")
    assert page.status == (200 if acting else 403)


async def test_only_who_sets_rules_is_offered_to_suppress_and_may_start_it(client, db):
    message = await db.fetchval(
        "INSERT INTO dispatcher.message (recipient, template_id) VALUES ('+8613112345678', 't')"
        " RETURNING id"
    )
    pages = ("messages?app=default", "messages?state=accepted&app=default", f"message/{message}")
    offer = 'name="action" value="suppress"'
    await log_in(client, db, "rules", "Ana")
    offered = [offer in (await client.get(f"/console/{page}")).text for page in pages]
    assert offered == [True, False, True]  # no message is accepted
    form_token = (await client.get("/console/search")).form_token
    form = {"form_token": form_token, "action": "suppress", "same_number_as": str(message)}
    preview = (await client.post("/console/message-action", form)).headers["Location"]
    start = '<button class="grave">'
    assert start in (await client.get(preview)).text
    await log_in(client, db, "act")
    assert [offer in (await client.get(f"/console/{page}")).text for page in pages] == [False] * 3
    assert 'name="action" value="cancel"' in (await client.get(f"/console/{pages[0]}")).text
    assert start not in (await client.get(preview)).text
    form_token = (await client.get("/console/search")).form_token
    assert (await client.post(preview, {"form_token": form_token})).status == 403
    assert await db.fetchval("SELECT count(*) FROM dispatcher.suppression") == 0
    assert not await db.fetchval("SELECT started_at FROM dispatcher.message_action")


async def test_the_audit_has_the_name_of_the_token(client, db):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    await log_in(client, db, "act")
    await client.act("pause", {"app": "shop"})
    actors = await db.fetch("SELECT actor, action, target FROM dispatcher.audit ORDER BY id")
    assert [tuple(row) for row in actors] == [("Ana", "token", "Ben"), ("Ben", "pause", "shop")]
    assert await db.fetchval("SELECT used_at IS NOT NULL FROM dispatcher.console_token")


async def test_a_revoked_token_ends_its_logins(client, db, console):
    token = await log_in(client, db, "act")
    assert (await client.get("/console/rules")).status == 200
    stream = await client.session.get(f"{console}/console/live")
    assert await console_tokens.revoke(db, "Ana", "Ben")
    assert not await console_tokens.revoke(db, "Ana", "Ben")
    async with asyncio.timeout(60):
        while (await client.get("/console/rules")).status == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await stream.read()  # it ends
    assert (await client.log_in(token)).status == 403
    await log_in(client, db, "see")  # the name is free again
    assert len(await console_tokens.tokens(db)) == 2


async def test_a_changed_role_counts_at_once(client, db):
    await log_in(client, db, "act")
    await db.execute("UPDATE dispatcher.console_token SET role = 'see'")
    async with asyncio.timeout(60):
        while await answers(client, ACTING[:1]) != {403}:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_no_token_is_stored_as_it_is(db):
    token = await console_tokens.add(db, "Ana", "Ben", "see")
    row = await db.fetchrow("SELECT * FROM dispatcher.console_token")
    assert token not in str(dict(row))
    assert len(token) >= 43
    with pytest.raises(console_tokens.TokenError, match="revoke it first"):
        await console_tokens.add(db, "Ana", "Ben", "act")


async def unavailable() -> None:
    raise DatabaseUnavailable("the database at its-address is starting up")


async def test_a_token_that_cannot_be_checked_sees_nothing(client, db, backend, monkeypatch):
    await log_in(client, db, "rules")
    form_token = (await client.get("/console/search")).form_token
    monkeypatch.setattr(backend, "_tokens", CachedQuery(unavailable))
    form = {"form_token": form_token, "country": "CN", "price": "1"}
    for answer in (
        await client.post("/console/actions/price", form),
        await client.get("/console"),
        await client.get("/console/codes"),
        await client.get("/console/fresh"),
    ):
        assert (answer.status, "Bring PostgreSQL back" in answer.text) == (503, True)
        assert "Ben" not in answer.text
    for login in (await client.get("/console/login"), await client.log_in("y" * 43)):
        assert (login.status, "The database does not answer" in login.text) == (503, True)
        assert "its-address" not in login.text
    assert (await client.log_in()).status == 303  # the shared token needs no database


async def test_a_live_page_waits_for_its_token(client, db, console, backend, monkeypatch):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    await log_in(client, db, "see")
    async with asyncio.timeout(60), client.session.get(f"{console}/console/live") as stream:
        assert "shop" in await event(stream)
        known = backend._tokens
        monkeypatch.setattr(backend, "_tokens", CachedQuery(unavailable))
        while "shop" in (shown := await event(stream)):
            pass
        assert "Bring PostgreSQL back" in shown
        monkeypatch.setattr(backend, "_tokens", known)
        while "shop" not in await event(stream):
            pass


async def event(stream: aiohttp.ClientResponse) -> str:
    """Return the next event of a live page."""
    lines = []
    while (line := await stream.content.readline()) not in (b"\n", b""):
        lines.append(line.decode())
    assert lines
    return "".join(lines)


async def test_guesses_that_come_together_are_limited_too(client, backend, monkeypatch):
    begun = asyncio.Event()

    async def check(_token: str) -> None:
        await begun.wait()

    monkeypatch.setattr(backend, "log_in", check)
    asyncio.get_running_loop().call_later(0.5, begun.set)
    guesses = await asyncio.gather(*(client.log_in(f"guess {number}") for number in range(40)))
    statuses = [each.status for each in guesses]
    assert (statuses.count(403), statuses.count(429)) == (20, 20)


async def test_right_tokens_do_not_count_as_guesses(client, db):
    token = await log_in(client, db, "see")
    for _ in range(21):
        assert (await client.log_in(token)).status == 303


def proxied(*networks: str, groups: str | None = None, **roles: str) -> ProxySignIn:
    named = {("*" if group == "any" else group): role for group, role in roles.items()}
    return ProxySignIn([ip_network(each) for each in networks], "X-User", groups, named)


@pytest.fixture
async def behind(database):
    """Make a client of a console behind a proxy."""
    stop = asyncio.Event()
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:

        async def ask(proxies: ProxySignIn, path: str = "/console", **headers: str):
            backend = ConsoleBackend(database, reports_expected=True)
            routes = console_routes(backend, TOKEN, stop, proxies)
            async with serving("127.0.0.1", 0, routes) as (host, port):
                client = Client(f"http://{host}:{port}", session)
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.get(path, **named)

        yield ask
        stop.set()


async def test_a_trusted_proxy_signs_operators_in(behind):
    ours = proxied("127.0.0.0/8", any="see")
    page = await behind(ours, X_User="ana@example.com")
    assert page.status == 200
    assert "ana@example.com (see)" in page.text
    assert "Log out" not in page.text  # the proxy does that
    assert (await behind(ours)).status == 303  # no one is named: the login
    assert (await behind(ours, X_User="x" * 101)).status == 303
    assert (await behind(ours, X_User="  ")).status == 303


async def test_a_header_from_elsewhere_counts_for_nothing(behind):
    page = await behind(proxied("10.0.0.0/8", any="rules"), X_User="eve")
    assert (page.status, page.headers["Location"]) == (303, "/console/login")


@pytest.mark.parametrize(
    ("peer", "networks", "trusted"),
    [
        ("::1", ["::1/128"], True),
        ("::1", ["127.0.0.0/8"], False),
        ("::ffff:10.0.0.9", ["10.0.0.0/8"], True),  # of a socket for both families
        ("::ffff:10.0.0.9", ["::ffff:10.0.0.0/104"], True),
        ("10.0.0.9", ["::ffff:10.0.0.0/104"], False),
        ("fe80::9%eth0", ["fe80::/10"], True),
        ("fd00::9", ["10.0.0.0/8", "fd00::/8"], True),
        ("2001:db8::9", ["fd00::/8", "0.0.0.0/0"], False),
        ("/run/console.sock", ["0.0.0.0/0", "::/0"], False),
        ("", ["0.0.0.0/0"], False),
        (None, ["0.0.0.0/0"], False),
    ],
)
def test_a_proxy_is_known_by_either_kind_of_address(peer, networks, trusted):
    headers = {"X-User": "ana"}
    request = make_mocked_request("GET", "/console", headers=headers).clone(remote=peer or "")
    assert (proxied(*networks, any="see").operator(request) is not None) is trusted


async def test_groups_decide_the_role(behind):
    ours = proxied("127.0.0.1/32", groups="X-Groups", admins="rules", ops="act")
    for groups, role in (
        ("ops", "act"),
        ("ops, admins", "rules"),
        ("other", None),
        ("", None),
    ):
        page = await behind(ours, X_User="ana", X_Groups=groups)
        found = re.search(r"ana \((\w+)\)", page.text)
        assert (found and found[1]) == role, groups


async def test_a_second_line_of_groups_signs_nobody_in(database):
    backend = ConsoleBackend(database, reports_expected=True)
    ours = proxied("127.0.0.1/32", groups="X-Groups", admins="rules", ops="act", any="see")
    routes = console_routes(backend, TOKEN, asyncio.Event(), ours)
    async with serving("127.0.0.1", 0, routes) as (host, port), aiohttp.ClientSession() as session:
        client = Client(f"http://{host}:{port}", session)
        for groups, status in (([], 200), (["ops"], 200), (["ops", "admins"], 303)):
            headers = [*client.headers.items(), ("X-User", "ana")]
            headers += [("X-Groups", each) for each in groups]
            url = f"{client.url}/console/search"
            async with session.get(url, headers=headers, allow_redirects=False) as answer:
                assert answer.status == status, groups


def test_the_documented_proxies_set_the_headers_that_count():
    page = (Path(__file__).parents[2] / "deploy/docs/operations.md").read_text()
    examples = page.split("**OpenID Connect**")[1].split("**The dashboard**")[0].split("```")[1::2]
    setting = re.compile(r"^DISPATCHER_CONSOLE_(\w+)_HEADER=(.+)$", re.MULTILINE)
    named = [dict(setting.findall(each)) for each in examples]
    oauth2_proxy, nginx = (each for each in named if each)
    assert oauth2_proxy == {"USER": "X-Forwarded-Email", "GROUPS": "X-Forwarded-Groups"}
    (server,) = [each for each in examples if "auth_request " in each]
    for header in nginx.values():
        (variable,) = re.findall(rf"proxy_set_header {header} +(\$\w+);", server)
        answered = "$upstream_http_" + header.lower().replace("-", "_")
        assert f"auth_request_set {variable} {answered};" in " ".join(server.split())


async def test_a_form_of_a_proxied_operator_is_protected_too(database):
    backend = ConsoleBackend(database, reports_expected=True)
    routes = console_routes(backend, TOKEN, asyncio.Event(), proxied("127.0.0.1/32", any="rules"))
    async with (
        serving("127.0.0.1", 0, routes) as (host, port),
        aiohttp.ClientSession() as session,
    ):
        client = Client(f"http://{host}:{port}", session)
        client.headers["X-User"] = "ana"
        form = {"country": "CN", "price": "1"}
        assert (await client.post("/console/actions/price", form)).status == 403
        foreign = await client.act("price", form, Sec_Fetch_Site="cross-site")
        assert foreign.status == 403
        assert (await client.act("price", form)).status == 200
        client.headers["X-User"] = "eve"
        form_token = (await client.get("/console/search")).form_token
        client.headers["X-User"] = "ana"
        taken = {**form, "form_token": form_token}
        assert (await client.post("/console/actions/price", taken)).status == 403
