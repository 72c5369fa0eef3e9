"""Reads settings from environment variables, or lists every mistake in them."""

import difflib
import os
import re
import ssl
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from pydantic import ValidationError

from dispatcher.core.errors import os_reason
from dispatcher.core.language import N_, _
from dispatcher.core.stored_texts import stored_text
from dispatcher.settings.models import AppSettings, Settings
from dispatcher.settings.types import ANY_GROUP

PREFIX = "DISPATCHER_"
TRACE_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
DERIVED_FIELDS = {
    "apps",
    "traces",
    "database_url_file",
    "database_direct_url_file",
}  # without a variable of their own
# A lease must outlast the longest request by this: its recording and a late heartbeat.
LEASE_MARGIN_SECONDS = 10.0

# Read again when the database refuses the password: it may have been rotated.
_READ_AGAIN = {("database_url",), ("database_direct_url",)}

_APP_NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")  # as in dispatcher.message

# Kubernetes sets these for every service whose name begins with dispatcher. Its DISPATCHER_PORT
# differs by the value from one that a person wrote.
_KUBERNETES_PATTERN = re.compile(
    r"DISPATCHER_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?=.*"
    r"|PORT=(tcp|udp|sctp)://.*|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?=.*)"
)
# What pydantic says of a value; types of our own say what is valid in their own words.
_WISHES = (
    N_("must be a valid integer"),
    N_("must be a valid number"),
    N_("must be a finite number"),
    N_("must be true or false"),
    N_("must be text in UTF-8"),
    N_("must be greater than or equal to {least}"),
    N_("must be greater than {least}"),
    N_("must be less than or equal to {most}"),
    N_("must have at most {most} characters"),
    N_("must be {values} or {last}"),
)

Place: TypeAlias = tuple[str, ...]  # path of a setting: ("apps", "default", "app_key")
Part = Literal["sending", "reports", "console"]  # of a process: what it does with the settings
ALL_PARTS: Final[tuple[Part, ...]] = get_args(Part)


