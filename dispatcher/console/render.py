"""Renders pages from templates."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path

import jinja2
from aiohttp import web
from markupsafe import Markup, escape

from dispatcher import __version__
from dispatcher.core import language
from dispatcher.core.codes import number_code, request_code
from dispatcher.core.format import duration, mask, mask_if_number, number, plural
from dispatcher.core.number import without_numbers
from dispatcher.core.roles import shown_name
from dispatcher.core.status import WAITING_COUNTED
from dispatcher.core.stored_texts import stored_text, suppression_reason

_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?) UTC")


class Templates:
    """The console's templates, with their filters."""

    def __init__(self) -> None:
        self._templates = _environment()

    def text(self, name: str, values: Mapping[str, object]) -> str:
        """Return the text of template *name* with *values*."""
        return self._templates.get_template(name).render(values)

    def page(self, name: str, values: Mapping[str, object], *, status: int = 200) -> web.Response:
        """Return the page of template *name* with *values*."""
        return web.Response(
            text=self.text(name, values), content_type="text/html", charset="utf-8", status=status
        )


def _plural(one: str, many: str, count: int) -> str:
    """Return the form of a text for *count*; a language without plurals has one for both."""
    return language._(one if count == 1 else many)


def coded(text: str) -> Markup:
    """Return *text* as HTML, with the parts between back-ticks marked as code."""
    parts = [timed(part) for part in text.split("`")]
    marked = [Markup("<code>{}</code>").format(part) for part in parts[1::2]]
    return Markup().join(chain.from_iterable(zip_longest(parts[::2], marked, fillvalue="")))


def timed(text: str) -> Markup:
    """Return *text* as HTML with its times marked, so that a script shows them as local times."""
    parts = []
    end = 0
    for found in _TIME.finditer(text):
        at = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
        parts += [escape(text[end : found.start()])]
        parts += [Markup('<time datetime="{}">{}</time>').format(iso(at), found[0])]
        end = found.end()
    return Markup().join([*parts, escape(text[end:])])


def sentence(text: str) -> str:
    """Return *text* with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def money(amount: Decimal) -> str:
    """Return an amount without an exponent or trailing zeros."""
    return f"{amount:f}"


def waiting_count(waiting: int) -> str:
    """Return a number of waiting messages, which the database counts only up to a bound."""
    if waiting > WAITING_COUNTED:
        return language._("over {count}").format(count=number(WAITING_COUNTED))
    return number(waiting)


def moment(time: datetime | None) -> str:
    """Return *time* in UTC for people; a script changes it to the reader's time zone."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if time else "-"


def iso(time: datetime) -> str:
    """Return *time* in ISO 8601, for scripts."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds")


@cache
def _environment() -> jinja2.Environment:
    """Return the console's templates with their filters; each is compiled once a process."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        extensions=["jinja2.ext.i18n"],
    )
    templates.policies["ext.i18n.trimmed"] = True
    templates.install_gettext_callables(  # type: ignore[attr-defined]
        language._, _plural, newstyle=True
    )
    templates.globals.update(
        version=__version__, language=language.language, languages=language.LANGUAGES
    )
    templates.filters.update(
        number=number,
        waiting_count=waiting_count,
        plural=plural,
        without_numbers=without_numbers,
        duration=duration,
        moment=moment,
        iso=iso,
        money=money,
        mask=mask,
        mask_if_number=mask_if_number,
        coded=coded,
        timed=timed,
        translated=language._,
        stored=stored_text,
        suppression_reason=suppression_reason,
        operator=shown_name,
        sentence=sentence,
        code_row=number_code,
        request_row=request_code,
    )
    return templates
