"""The provider's codes, and ours: what each means, what to do, and of which kind it is.

Sources: provider.md, The answer and Gateway answers. Only the kind decides what happens to a
message (see core.outcome); console and commands show the meaning and the advice.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.code_table import published_rows
from dispatcher.core.language import ENGLISH, N_, _, language

Level = Literal["number", "request", "ours"]


class Kind(StrEnum):
    """The effect of a code on a number or a request; core.outcome acts on it."""

    ACCEPTED = "accepted"
    LATER = "later"  # flow control: passes with time, and requires a slower rate
    NOT_READY = "not ready"  # passes within minutes, or never
    PERMANENT = "permanent"  # this message can never be sent as it is
    DUPLICATE = "duplicate"  # another copy of the number went out
    UNKNOWN = "unknown"  # a code without a row
    RESULT = "result"  # each number has its own result
    AMBIGUOUS = "ambiguous"  # one entry fails the request, or the provider has an outage
    CONTENT = "content"  # one entry fails the whole request
    CONFIGURATION = "configuration"  # nothing can be sent until our settings are corrected
    CLOCK = "clock"  # nothing can be sent until our clock is right
    ACCOUNT = "account"  # nothing can be sent until the account is in order
    ADDRESS = "address"  # nothing can be sent until our address is on the white list
    QUOTA = "quota"  # nothing can be sent until tomorrow
    COUNTRY = "country"  # nothing can be sent to one country until tomorrow
    NOT_SENT = "not sent"  # refused before the API saw it: safe to send again
    UNKNOWN_RESULT = "unknown result"  # may have been sent


class Code(Struct, frozen=True):
    """A row of the table."""

    code: str
    level: Level
    kind: Kind
    meaning: str  # one line
    advice: str  # one line: what to do


__all__ = ["NUMBER", "OURS", "REQUEST", "Code", "Kind", "number_code", "request_code"]

_RESUMES = "The app is probed, and continues by itself."
_HEADER = (
    "Check DISPATCHER_APPS__<NAME>__AUTH, and that no proxy on the way changes headers. " + _RESUMES
)
_SETTING = "Check DISPATCHER_APPS__<NAME>__APP_KEY, __APP_SECRET and __ENDPOINT. " + _RESUMES
_TEMPLATE = "Compare template, sender and signature in the provider's console; then requeue."
_CLOCK = "Set the clock of this machine right (NTP). " + _RESUMES
_ENDPOINT = "Check DISPATCHER_APPS__<NAME>__ENDPOINT, and proxies on the way. " + _RESUMES
_SIGNATURE = (
    "Check DISPATCHER_APPS__<NAME>__APP_KEY, __APP_SECRET, and the clock here (NTP). " + _RESUMES
)
_UNSURE = "A report or a late answer settles it; else ask the provider, then `dispatcher settle`."
_NOTHING = "Nothing to do: it is sent again automatically."
# Firewalls of web applications answer so, that of Huawei Cloud with 418: to what a request holds,
# or to an address that they have banned.
_FIREWALL = (
    "A firewall in front of the API refuses the request, or what one of its messages contains."
)
_FIREWALL_ADVICE = (
    "Look at the variables of messages with this code, or ask the provider. " + _RESUMES
)

_NUMBER = (
    ("000000", Kind.ACCEPTED, "The provider took the message.", "Nothing to do; reports follow."),
    (
        "E200015",
        Kind.LATER,
        "Too many messages wait at the provider; it did not take this one.",
        "Nothing: it is sent again later, and more slowly. If it lasts, lower the rate limit.",
    ),
    (
        "E200028",
        Kind.PERMANENT,
        "The variables do not fit the template.",
        "Compare number, kind and length of params with the template; insert it anew.",
    ),
    ("E200029", Kind.PERMANENT, "The type of the template does not fit.", _TEMPLATE),
    (
        "E200030",
        Kind.NOT_READY,
        "The template is not active.",
        "A new template takes some 5 minutes. If it is older, activate it, then requeue.",
    ),
    (
        "E200031",
        Kind.PERMANENT,
        "Number, sender or app key failed the provider's protocol check.",
        "Check key and sender in the provider's console, else ask the provider; then requeue.",
    ),
    ("E200033", Kind.PERMANENT, "The template is of the wrong type for the sender.", _TEMPLATE),
    (
        "E200041",
        Kind.DUPLICATE,
        "The number stood twice in one request; its first copy was sent.",
        "Do not send it again: another copy went out.",
    ),
)
_REQUEST = (
    ("000000", Kind.RESULT, "The provider took the request.", "Nothing to do; see the numbers."),
    (
        "E000000",
        Kind.AMBIGUOUS,
        "System error: mostly malformed variables, seldom the provider's own trouble.",
        "Compare params with the template; if all messages fail, ask the provider. Then requeue.",
    ),
    ("E000001", Kind.CONFIGURATION, "The header Authorization is missing.", _HEADER),
    ("E000002", Kind.CONFIGURATION, "Authorization lacks its realm.", _HEADER),
    ("E000003", Kind.CONFIGURATION, "Authorization lacks its profile.", _HEADER),
    ("E000004", Kind.CONFIGURATION, "The realm in Authorization is not SDP.", _HEADER),
    ("E000005", Kind.CONFIGURATION, "The profile in Authorization is wrong.", _HEADER),
    ("E000006", Kind.CONFIGURATION, "The type in Authorization is not Appkey.", _HEADER),
    ("E000007", Kind.CONFIGURATION, "Authorization lacks its type.", _HEADER),
    ("E000008", Kind.CONFIGURATION, "Authorization does not begin with WSSE.", _HEADER),
    ("E000020", Kind.CONFIGURATION, "The header X-WSSE is missing.", _HEADER),
    ("E000021", Kind.CONFIGURATION, "X-WSSE lacks its Username.", _HEADER),
    ("E000022", Kind.CONFIGURATION, "X-WSSE lacks its Nonce.", _HEADER),
    ("E000023", Kind.CONFIGURATION, "X-WSSE lacks its time, Created.", _HEADER),
    ("E000024", Kind.CONFIGURATION, "X-WSSE lacks its PasswordDigest.", _HEADER),
    ("E000025", Kind.CONFIGURATION, "The time in X-WSSE, Created, has a wrong form.", _HEADER),
    ("E000026", Kind.CONFIGURATION, "X-WSSE does not begin with UsernameToken.", _HEADER),
    (
        "E000027",
        Kind.CONTENT,
        "A parameter of the request is invalid.",
        "Check recipient, sender, template, params and signature of the message; insert it anew.",
    ),
    (
        "E000040",
        Kind.CONFIGURATION,
        "The request reached another API of the provider, one that takes forms.",
        _ENDPOINT,
    ),
    ("E000041", Kind.CONFIGURATION, "The header X-Sdk-Date is missing.", _HEADER),
    ("E000042", Kind.CONFIGURATION, "X-Sdk-Date has a wrong form.", _HEADER),
    ("E000043", Kind.CONFIGURATION, "Authorization has a wrong form.", _HEADER),
    ("E000044", Kind.CLOCK, "Our time is over 15 minutes off, says the provider.", _CLOCK),
    (
        "E000045",
        Kind.CONFIGURATION,
        "The signature is wrong.",
        "Check DISPATCHER_APPS__<NAME>__APP_SECRET, and that no proxy changes Host. " + _RESUMES,
    ),
    (
        "E000503",
        Kind.CONTENT,
        "A parameter of the request has a wrong form.",
        "Check recipient, sender, template, params and signature of the message; insert it anew.",
    ),
    (
        "E000510",
        Kind.RESULT,
        "Some numbers of the request failed.",
        "See the code of each number.",
    ),
    (
        "E200037",
        Kind.RESULT,
        "Some numbers of the request failed (an older server's E000510).",
        "See the code of each number.",
    ),
    (
        "E000101",
        Kind.ACCOUNT,
        "Authentication failed.",
        "Check DISPATCHER_APPS__<NAME>__APP_KEY, __APP_SECRET, __AUTH, __WSSE_DIGEST. " + _RESUMES,
    ),
    ("E000102", Kind.ACCOUNT, "The app key is wrong, or not known at this endpoint.", _SETTING),
    ("E000103", Kind.ACCOUNT, "The app key is out of use.", "Ask the provider about its state."),
    ("E000104", Kind.ACCOUNT, "The app secret is wrong.", _SETTING),
    (
        "E000105",
        Kind.ACCOUNT,
        "The digest in X-WSSE is wrong.",
        "Check DISPATCHER_APPS__<NAME>__APP_SECRET, then try __WSSE_DIGEST=raw. " + _RESUMES,
    ),
    ("E000106", Kind.ACCOUNT, "The app may not send SMS.", "Ask the provider to permit it."),
    ("E000109", Kind.ACCOUNT, "The account is deactivated.", "Ask the provider to activate it."),
    ("E000110", Kind.CLOCK, "Our time is over 24 hours off, says the provider.", _CLOCK),
    ("E000111", Kind.ACCOUNT, "No account belongs to the app key.", "Ask the provider."),
    (
        "E000112",
        Kind.ACCOUNT,
        "The account is frozen: out of money, or for a violation.",
        "Top up the account, or ask the provider. " + _RESUMES,
    ),
    (
        "E000620",
        Kind.ADDRESS,
        "Our network address is not on the application's white list.",
        "Add it in the provider's console; that takes 10 to 15 minutes. " + _RESUMES,
    ),
    (
        "E000623",
        Kind.QUOTA,
        "The account's quota of messages is spent.",
        "Ask the provider for more, then `dispatcher resume`; else it goes on after 00:00 UTC+8.",
    ),
    (
        "E000630",
        Kind.COUNTRY,
        "The account's quota of messages to one country is spent.",
        "Raise the country's threshold in the provider's console; it is tried again every hour.",
    ),
    (
        "HTTP 400",
        Kind.CONFIGURATION,
        "Something in front of the API refused the request as malformed.",
        _ENDPOINT,
    ),
    (
        "HTTP 401",
        Kind.CONFIGURATION,
        "Something in front of the API wants other credentials.",
        _ENDPOINT,
    ),
    ("HTTP 403", Kind.CONFIGURATION, "Something in front of the API keeps us out.", _ENDPOINT),
    ("HTTP 404", Kind.CONFIGURATION, "The API is not at this endpoint.", _ENDPOINT),
    ("HTTP 405", Kind.CONFIGURATION, "What is at this endpoint is not the API.", _ENDPOINT),
    ("HTTP 406", Kind.UNKNOWN, _FIREWALL, _FIREWALL_ADVICE),
    ("HTTP 407", Kind.CONFIGURATION, "A proxy on the way wants credentials.", _ENDPOINT),
    ("HTTP 408", Kind.UNKNOWN_RESULT, "A proxy waited too long for the request.", _UNSURE),
    (
        "HTTP 413",
        Kind.CONTENT,
        "Something in front of the API finds the request too long.",
        "Ask the operator of the proxy to allow bodies of 64 KB; then requeue.",
    ),
    ("HTTP 418", Kind.UNKNOWN, _FIREWALL, _FIREWALL_ADVICE),
    (
        "APIGW.0101",
        Kind.CONFIGURATION,
        "A gateway knows no such API at this endpoint.",
        _ENDPOINT,
    ),
    ("APIGW.0103", Kind.CONFIGURATION, "A gateway does not find the API behind it.", _ENDPOINT),
    ("APIGW.0201", Kind.CONFIGURATION, "A gateway refused the request as malformed.", _ENDPOINT),
    ("APIGW.0301", Kind.CONFIGURATION, "A gateway refused the signature.", _SIGNATURE),
    (
        "APIGW.0302",
        Kind.ACCOUNT,
        "A gateway refused the account: it may not use this API.",
        "Ask the provider to permit it. " + _RESUMES,
    ),
    ("APIGW.0303", Kind.CONFIGURATION, "A gateway refused the app's signature.", _SIGNATURE),
    ("APIGW.0308", Kind.NOT_SENT, "A gateway limits the requests.", _NOTHING),
    ("APIG.0108", Kind.CONFIGURATION, "A gateway knows no such API at this endpoint.", _ENDPOINT),
    (
        "APIG.0204",
        Kind.CONFIGURATION,
        "A gateway does not accept the TLS version.",
        "Update OpenSSL on this machine, or the proxy on the way. " + _RESUMES,
    ),
    ("APIG.0308", Kind.NOT_SENT, "A gateway limits the requests.", _NOTHING),
    ("HTTP 429", Kind.NOT_SENT, "Something in front of the API asks to wait.", _NOTHING),
    ("HTTP 500", Kind.UNKNOWN_RESULT, "The provider failed over the request.", _UNSURE),
    ("HTTP 502", Kind.UNKNOWN_RESULT, "A proxy lost the API over the request.", _UNSURE),
    ("HTTP 503", Kind.UNKNOWN_RESULT, "A proxy lost the API, or it is out of service.", _UNSURE),
    ("HTTP 504", Kind.UNKNOWN_RESULT, "A proxy waited too long for the API.", _UNSURE),
)
UNREACHABLE, NEVER_SENT, MISSING_RESULT = "unreachable", "never-sent", "missing-result"
UNKNOWN_RESULTS, ALL_REFUSED = "unknown-results", "all-refused"  # an open circuit, see core.circuit
SET_ASIDE = "set-aside"  # a row that ends whatever reads it
WRITE_REFUSED = "write-refused"  # what waits because the database refuses what becomes of it
_OURS = (
    (
        UNREACHABLE,
        Kind.NOT_SENT,
        "The provider cannot be reached.",
        "Check network, DNS and DISPATCHER_APPS__<NAME>__ENDPOINT. " + _RESUMES,
    ),
    (
        UNKNOWN_RESULTS,
        Kind.UNKNOWN_RESULT,
        "Requests in a row had unknown results: more would make more messages unsure.",
        "It is probed without messages, and then starts slowly. Settle what is unsure.",
    ),
    (
        ALL_REFUSED,
        Kind.CONFIGURATION,
        "Different messages in a row were refused, and none was accepted.",
        "Check DISPATCHER_APPS__<NAME>__SENDER, CALLBACK_URL and templates. " + _RESUMES,
    ),
    ("no-answer", Kind.UNKNOWN_RESULT, "The answer to the request was lost.", _UNSURE),
    ("timeout", Kind.UNKNOWN_RESULT, "No answer came within the time allowed.", _UNSURE),
    ("unreadable", Kind.UNKNOWN_RESULT, "The answer to the request cannot be read.", _UNSURE),
    (
        "stopped",
        Kind.UNKNOWN_RESULT,
        "The worker was stopped before the answer came.",
        _UNSURE,
    ),
    ("worker-lost", Kind.UNKNOWN_RESULT, "The worker died over the request.", _UNSURE),
    ("record-lost", Kind.UNKNOWN_RESULT, "The database lost its result.", _UNSURE),
    ("not-recorded", Kind.UNKNOWN_RESULT, "The database refuses the answer.", _UNSURE),
    (MISSING_RESULT, Kind.UNKNOWN_RESULT, "The answer does not name the number.", _UNSURE),
    (NEVER_SENT, Kind.NOT_SENT, "It was returned to the queue before anything was sent.", _NOTHING),
    (
        "settled-by-operator",
        Kind.ACCEPTED,
        "Settled by hand or by the app's policy.",
        "Nothing to do.",
    ),
    (
        "settled-by-report",
        Kind.ACCEPTED,
        "Settled by a report: the provider has it.",
        "Nothing to do.",
    ),
    (
        "expired",
        Kind.PERMANENT,
        "Its time was over before it could be sent.",
        "Requeue it if it is still wanted.",
    ),
    (
        "no-sender",
        Kind.PERMANENT,
        "It has neither sender nor signature.",
        "Set DISPATCHER_APPS__<NAME>__SENDER, or sender on insert; then requeue.",
    ),
    (
        "too-long",
        Kind.PERMANENT,
        "Alone it makes a request over 64 KB.",
        "Insert it anew with shorter params.",
    ),
    (
        "only-to",
        Kind.PERMANENT,
        "Its number is none of those that this app may send to (ONLY_TO).",
        "Nothing: the setting keeps a test from reaching others. Else change it, then requeue.",
    ),
    (
        "country-not-allowed",
        Kind.PERMANENT,
        "Its country is none of those that this app may send to (COUNTRIES).",
        "Nothing; or add the country to DISPATCHER_APPS__<NAME>__COUNTRIES, then requeue.",
    ),
    (
        SET_ASIDE,
        Kind.PERMANENT,
        "Its row cannot be read or prepared; the others are sent.",
        "See the worker's log for the error, repair the row or insert it anew; then requeue.",
    ),
    (
        WRITE_REFUSED,
        Kind.LATER,
        "The database refuses to write its request or its outcome, and may take it later.",
        "See the worker's log, and correct the trigger or constraint: it is tried every 10 min.",
    ),
    (
        "suppressed",
        Kind.PERMANENT,
        "Its number is on the list of numbers never to send to.",
        "Nothing; or take the number off the list (`dispatcher suppress --remove`), then requeue.",
    ),
    (
        "unsubscribed",
        Kind.PERMANENT,
        "Its number takes no promotional messages: unsubscribed, or on a block list.",
        "Nothing: codes and notices to the number are still sent.",
    ),
    (
        "template-mismatch",
        Kind.PERMANENT,
        "Its variables do not fit the template, as it is defined here.",
        "Insert it anew with variables that fit; or correct the template (`dispatcher template`).",
    ),
    (
        "recipient-limit",
        Kind.LATER,
        "Its number has had as many messages as the app's limits allow.",
        "Nothing: it is sent when the limits allow it.",
    ),
    (
        "quiet-hours",
        Kind.LATER,
        "It is night where it would be read.",
        "Nothing: it is sent when the quiet hours are over. Priorities 0 and 1 do not wait.",
    ),
    (
        "unreadable-rule",
        Kind.LATER,
        "The definition of its template cannot be read.",
        "Define the template anew (`dispatcher template`), or remove it; it is sent then.",
    ),
    (
        "daily-limit",
        Kind.QUOTA,
        "The app has sent as many messages today as its daily limit allows.",
        "Raise the limit (`dispatcher limit`) and resume; else it goes on after 00:00 UTC+8.",
    ),
)


def _table(level: Level, rows: Iterable[tuple[str, Kind, str, str]]) -> Mapping[str, Code]:
    by_code = {code: Code(code, level, kind, text, advice) for code, kind, text, advice in rows}
    return MappingProxyType(by_code)


NUMBER = _table("number", _NUMBER)
REQUEST = _table("request", _REQUEST)
OURS = _table("ours", _OURS)
_SHOW = N_("Ask the provider what the code means; then requeue, or let it be.")


def number_code(code: str) -> Code:
    """Return the row of a code of one number, in the reader's language.

    A code of requests keeps its meaning there, but has no effect: its kind is UNKNOWN. Only a spent
    quota, of the account or of one country, has the same effect for a number.
    """
    row = NUMBER.get(code) or OURS.get(code)
    if row is not None:
        return _translated(row)
    if code in REQUEST:
        row = _translated(REQUEST[code])
        kind = row.kind if row.kind in {Kind.QUOTA, Kind.COUNTRY} else Kind.UNKNOWN
        return replace(row, level="number", kind=kind)
    return _published(code, "number")


def request_code(code: str) -> Code:
    """Return the row of a code of a whole request, in the reader's language.

    An HTTP status without a row is treated as its class: 3xx and 4xx were not sent, 5xx may have
    been.
    """
    row = REQUEST.get(code) or NUMBER.get(code) or OURS.get(code)
    if row is not None:
        return _translated(row)
    if code.startswith(("APIG", "MSGSMS.")):
        meaning = _("A gateway in front of the API refused the request: {code}.")
        return _shown(code, Kind.CONFIGURATION, meaning, _ENDPOINT)
    if code.startswith(("HTTP 3", "HTTP 4")):
        meaning = _("Something in front of the API refused the request: {code}.")
        return _shown(code, Kind.CONFIGURATION, meaning, _ENDPOINT)
    if code.startswith("HTTP "):
        meaning = _("Something in front of the API failed over the request: {code}.")
        return _shown(code, Kind.UNKNOWN_RESULT, meaning, _UNSURE)
    return _published(code, "request")


def _published(code: str, level: Level) -> Code:
    """Return a row without effect, with the words of the provider's published table."""
    for row in (*published_rows("number", code), *published_rows("report", code)):
        if code in row.codes:
            return Code(code, level, Kind.UNKNOWN, _(row.meaning), _(row.advice))
    meaning = _("An unknown code: {code}.").format(code=code)
    return Code(code, level, Kind.UNKNOWN, meaning, _(_SHOW))


def _shown(code: str, kind: Kind, meaning: str, advice: str) -> Code:
    return Code(code, "request", kind, meaning.format(code=code), _(advice))


def _translated(row: Code) -> Code:
    if language() == ENGLISH:
        return row
    return replace(row, meaning=_(row.meaning), advice=_(row.advice))
