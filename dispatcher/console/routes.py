"""All addresses of the console."""

import asyncio

from aiohttp import web

from dispatcher.console.actions import ACTIONS_PATH, DONE_PATH, ActionPages
from dispatcher.console.audit import AUDIT_PATH, AuditPages
from dispatcher.console.auth import HOME_PATH, LOGIN_PATH, Auth, Sessions, protected
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.campaign_pages import CAMPAIGN_PATH, CAMPAIGNS_PATH, CampaignPages
from dispatcher.console.code_search import CODES_PATH, CodesPage
from dispatcher.console.dashboard import Dashboard
from dispatcher.console.language_choice import (
    LANGUAGE_PATH,
    choose_language,
    in_readers_language,
)
from dispatcher.console.list_pages import LISTS_PATH, ListPages
from dispatcher.console.login import LoginPages, static_file
from dispatcher.console.message_pages import MESSAGE_ACTION_PATH, MESSAGES_PATH, MessagePages
from dispatcher.console.problems import ProblemsPage
from dispatcher.console.proxy_sign_in import ProxySignIn
from dispatcher.console.render import Templates
from dispatcher.console.rule_actions import RULES_PATH
from dispatcher.console.search import SEARCH_PATH, SearchPages
from dispatcher.core.language import N_, _

_CLOSED = N_(
    "The console is closed: set DISPATCHER_CONSOLE_TOKEN (or DISPATCHER_CONSOLE_TOKEN_FILE) to"
    " open it, and start again. This makes a token:"
)
_COMMAND = '    python3 -c "import secrets; print(secrets.token_urlsafe())"'


def console_routes(
    backend: ConsoleBackend,
    token: str,
    stopping: asyncio.Event,
    proxies: ProxySignIn | None = None,
) -> list[web.AbstractRouteDef]:
    """Return the console's routes; live pages end when *stopping* is set.

    *token* signs sessions; *proxies* may sign operators in by a header.
    """
    auth = Auth(Sessions(token), Templates(), backend, proxies)
    login = LoginPages(auth, backend)
    dashboard = Dashboard(auth, backend, stopping)
    problems = ProblemsPage(auth, backend)
    search = SearchPages(auth, backend)
    messages = MessagePages(auth, backend, stopping)
    actions = ActionPages(auth, backend)
    campaigns = CampaignPages(auth, backend, stopping)
    lists = ListPages(auth, backend)
    codes = CodesPage(auth, backend)
    audit = AuditPages(auth, backend)
    routes = [
        web.get(LOGIN_PATH, login.show),
        web.post(LOGIN_PATH, login.log_in),
        web.post("/console/logout", auth.required(login.log_out)),
        web.get("/console/static/{name}", static_file),
        web.get(LANGUAGE_PATH + "/{language}", choose_language),
        web.get(HOME_PATH, auth.required(dashboard.show)),
        web.get("/console/live", auth.required(dashboard.stream)),
        web.get("/console/fresh", auth.required(dashboard.fresh)),
        web.get("/console/chart", auth.required(dashboard.chart)),
        web.get("/console/delivery", auth.required(dashboard.delivery)),
        web.get("/console/problems", auth.required(problems.show)),
        web.get("/console/problems/unreadable", auth.required(problems.unreadable)),
        web.get(SEARCH_PATH, auth.required(search.search)),
        web.post(SEARCH_PATH, auth.required(search.search)),
        web.get(MESSAGES_PATH, auth.required(messages.show)),
        web.post(MESSAGES_PATH, auth.required(messages.find_number)),
        web.post(MESSAGES_PATH + "/columns", auth.required(messages.choose_columns)),
        web.post(MESSAGE_ACTION_PATH, auth.required(messages.preview, "act")),
        web.get(MESSAGE_ACTION_PATH + "/{id}", auth.required(messages.action)),
        web.post(MESSAGE_ACTION_PATH + "/{id}", auth.required(messages.action, "act")),
        web.get("/console/message/{id}", auth.required(search.message)),
        web.post("/console/message/{id}", auth.required(search.message, "act")),
        web.get("/console/batch/{token}", auth.required(search.batch)),
        web.get(CAMPAIGNS_PATH, auth.required(campaigns.overview)),
        web.get(CAMPAIGN_PATH, auth.required(campaigns.one)),
        web.get(CAMPAIGN_PATH + ".csv", auth.required(campaigns.export)),
        web.post(CAMPAIGN_PATH + ".csv", auth.required(campaigns.export, "act")),
        web.get(LISTS_PATH, auth.required(lists.overview)),
        web.post(LISTS_PATH, auth.required(lists.upload, "act", form_is_checked=False)),
        web.get(LISTS_PATH + "/{id}", auth.required(lists.one)),
        web.post(LISTS_PATH + "/{id}", auth.required(lists.one, "act")),
        web.post(LISTS_PATH + "/{id}/rejects.csv", auth.required(lists.rejects, "act")),
        web.get(CODES_PATH, auth.required(codes.show)),
        web.get(AUDIT_PATH, auth.required(audit.show)),
        web.get(AUDIT_PATH + ".csv", auth.required(audit.export)),
        web.get(RULES_PATH, auth.required(actions.rules)),
        web.post(RULES_PATH, auth.required(actions.search_suppressed)),
        web.get(ACTIONS_PATH, auth.required(actions.overview)),
        web.get(ACTIONS_PATH + "/{action}", auth.required(actions.confirm)),
        web.post(ACTIONS_PATH + "/{action}", auth.required(actions.act)),
        web.get(DONE_PATH, auth.required(actions.done)),
        web.get(HOME_PATH + "/", auth.required(dashboard.show)),
        web.get("/console/{rest:.*}", auth.required(search.missing)),
    ]
    return [in_readers_language(route) for route in routes]


def closed_console_routes() -> list[web.AbstractRouteDef]:
    """Return routes that say how to open the console: without a token it stays closed."""

    async def closed(_request: web.Request) -> web.Response:
        return protected(web.Response(status=503, text=f"{_(_CLOSED)}\n\n{_COMMAND}\n"))

    routes = [web.get(HOME_PATH, closed), web.get("/console/{rest:.*}", closed)]
    return [in_readers_language(route) for route in routes]
