"""Act: pause, resume, cancel, requeue, settle; each is confirmed first, and written down."""

from typing import Literal

from aiohttp import web

from dispatcher.web.console.desk import Desk
from dispatcher.web.console.forms import form_of, message_ids
from dispatcher.web.console.guard import Guard
from dispatcher.web.console.plans import FIELDS, MAX_REASON, Fields, Plan, Wrong, plan, template_of
from dispatcher.web.console.session import Session


class Acts:
    """The pages that do something."""

    def __init__(self, guard: Guard, desk: Desk) -> None:
        self._guard = guard
        self._desk = desk

    async def show(self, _: web.Request, session: Session) -> web.StreamResponse:
        """Show what can be done, and what was done."""
        now = await self._desk.now()
        values = {"session": session, "apps": now.apps, "deeds": await self._desk.deeds()}
        return self._guard.page("act.html", values)

    async def confirm(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Ask whether it is meant."""
        deed = request.match_info["deed"]
        fields = {name: request.query[name] for name in FIELDS if name in request.query}
        return self._page("confirm.html", session, deed, fields)

    async def do(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Do it."""
        deed = request.match_info["deed"]
        form = await form_of(request) or {}
        fields = {name: form[name].strip() for name in FIELDS if name in form}
        match plan(deed, fields):
            case Plan():
                result = await self._do(deed, fields, session.who)
                return self._page("done.html", session, deed, fields, result=result)
            case Wrong():
                return self._page("confirm.html", session, deed, fields)

    async def _do(self, deed: str, fields: Fields, who: str) -> str:
        ids = message_ids(fields.get("ids", "")) or []
        match deed:
            case "pause":
                reason = fields.get("reason", "")[:MAX_REASON]
                return await self._desk.pause(who, fields["app"], reason)
            case "resume":
                return await self._desk.resume(who, fields["app"])
            case "cancel":
                return await self._desk.cancel(who, ids)
            case "requeue":
                return await self._desk.requeue(who, ids)
            case "template" | "template-remove":
                return await self._on_template(deed, fields, who)
            case _:
                return await self._desk.settle(who, fields["token"], fields["how"])

    async def _on_template(self, deed: str, fields: Fields, who: str) -> str:
        if deed == "template-remove":
            return await self._desk.drop_template(who, fields["template_id"])
        match template_of(fields):
            case Wrong(why):
                return why
            case made:
                note = fields.get("note", "")[:MAX_REASON]
                return await self._desk.define_template(who, made, note, fields["text"])

    def _page(
        self,
        template: Literal["confirm.html", "done.html"],
        session: Session,
        deed: str,
        fields: Fields,
        *,
        result: str = "",
    ) -> web.Response:
        match plan(deed, fields):
            case Wrong(why):
                values: dict[str, object] = {"session": session, "what": why}
                return self._guard.page("missing.html", values, status=400)
            case Plan() as made:
                values = {
                    "session": session,
                    "deed": deed,
                    "fields": fields,
                    "plan": made,
                    "result": result,
                }
                return self._guard.page(template, values)


def routes(guard: Guard, desk: Desk) -> list[web.AbstractRouteDef]:
    """Return the routes of everything that is done."""
    acts = Acts(guard, desk)
    return [
        web.get("/console/act", guard.inside(acts.show)),
        web.get("/console/act/{deed}", guard.inside(acts.confirm)),
        web.post("/console/act/{deed}", guard.inside(acts.do)),
    ]
