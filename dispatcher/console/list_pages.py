"""Uploads of lists: a check shows what would happen, and then the list is loaded.

Checks and loads run in a process of their own (`lists.upload_work`). One that died is taken up
again when its page is opened.
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator

import msgspec
from aiohttp import BodyPartReader, MultipartReader, hdrs, web
from msgspec.structs import replace

from dispatcher.console.auth import (
    ADMITTED,
    FORM_TOKEN_FIELD,
    Auth,
    Session,
    protected,
    redirect,
)
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.forms import (
    Fields,
    Invalid,
    message_id,
    read_form,
    read_per_hour,
    read_spread,
)
from dispatcher.console.render import sentence
from dispatcher.core.format import number
from dispatcher.core.language import N_, _, with_stop
from dispatcher.core.result import storable_text
from dispatcher.core.rules import describe_limits
from dispatcher.core.zone import read_zone
from dispatcher.db.campaigns import MAX_NAME_CHARACTERS
from dispatcher.db.list_uploads import PART_BYTES, ListUpload
from dispatcher.lists.rejects import with_shown_reasons
from dispatcher.lists.shown_texts import list_text
from dispatcher.lists.upload_work import (
    UploadOptions,
    UploadResult,
    WorkOrder,
    remove_left_folders,
)

LISTS_PATH = "/console/lists"
MAX_UPLOAD_BYTES = 200 * 1024 * 1024
MAX_FIELD_BYTES = 4096
MAX_PARTS = 40  # of the form, which has half as many
UPLOAD_SECONDS = 1800.0  # for the whole form: 200 MB at a megabit a second
TEXT_FIELDS = (
    "encoding", "sheet", "template", "app", "sender", "signature", "priority", "send_at",
    "expires_at", "campaign",
)  # fmt: skip
FLAGS = ("ignore_others", "recipients_only", "unique")
_OPTIONS = {
    "--encoding": N_("Encoding; else detected"),
    "--sheet": N_("Sheet of an Excel file with several"),
    "--column": N_("What columns are, one a line"),
    "--ignore-others": N_("Leave out columns of no message"),
    "--recipients-only": N_("No header: each line is a number"),
    "--zone": N_("Time zone of its times"),
    "--campaign": N_("Campaign; else the file's name"),
    "--rest": N_("Load the others only"),
    "--again": N_("Load all, some a second time"),
}
_OPTION = re.compile(rf"(?<![\w-])(?:{'|'.join(_OPTIONS)})(?![\w-])", re.ASCII)
LINES = {"load": "all lines", "rest": "lines that are not in", "again": "all lines again"}


def read_options(fields: Fields) -> UploadOptions | Invalid:
    """Return what a form says of a list."""
    given = {name: text for name, value in fields.items() if (text := value.strip())}
    values: dict[str, object] = {name: given[name] for name in TEXT_FIELDS if name in given}
    values |= {name: True for name in FLAGS if name in given}
    campaign = given.get("campaign", "")
    if len(campaign) > MAX_NAME_CHARACTERS or not campaign.isprintable():
        return Invalid(_("A campaign's name is one line of at most 100 characters."))
    values["columns"] = tuple(filter(None, map(str.strip, given.get("columns", "").splitlines())))
    values["params"] = tuple(given.get("params", "").splitlines())
    if zone := given.get("zone"):
        try:
            read_zone(zone)
        except ValueError as error:
            return Invalid(sentence(with_stop(error)))
        values["zone"] = zone
    spread = read_spread(given.get("spread", ""))
    per_hour = read_per_hour(given.get("per_hour", ""))
    for each in (spread, per_hour):
        if isinstance(each, Invalid):
            return each
    if spread is not None and per_hour is not None:
        return Invalid(_("Give a number of messages an hour, or a time to spread them over."))
    values |= {"spread_seconds": spread, "per_hour": per_hour}
    if stop_at := given.get("stop_at"):
        share = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%?", stop_at)
        if share is None or not 0 < float(share[1]) <= 100:  # noqa: PLR2004 - percent
            return Invalid(_("The share at which it pauses is a percentage, such as 5."))
        values["stop_at"] = float(share[1]) / 100
    return UploadOptions(**values)  # type: ignore[arg-type]


def written_options(options: UploadOptions) -> Fields:
    """Return the fields of a form from which `read_options` returns *options*."""
    said = {
        **{name: getattr(options, name) for name in (*TEXT_FIELDS, "zone")},
        **{name: "yes" for name in FLAGS if getattr(options, name)},
        "columns": "\n".join(options.columns),
        "params": "\n".join(options.params),
        "spread": f"{options.spread_seconds / 60:g}min" if options.spread_seconds else "",
        "per_hour": str(options.per_hour) if options.per_hour else "",
        "stop_at": f"{100 * options.stop_at:g}" if options.stop_at else "",
    }
    return {name: value for name, value in said.items() if value}


def in_form(text: str) -> str:
    """Return a stored text about a list in the reader's language.

    It names fields and buttons of the console where it names options of the command.
    """
    return _OPTION.sub(lambda found: f"“{_(_OPTIONS[found[0]])}”", list_text(text))


class ListPages:
    """The upload of a list, its preview, and its load."""

    def __init__(self, auth: Auth, backend: ConsoleBackend) -> None:
        self._auth = auth
        self._backend = backend
        self._working: dict[int, asyncio.Task[None]] = {}
        self._one_process = asyncio.Lock()  # the others wait: each may take 2 GB
        self._at_work: int | None = None  # the list that is not waiting

    async def overview(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show the form, and the uploads that are kept; an address may fill it as one of them."""
        wanted = message_id(request.query.get("as", ""))
        upload = await self._backend.list_upload(wanted) if wanted is not None else None
        draft = {}
        if upload is not None:
            draft = written_options(msgspec.json.decode(upload.options, type=UploadOptions))
        return await self._overview(session, draft, None)

    async def _overview(
        self, session: Session, draft: Fields, error: str | None
    ) -> web.StreamResponse:
        snapshot = await self._backend.snapshot()
        values = {
            "session": session,
            "uploads": await self._backend.list_uploads(),
            "apps": [app.name for app in snapshot.apps if app.known],
            "draft": draft,
            "error": error,
        }
        return self._auth.page("lists.html", values, status=400 if error else 200)

    async def upload(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Keep an uploaded list, and have it checked."""
        fields: Fields = {}
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                upload_id = await self._take(request, session, fields)
        except TimeoutError:
            upload_id = Invalid(_("The upload took more than half an hour."))
        except (ValueError, LookupError):
            upload_id = Invalid(_("The upload could not be read."))
        if upload_id is None:
            return await self._auth.refused(request, session)
        if isinstance(upload_id, Invalid):
            return await self._overview(session, fields, upload_id.reason)
        self._work(upload_id)
        return redirect(f"{LISTS_PATH}/{upload_id}")

    async def _take(
        self, request: web.Request, session: Session, fields: Fields
    ) -> int | Invalid | None:
        """Fill *fields*, and keep the file, which comes after them; None: the form is not ours."""
        if request.content_type.startswith("multipart/"):
            own, parts = False, 0
            async for part in MultipartReader(request.headers, request.content):
                parts += 1
                if not isinstance(part, BodyPartReader) or parts > MAX_PARTS:
                    raise ValueError("no form of ours has such parts")
                if part.name == FORM_TOKEN_FIELD:
                    own = self._auth.is_own(request, session, await _text(part))
                    continue
                if not own:  # what comes after it is not read
                    return None
                request.app[ADMITTED].add(request.protocol)
                if part.name == "file":
                    options = read_options(fields)
                    if isinstance(options, Invalid):
                        return options
                    return await self._keep(session, part, options)
                fields[part.name or ""] = await _text(part)
        return Invalid(_("Choose a file."))

    async def _keep(
        self, session: Session, part: BodyPartReader, options: UploadOptions
    ) -> int | Invalid:
        """Keep the content of a list part by part, with one part in memory."""
        name = storable_text(part.filename or "")[-200:]
        text = msgspec.json.encode(options).decode()
        upload_id = await self._backend.add_list_upload(session.actor, name, text)
        try:
            invalid = await self._keep_content(upload_id, part)
        except BaseException:  # cut, too slow, or the database is gone
            await self._backend.drop_list_upload(session.actor, upload_id)
            raise
        if invalid is not None:
            await self._backend.drop_list_upload(session.actor, upload_id)
            return invalid
        await self._backend.complete_list_upload(upload_id)
        return upload_id

    async def _keep_content(self, upload_id: int, part: BodyPartReader) -> Invalid | None:
        kept, buffer, place = 0, bytearray(), 0
        while chunk := await part.read_chunk(65_536):
            buffer += chunk
            kept += len(chunk)
            if kept > MAX_UPLOAD_BYTES:
                megabytes = number(MAX_UPLOAD_BYTES / 1024 / 1024)
                return Invalid(
                    _("A list has at most {count} MB here; `dispatcher enqueue` takes any.").format(
                        count=megabytes
                    )
                )
            if len(buffer) >= PART_BYTES:
                await self._backend.add_list_part(upload_id, place, bytes(buffer))
                buffer.clear()
                place += 1
        if not kept:
            return Invalid(_("Choose a file that is not empty."))
        if buffer:
            await self._backend.add_list_part(upload_id, place, bytes(buffer))
        return None

    async def one(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show what a check or a load gave, or how far it is; a form loads or drops the list."""
        wanted = message_id(request.match_info["id"])
        upload = await self._backend.list_upload(wanted) if wanted is not None else None
        if upload is None:
            values = {"session": session, "what": _("There is no such list; each is kept a day.")}
            return self._auth.page("missing.html", values, status=404)
        if request.method == hdrs.METH_POST:
            return await self._act(request, session, upload)
        if upload.silent and not upload.held:
            self._work(upload.id)  # the process that did it is dead
        result = msgspec.json.decode(upload.result, type=UploadResult) if upload.result else None
        known = {app.name for app in (await self._backend.snapshot()).apps if app.known}
        values = {
            "session": session,
            "upload": upload,
            "waits": upload.silent and self._at_work not in {None, upload.id},
            "result": result,
            "limits": [(app, describe_limits(each)) for app, each in result.limits.items()]
            if result
            else [],
            "unknown_apps": [app for app in result.apps if app not in known] if result else [],
            "options": msgspec.json.decode(upload.options, type=UploadOptions),
            "in_form": in_form,
        }
        return self._auth.page("list.html", values)

    async def _act(
        self, request: web.Request, session: Session, upload: ListUpload
    ) -> web.StreamResponse:
        form = await read_form(request) or {}
        how = form.get("action", "")
        if how == "drop":
            await self._backend.drop_list_upload(session.actor, upload.id)
            return redirect(LISTS_PATH)
        options = msgspec.json.decode(upload.options, type=UploadOptions)
        options = replace(options, rest=how == "rest", again=how == "again")
        text = msgspec.json.encode(options).decode()
        if (lines := LINES.get(how)) is not None and await self._backend.load_list(
            session.actor, upload.id, text, lines
        ):
            self._work(upload.id)
        return redirect(f"{LISTS_PATH}/{upload.id}")

    async def rejects(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Send the refused lines of a list as CSV; the audit log records it."""
        wanted = message_id(request.match_info["id"])
        content = await self._backend.list_rejects(wanted) if wanted is not None else None
        if content is None:
            values = {"session": session, "what": _("No line of this list was refused.")}
            return self._auth.page("missing.html", values, status=404)
        await self._backend.record_export(session.actor, f"refused lines of list {wanted}")
        headers = {hdrs.CONTENT_DISPOSITION: f'attachment; filename="list-{wanted}.rejects.csv"'}
        body = _pieces(content)
        return protected(web.Response(body=body, content_type="text/csv", headers=headers))

    def _work(self, upload_id: int) -> None:
        if upload_id not in self._working:
            task = asyncio.create_task(self._run(upload_id))
            self._working[upload_id] = task
            task.add_done_callback(lambda _task: self._working.pop(upload_id, None))

    async def _run(self, upload_id: int) -> None:
        order = WorkOrder(self._backend.dsn, upload_id, self._backend.other_mainland)
        async with self._one_process:
            self._at_work = upload_id
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "dispatcher.lists.upload_work",
                    stdin=asyncio.subprocess.PIPE,
                )
                # A process that dies leaves its work for the next look at its page.
                await process.communicate(msgspec.json.encode(order))
                await asyncio.to_thread(remove_left_folders)
            finally:
                self._at_work = None


async def _text(part: BodyPartReader) -> str:
    content = bytearray()
    while chunk := await part.read_chunk(MAX_FIELD_BYTES):
        content += chunk
        if len(content) > MAX_FIELD_BYTES:
            raise ValueError("a field is too long")
    if 0 in content:
        raise ValueError("PostgreSQL takes no text with a NUL")
    return content.decode("utf-8")


async def _pieces(rejects: bytes) -> AsyncIterator[bytes]:
    """Yield a file of rejects as its reader is to see it; between pieces others have their turn."""
    for piece in with_shown_reasons(rejects):
        yield piece
        await asyncio.sleep(0)
