"""The types of settings: durations, addresses, tokens.

Each error completes the sentence "DISPATCHER_SOMETHING ..." and says what is valid. No error shows
the value: even an address may hold a password.
"""

import re
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from dispatcher.core.language import _
from dispatcher.core.number import ReadNumber, read_number
from dispatcher.core.reply import plain_word
from dispatcher.core.roles import ROLES, Role

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PATTERN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_VISIBLE = re.compile(r"[!-~]+")  # what a header, a body or an address has as it is written
_MAX_DAYS = 36_500  # of a duration: times that far away can be stored
_MAX_PORT = 65_535
_QUOTES = ('""', "''", "\u201c\u201d", "\u2018\u2019")
# Source networks of the provider's pushes (provider.md, Status reports).
PROVIDER_NETWORKS = (
    "117.78.29.0/24",
    "124.70.27.0/24",
    "124.71.67.0/24",
    "123.60.96.0/24",
    "119.8.109.0/24",
)
ANY_GROUP = "*"  # of roles: everyone who is signed in
_MAX_CALLBACK_LENGTH = 1024  # characters of statusCallback (batchSendDiffSms, Table 4)


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = _DURATION_PATTERN.fullmatch(value.strip().lower())
    if found is None:
        raise ValueError(_('must be a duration such as "30", "500ms", "30s", "15m", "2h" or "7d"'))
    seconds = float(found[1]) * _UNIT_SECONDS[found[2] or "s"]
    if seconds > _MAX_DAYS * _UNIT_SECONDS["d"]:
        raise ValueError(_("must be at most {days} days").format(days=_MAX_DAYS))
    return seconds


def _none(value: object) -> object:
    word = _lower(value)
    if word == "0":  # it may also mean "nothing" or "at once"
        raise ValueError(_("must be more than 0; none stands for no limit"))
    return None if word == "none" else value


def _is_host(name: str) -> bool:
    """Return whether *name* can be looked up: it has no part that is empty or too long."""
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False


def _is_web_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        is_whole = (
            _is_host(parts.hostname or "") and parts.port != 0 and not parts.netloc.endswith(":")
        )
    except ValueError:
        return False
    # urlsplit() takes off what is around an address, and line breaks within it.
    return is_whole and parts.scheme in ("http", "https") and bool(_VISIBLE.fullmatch(value))


def _endpoint(value: str) -> str:
    if not _is_web_address(value) or re.search(r"[/?#@\\]", value.rstrip("/").partition("://")[2]):
        raise ValueError(
            _(
                "must be the address of the provider without a path and blanks, such as"
                " https://smsapi.ap-southeast-1.myhuaweicloud.com:443"
            )
        )
    return value.rstrip("/")


