"""``dispatcher status``: shows the state of everything on one screen."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.core.language import ENGLISH, use_language

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dispatcher.core.health import Diagnosis
    from dispatcher.core.status import StatusSnapshot

    Show = Callable[[Diagnosis, StatusSnapshot | None], None]


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Show it until Ctrl-C.")] = False,
    every: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="With --watch: the interval.")
    ] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """Show whether messages go out, and if not, why and what to do.

    Then it lists the waiting messages of each app, the running workers, and
    the events of the last hour and day.
    """
    from dispatcher.cli.connection import database_address, explained, read_settings

    if json:
        use_language(ENGLISH)  # programs read it
    settings = read_settings()
    reports = settings.callback_url is not None
    with database_address(settings) as dsn, explained(dsn):
        if not watch:
            _once(dsn, _output(json=json), reports=reports)
        elif json:
            _until_interrupted(_watch(dsn, _print_json_line, every, reports=reports))
        else:
            _live(dsn, every, reports=reports)


def _once(dsn: str, show: "Show", *, reports: bool) -> None:
    from functools import partial

    from dispatcher.cli.connection import connected
    from dispatcher.core.health import diagnose
    from dispatcher.db.status import overview

    now = asyncio.run(connected(dsn, partial(overview, reports=reports)))
    show(diagnose(now), now)


def _output(*, json: bool) -> "Show":
    return _print_json if json else _print_screen


def _print_screen(found: "Diagnosis", now: "StatusSnapshot | None") -> None:
    from dispatcher.cli.output import screen
    from dispatcher.cli.status_view import render

    screen().print(render(found, now))


def _print_json(found: "Diagnosis", now: "StatusSnapshot | None") -> None:
    from dispatcher.cli.output import print_json

    print_json(_as_json(found, now))


def _print_json_line(found: "Diagnosis", now: "StatusSnapshot | None") -> None:
    from dispatcher.cli.output import print_json

    print_json(_as_json(found, now), one_line=True)


def _as_json(found: "Diagnosis", now: "StatusSnapshot | None") -> dict[str, object]:
    import msgspec

    seen = msgspec.structs.asdict(now) if now else {}
    seen.pop("recent", None)  # only the charts need them
    findings = [
        msgspec.structs.asdict(each) | {"level": each.level.name.lower()} for each in found.findings
    ]
    apps = {each.app: each.sentence for each in found.apps}
    level = found.level.name.lower()
    return {"level": level, "headline": found.headline, "said": apps, "findings": findings, **seen}


def _live(dsn: str, every: float, *, reports: bool) -> None:
    """Refresh the screen: in place on a terminal, otherwise one below the other."""
    from rich.live import Live

    from dispatcher.cli.output import screen
    from dispatcher.cli.status_view import render

    console = screen()
    if not console.is_terminal:
        _until_interrupted(_watch(dsn, _print_screen, every, reports=reports))
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def show(found: "Diagnosis", now: "StatusSnapshot | None") -> None:
            live.update(render(found, now), refresh=True)

        _until_interrupted(_watch(dsn, show, every, reports=reports))


def _until_interrupted(work: "Coroutine[None, None, None]") -> None:
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        return


async def _watch(dsn: str, show: "Show", every: float, *, reports: bool) -> None:
    """Show the state at the interval; reconnect while the database is unavailable."""
    from dispatcher.core.health import database_unavailable, diagnose
    from dispatcher.db.database import connect
    from dispatcher.db.errors import UNAVAILABLE_ERRORS, as_unavailable, shown_line
    from dispatcher.db.status import overview

    while True:
        try:
            connection = await connect(dsn)
            try:
                while True:
                    async with asyncio.timeout(10):
                        now = await overview(connection, reports=reports)
                    show(diagnose(now), now)
                    await asyncio.sleep(every)
            finally:
                connection.terminate()
        except UNAVAILABLE_ERRORS as error:
            show(database_unavailable(shown_line(str(as_unavailable(error, dsn)))), None)
            await asyncio.sleep(every)