class SettingsError(Exception):
    """The settings are wrong; :attr:`mistakes` has one line for each mistake."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def load_settings(environ: Mapping[str, str], parts: Collection[Part] = ()) -> Settings:
    """Return the settings that *environ* holds.

    Services and commands share most of their settings, but not their secrets. So what only some
    processes use must fit together only in those: *parts* says what this one does.

    Raises :class:`SettingsError` with every mistake in it. No mistake shows a value.
    """
    reading = _Reading(environ)
    mistakes = [*reading.mistakes]
    if "reports" in parts:
        mistakes += reading.lonely_push_keys()
    try:
        settings = Settings.model_validate(reading.nested())
    except ValidationError as error:
        for mistake in error.errors(include_url=False, include_context=False, include_input=False):
            mistakes += reading.explain(tuple(map(str, mistake["loc"])), mistake["msg"])
        raise SettingsError(mistakes) from None
    if parts:  # commands and migrations need the direct address alone
        mistakes += reading.lonely_direct_address()
    if "console" in parts:
        mistakes += _sign_in_mistakes(settings)
    if "sending" in parts:
        mistakes += _sending_mistakes(settings)
    if mistakes:
        raise SettingsError(mistakes)
    return settings


class _Reading:
    """The variables of one environment: their values and names by place, and their mistakes."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.values: dict[Place, str] = {("data_dir",): str(_default_data_dir(environ))}
        if any(environ.get(name) for name in TRACE_VARIABLES):
            self.values["traces",] = "true"
        self.names: dict[Place, str] = {}
        self.mistakes: list[str] = []
        for name in sorted(environ):
            value = environ[name].removesuffix("\r")  # of a file that Windows wrote
            # An empty variable counts as unset: compose files leave settings out so.
            if (
                name.startswith(PREFIX)
                and value
                and not _KUBERNETES_PATTERN.fullmatch(f"{name}={value}")
            ):
                self._read(name, value.rstrip("\r\n"))

    def _read(self, name: str, value: str) -> None:
        *above, last = name.removeprefix(PREFIX).lower().split("__")
        from_file = last.endswith("_file")
        place = (*above, last.removesuffix("_file"))
        if not _is_known(place):
            self.mistakes.append(
                _("{name} is not a setting{suggestion}").format(
                    name=name, suggestion=_suggestion(place, name)
                )
            )
        elif place in self.names:
            self.mistakes.append(
                _("{value} and {name} are both set: keep one of them").format(
                    value=self.names[place], name=name
                )
            )
        else:
            self.names[place] = name
            if from_file:
                self._read_file(place, value)
            else:
                self.values[place] = value

    def _read_file(self, place: Place, file: str) -> None:
        self.values.pop(place, None)
        names = _("{value} names the file {file}").format(value=self.names[place], file=file)
        try:
            content = Path(file).read_text("utf-8-sig").rstrip("\r\n")
        except OSError as error:
            self.mistakes.append(
                _("{names}, which cannot be read: {strerror}").format(
                    names=names, strerror=os_reason(error)
                )
            )
        except UnicodeDecodeError:
            self.mistakes.append(_("{names}, which is not UTF-8 text").format(names=names))
        else:
            if content:
                self.values[place] = content
                if place in _READ_AGAIN:
                    self.values[f"{place[0]}_file",] = file
            else:
                self.mistakes.append(_("{names}, which is empty").format(names=names))

    def nested(self) -> dict[str, object]:
        """Return the values in the shape of the models."""
        # An app whose only variable names an unreadable file counts too.
        apps: dict[str, dict[str, str]] = {place[1]: {} for place in self.names if place[1:]}
        whole: dict[str, object] = {"apps": apps}
        for place, value in self.values.items():
            match place:
                case ("apps", app, field):
                    apps[app][field] = value
                case _:
                    whole[place[0]] = value
        return whole

    def explain(self, place: Place, message: str) -> Iterator[str]:
        """Yield the line for one error of pydantic, unless it is reported already."""
        if place in self.values:
            wish = message.removeprefix("Value error, ").partition(", unable to ")[0]
            wish = re.sub("^(Input|String) should", "must", wish)
            wish = re.sub("^Unable to parse input string as an", "must be a valid", wish)
            wish = wish.replace("a valid boolean", "true or false").partition(", exceeded")[0]
            wish = wish.replace("a valid string", "text in UTF-8")
            if (
                re.match("must be (greater|less)", wish)
                and self.values[place].strip()[-1:].isalpha()
            ):
                wish += " s"  # the bound of a duration that was written with its unit
            yield f"{self.names.get(place, _name(place))} {stored_text(wish, _WISHES)}"
        elif place not in self.names:
            yield _("{name} is missing: {description}").format(
                name=_name(place),
                description=_(str(AppSettings.model_fields[place[-1]].description)),
            )

    def lonely_direct_address(self) -> Iterator[str]:
        """Yield a mistake for a direct address alone: workers would start their own database."""
        name = self.names.get(("database_direct_url",))
        if name is not None and ("database_url",) not in self.names:
            yield _("{name} is missing: {name2} needs it").format(
                name=_name(("database_url",)), name2=name
            )

    def lonely_push_keys(self) -> Iterator[str]:
        """Yield a mistake for each push key without its secret, or secret without key."""
        for place, name in self.names.items():
            swap = ("key", "secret") if "_key" in place[-1] else ("secret", "key")
            other = (*place[:-1], place[-1].replace(*swap))
            if place[-1].startswith("push_") and other not in self.names:
                yield _("{name} is missing: {name2} needs it").format(name=_name(other), name2=name)


