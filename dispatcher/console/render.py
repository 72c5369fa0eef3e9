"""Renders pages from templates."""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain, zip_longest
from pathlib import Path

import jinja2
from aiohttp import web
from markupsafe import Markup, escape

from dispatcher import __version__
from dispatcher.core.codes import number_code, request_code
from dispatcher.core.format import duration, mask, number, plural
from dispatcher.core.status import WAITING_COUNTED


class Templates:
    """The console's templates, with their filters."""

    def __init__(self) -> None:
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.globals.update(version=__version__)
        self._templates.filters.update(
            number=number,
            waiting_count=waiting_count,
            plural=plural,
            duration=duration,
            moment=moment,
            iso=iso,
            mask=mask,
            coded=coded,
            code_row=number_code,
            request_row=request_code,
        )

    def text(self, name: str, values: Mapping[str, object]) -> str:
        """Return the text of template *name* with *values*."""
        return self._templates.get_template(name).render(values)

    def page(self, name: str, values: Mapping[str, object], *, status: int = 200) -> web.Response:
        """Return the page of template *name* with *values*."""
        return web.Response(
            text=self.text(name, values), content_type="text/html", charset="utf-8", status=status
        )


def coded(text: str) -> Markup:
    """Return *text* as HTML, with the parts between back-ticks marked as code."""
    parts = [escape(part) for part in text.split("`")]
    marked = [Markup("<code>{}</code>").format(part) for part in parts[1::2]]
    return Markup().join(chain.from_iterable(zip_longest(parts[::2], marked, fillvalue="")))


def waiting_count(waiting: int) -> str:
    """Return a number of waiting messages, which the database counts only up to a bound."""
    return f"over {number(WAITING_COUNTED)}" if waiting > WAITING_COUNTED else number(waiting)


def moment(time: datetime | None) -> str:
    """Return *time* in UTC for people; a script changes it to the reader's time zone."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if time else "-"


def iso(time: datetime) -> str:
    """Return *time* in ISO 8601, for scripts."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds")
