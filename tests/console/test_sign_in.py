"""Tokens with a name and a role, and sign-in by a proxy's header."""

import asyncio
import re
from ipaddress import ip_network

import aiohttp
import pytest
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
    async with asyncio.timeout(10):
        while (await client.get("/console/rules")).status == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await stream.read()  # it ends
    assert (await client.log_in(token)).status == 403
    await log_in(client, db, "see")  # the name is free again
    assert len(await console_tokens.tokens(db)) == 2


async def test_a_changed_role_counts_at_once(client, db):
    await log_in(client, db, "act")
    await db.execute("UPDATE dispatcher.console_token SET role = 'see'")
    async with asyncio.timeout(10):
        while await answers(client, ACTING[:1]) != {403}:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_no_token_is_stored_as_it_is(db):
    token = await console_tokens.add(db, "Ana", "Ben", "see")
    row = await db.fetchrow("SELECT * FROM dispatcher.console_token")
    assert token not in str(dict(row))
    assert len(token) >= 43
    with pytest.raises(console_tokens.TokenError, match="revoke it first"):
        await console_tokens.add(db, "Ana", "Ben", "act")


async def test_without_a_database_a_named_token_only_sees(client, db, backend, monkeypatch):
    await log_in(client, db, "rules")
    form_token = (await client.get("/console/search")).form_token

    async def fail():
        raise DatabaseUnavailable("starting up")

    monkeypatch.setattr(backend, "_tokens", CachedQuery(fail))
    form = {"form_token": form_token, "country": "CN", "price": "1"}
    refused = await client.post("/console/actions/price", form)
    assert (refused.status, "Your role (see)" in refused.text) == (403, True)
    assert (await client.get("/console/codes")).status == 200
    assert (await client.log_in("y" * 43)).status == 503


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
    assert (await behind(ours)).status == 303  # no one is named: the login
    assert (await behind(ours, X_User="x" * 101)).status == 303
    assert (await behind(ours, X_User="  ")).status == 303


async def test_a_header_from_elsewhere_counts_for_nothing(behind):
    page = await behind(proxied("10.0.0.0/8", any="rules"), X_User="eve")
    assert (page.status, page.headers["Location"]) == (303, "/console/login")


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