def _proxy(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    if not _is_web_address(value.get_secret_value()) or parts.path.strip("/") or parts.query:
        raise ValueError(
            _(
                "must be the address of a proxy without blanks, such as"
                " http://proxy.example.com:3128"
            )
        )
    return value


def _callback(value: str) -> str:
    if not _is_web_address(value) or len(value) > _MAX_CALLBACK_LENGTH:
        raise ValueError(
            _(
                "must be the public address of the report receiver, such as"
                " https://sms.example.com/reports/TOKEN, at most {max_callback_length}"
                " characters of ASCII without blanks"
            ).format(max_callback_length=_MAX_CALLBACK_LENGTH)
        )
    return value


def _sender(value: str) -> str:
    if not value.isprintable() or " " in value:
        raise ValueError(_("must be the channel number alone, without blanks"))
    return value


def _listen(value: str) -> str:
    host, _sep, port = value.rpartition(":")
    is_host = re.fullmatch(r"\[[^\[\]/]+\]|[^\[\]/]+", host) and _VISIBLE.fullmatch(host)
    if (
        not is_host
        or not _is_host(host)
        or not re.fullmatch(r"[0-9]{1,5}", port)
        or int(port) > _MAX_PORT
    ):
        raise ValueError(_("must be HOST:PORT, such as 127.0.0.1:8080 or [::]:8080"))
    return value


# A host of an address and its port; an IPv6 address stands in brackets.
_HOST_PATTERN = re.compile(r"(\[[^\]@]*\]|[^:\[\]@]*)(:\d*)?")
_WITH_AT_SIGN = {"user", "password", "passfile", "application_name", "options"}


def is_clear_address(dsn: str) -> bool:
    """Return whether all of a PostgreSQL address stands where it is looked for.

    A password with "@", "/", "?" or "#" that are not written as %-codes is cut there, and its
    pieces would be taken for host or database, and shown.
    """
    rest = dsn.partition("://")[2]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path, _sep, query = rest[len(authority) :].partition("?")
    *login, hosts = authority.split("@")
    if "#" in rest or "@" in path or len(login) > 1:
        return False
    if not all(_HOST_PATTERN.fullmatch(host) for host in hosts.split(",")):
        return False
    pairs = (pair.partition("=") for pair in query.split("&"))
    return all("@" not in key + value or key in _WITH_AT_SIGN for key, _, value in pairs)


def _ports(dsn: str) -> list[str]:
    """Return the ports that a clear address names, as they are written."""
    authority, _sep, query = dsn.partition("://")[2].partition("?")
    hosts = authority.partition("/")[0].rpartition("@")[2].split(",")
    ports = [found[1] for host in hosts if (found := re.search(r":(\d*)$", host))]
    for pair in query.split("&"):
        name, _sep, value = pair.partition("=")
        if name == "port":
            ports += unquote(value).split(",")
    return [port for port in ports if port]


def _hosts(dsn: str) -> list[str]:
    """Return the hosts that the driver reads of a clear address, without their ports.

    Raises ValueError if it cannot divide the address.
    """
    parts = urlsplit(dsn)
    if written := parts.netloc.rpartition("@")[2]:
        return [unquote(_without_port(host)) for host in written.split(",")]
    named = parse_qs(parts.query).get("host", [""])[-1]
    return [_without_port(host) for host in named.split(",")]


def _without_port(host: str) -> str:
    found = _HOST_PATTERN.fullmatch(host)
    return found[1] if found else host  # the directory of a socket, or an IPv6 address


def _is_database_host(host: str) -> bool:
    """Return whether *host*, a name, an address or the directory of a socket, can be looked up."""
    if "\0" in host:
        return False
    if host.startswith("/"):
        return True
    if ":" in host or "[" in host:
        try:
            return bool(IPv6Address(re.sub(r"^\[(.*)\]$", r"\1", host)))
        except ValueError:
            return False
    return _is_host(host)


def _has_good_hosts(dsn: str) -> bool:
    try:
        hosts = _hosts(dsn)
    except ValueError:
        return False
    named = [host for host in hosts if host]
    # One host alone is left to the driver: it fails at an empty one beside it, and takes what
    # follows the first colon of a bare IPv6 address for a port.
    alone = len(named) < 2  # noqa: PLR2004 - as FailoverConnector counts
    if alone and (len(hosts) > 1 or re.match(r"[^\[/]*:", hosts[0])):
        return False
    return all(map(_is_database_host, named))


def _is_port(word: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", word) is not None and 0 < int(word) <= _MAX_PORT


def is_address(dsn: str) -> bool:
    """Return whether *dsn* may be that of a PostgreSQL: read whole, with real hosts and ports."""
    return _is_written_well(dsn) and all(map(_is_port, _ports(dsn))) and _has_good_hosts(dsn)


def _is_written_well(dsn: str) -> bool:
    one_line = dsn.isprintable() and dsn == dsn.strip()
    is_whole = all("=" in pair for pair in dsn.partition("?")[2].split("&") if pair)
    of_kind = dsn.startswith(("postgresql://", "postgres://"))
    return one_line and is_whole and of_kind and is_clear_address(dsn)


def _database(value: SecretStr) -> SecretStr:
    dsn = value.get_secret_value()
    if not _is_written_well(dsn):
        raise ValueError(
            _(
                "must be a PostgreSQL address: postgresql://user:password@host:5432/name, in"
                " which special characters of the password are written as %-codes (@ as %40, /"
                " as %2F, # as %23)"
            )
        )
    if not all(map(_is_port, _ports(dsn))):
        raise ValueError(_("must have a port from 1 to {most}, or none").format(most=_MAX_PORT))
    if not is_address(dsn):
        raise ValueError(
            _(
                "must name hosts that can be looked up: no part of a name is empty or over 63"
                " characters, and an IPv6 address stands in brackets"
            )
        )
    return value


def _token(value: SecretStr) -> SecretStr:
    if re.fullmatch(r"[A-Za-z0-9_-]{16,}", value.get_secret_value()) is None:
        raise ValueError(
            _(
                "must be at least 16 letters, digits, - or _, and not to be guessed: python3 -c"
                ' "import secrets; print(secrets.token_urlsafe())" makes one'
            )
        )
    return value


def _header_word(value: str) -> str:
    # It is part of a header: quoted in one method of signing, before a comma in the other.
    if _VISIBLE.fullmatch(value) is None or '"' in value or "," in value:
        raise ValueError(_("must be one word: no blanks, quotes or commas"))
    return value


def _header_name(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", value) is None:  # a token of RFC 9110
        raise ValueError(_("must be the name of a header alone, such as X-Auth-Request-Email"))
    return value


def _secret(value: SecretStr) -> SecretStr:
    # A file with two lines, in UTF-16 or with a blank at its end would make a wrong signature, and
    # nothing else shows why.
    secret = value.get_secret_value()
    if not secret.isprintable() or secret != secret.strip():
        raise ValueError(_("must be the secret alone: one line of text, no blanks around it"))
    return value


def _path(value: Path) -> Path:
    if re.search(r"[\0-\x1f]", str(value)) or not str(value).strip():
        raise ValueError(_("must be one path"))
    if str(value).startswith("~"):  # it would be a folder of this name, in the present folder
        raise ValueError(_("must be a whole path: only a shell replaces ~"))
    return value


def refuse_quotes(value: object) -> object:
    """Raise ValueError if a setting stands in quotes: some readers of files leave them there."""
    if isinstance(value, str) and len(value) > 1 and value[0] + value[-1] in _QUOTES:
        raise ValueError(_("must stand without the quotes around it"))
    return value


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    words = [word for word in re.split(r"[\s,]+", value) if word]
    try:
        networks = [
            ip_network(one, strict=False)
            for word in words
            for one in (PROVIDER_NETWORKS if word.lower() == "provider" else (word,))
        ]
    except ValueError:
        networks = []
    if not networks:  # none at all would stand for any
        raise ValueError(
            _(
                "must be networks such as 10.0.0.0/8 or 192.0.2.7, with commas between them"
                " (`provider` stands for those that the provider has published)"
            )
        )
    return networks


def _console_roles(value: object) -> object:
    """Return roles by group, from ``sms-admins=rules,*=see``."""
    if not isinstance(value, str):
        return value
    pairs = [word.partition("=") for word in re.split(r"[,;]+", value) if word.strip()]
    roles = {group.strip(): role.strip().lower() for group, _, role in pairs}
    valid = all(group and role in ROLES for group, role in roles.items())
    if not roles or len(roles) < len(pairs) or not valid:  # a group twice may have two roles
        raise ValueError(
            _(
                "must be groups with a role each (see, act or rules), such as"
                " sms-admins=rules,sms-operators=act,*=see"
            )
        )
    return roles


def _only_to(value: object) -> object:
    """Return numbers and prefixes in their canonical form, a prefix with its star."""
    if not isinstance(value, str):
        return value
    words: list[str] = []
    for part in filter(None, map(str.strip, re.split("[,;\n\uff0c\uff1b]", value))):
        whole = _allowed_form(part)  # a number may have blanks, or blanks divide numbers
        words += [whole] if whole else map(_allowed_form, part.split())
    if not words or not all(words):
        raise ValueError(
            _(
                "must be numbers with + and country, or what they begin with and a star, such as"
                " +8613112345678,+852*, and at least one"
            )
        )
    return words


def _allowed_form(word: str) -> str:
    """Return a number in its canonical form, or a beginning with its star; empty: it is neither."""
    if re.fullmatch(r"\+[1-9][0-9]*\*", word):
        return word
    read = read_number(word)
    return read.e164 if isinstance(read, ReadNumber) else ""


def _countries(value: object) -> object:
    """Return countries as core.country names them."""
    if not isinstance(value, str):
        return value
    from dispatcher.core.country import countries_of  # noqa: PLC0415 - a tenth of a start

    named = [countries_of(word) for word in re.split(r"[\s,;]+", value) if word]
    if not named or not all(named):
        raise ValueError(
            _(
                "must be countries by their two letters (ISO 3166), such as CN,HK,SG, or by their"
                " calling codes, such as +852; the United Kingdom is GB"
            )
        )
    return frozenset[str]().union(*named)


def _words(value: object) -> object:
    """Return what a reply may consist of to unsubscribe; `none`: nothing unsubscribes."""
    if not isinstance(value, str):
        return value
    if value.strip().lower() == "none":
        return ()
    parts = map(str.strip, re.split(r"[,\uff0c\u3001;\uff1b\n]", value))
    words = [_word(part) for part in parts if part]
    if not words or not all(map(plain_word, words)):
        raise ValueError(
            _(
                "must be words such as R,T,TD,退订, with commas between them, or none; what has"
                ' blanks within stands in quotes, such as R,"STOP ALL"'
            )
        )
    return words


def _word(part: str) -> str:
    """Return a word, or words in quotes, without them; empty: blanks may divide words there."""
    if len(part) > 1 and part[0] + part[-1] in _QUOTES:
        return part[1:-1].strip()
    return "" if re.search(r"\s", part) else part


Word = BeforeValidator(_lower)  # case-insensitive
Unlimited = BeforeValidator(_none)  # "none" means no limit
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
HeaderWord = Annotated[str, AfterValidator(_header_word)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
Flag = Annotated[bool, Word]
OnePath = Annotated[Path, AfterValidator(_path)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
Sender = Annotated[str, Field(min_length=1, max_length=21), AfterValidator(_sender)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
Proxy = Annotated[SecretStr, AfterValidator(_proxy)]
Callback = Annotated[str, AfterValidator(_callback)]
Listen = Annotated[str, AfterValidator(_listen)]
Database = Annotated[SecretStr, AfterValidator(_database)]
Token = Annotated[SecretStr, AfterValidator(_token)]
Networks = Annotated[list[IPv4Network | IPv6Network], BeforeValidator(_networks)]
ConsoleRoles = Annotated[dict[str, Role], BeforeValidator(_console_roles)]
OnlyTo = Annotated[tuple[str, ...], BeforeValidator(_only_to)]
Countries = Annotated[frozenset[str], BeforeValidator(_countries)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