def _sign_in_mistakes(settings: Settings) -> Iterator[str]:
    sign_in = {
        "CONSOLE_PROXIES": settings.console_proxies,
        "CONSOLE_USER_HEADER": settings.console_user_header,
        "CONSOLE_ROLES": settings.console_roles,
        "CONSOLE_TOKEN": settings.console_token,  # it signs the forms
    }
    if settings.console_roles.keys() - {ANY_GROUP}:
        sign_in["CONSOLE_GROUPS_HEADER"] = settings.console_groups_header
    missing = [PREFIX + name for name, value in sign_in.items() if not value]
    if missing and (
        settings.console_proxies
        or settings.console_user_header
        or settings.console_groups_header
        or settings.console_roles
    ):
        yield _("sign-in by a proxy's header needs {names} too").format(names=", ".join(missing))


def _sending_mistakes(settings: Settings) -> Iterator[str]:
    for app, values in settings.apps.items():
        if values.on_unsure == "resend" and not (
            settings.callback_url and settings.report_path_token
        ):
            yield (
                _(
                    "{name} is resend, which needs status reports: only a report shows that a"
                    " message without an answer was sent. Set {prefix}CALLBACK_URL and"
                    " {prefix}REPORT_PATH_TOKEN, or hold"
                ).format(name=_name(("apps", app, "on_unsure")), prefix=PREFIX)
            )
        if settings.lease < values.timeout + LEASE_MARGIN_SECONDS:
            yield (
                _(
                    "{prefix}LEASE is {lease} s, and {name} is {timeout} s: the lease must be at"
                    " least {lease_margin_seconds} s longer, or a worker that only waits for an"
                    " answer is taken for dead"
                ).format(
                    prefix=PREFIX,
                    lease=f"{settings.lease:g}",
                    name=_name(("apps", app, "timeout")),
                    timeout=f"{values.timeout:g}",
                    lease_margin_seconds=f"{LEASE_MARGIN_SECONDS:g}",
                )
            )
        if values.ca_bundle is not None and (wrong := _why_no_certificate(values.ca_bundle)):
            yield f"{_name(('apps', app, 'ca_bundle'))} {wrong}"


def _why_no_certificate(file: Path) -> str | None:
    """Return what is wrong with a file of certificates; None if it can be used."""
    try:
        with file.open("rb"):
            ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        return _("names a file without a certificate (PEM)")
    except OSError as error:
        return _("names a file that cannot be read: {strerror}").format(strerror=os_reason(error))
    return None


def _is_known(place: Place) -> bool:
    match place:
        case ("apps", app, field):
            return (
                _APP_NAME_PATTERN.fullmatch(app) is not None and field in AppSettings.model_fields
            )
        case (field,):
            return field not in DERIVED_FIELDS and field in Settings.model_fields
        case _:
            return False


def _suggestion(place: Place, name: str) -> str:
    match place:
        case (_, app, _) if _APP_NAME_PATTERN.fullmatch(app):
            pass
        case ("apps", _, *_, field) if field in AppSettings.model_fields:
            return _(
                ": the name of an app has at most 63 letters (a to z), digits, - and _, the first a"
                " letter or digit, and no __ within"
            )
        case _:
            app = "default"
    known: list[Place] = [
        (field,) for field in Settings.model_fields if field not in DERIVED_FIELDS
    ]
    known += [("apps", app, field) for field in AppSettings.model_fields]
    # A field of an app is often written without its app, so it is compared alone too.
    texts = {"__".join(place): place for place in known} | {place[-1]: place for place in known}
    close = difflib.get_close_matches("__".join(place), texts, n=1, cutoff=0.75)
    if not close:
        return _(": deploy/docs/settings.md lists them all")
    return _(": did you mean {name}{what}?").format(
        name=_name(texts[close[0]]), what="_FILE" if name.endswith("_FILE") else ""
    )


def _name(place: Place) -> str:
    return PREFIX + "__".join(place).upper()


def _default_data_dir(environ: Mapping[str, str]) -> Path:
    """Return the default directory of the embedded PostgreSQL's data.

    For root it is not the home directory: the server then runs as another user.
    """
    if os.geteuid() == 0 or not environ.get("HOME"):
        return Path("/var/lib/dispatcher")
    data_home = environ.get("XDG_DATA_HOME") or f"{environ['HOME']}/.local/share"
    return Path(data_home, "dispatcher")
