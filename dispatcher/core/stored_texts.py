"""Texts that the database keeps in English, and their form in another language.

A reason of an outcome or a pause and the result of an action are stored as sentences, some with
values in them. `stored_text` recognises them by their English form where they are shown; the words
of a provider or an operator stay as they are.
"""

import re
from functools import cache, lru_cache

from dispatcher.core.format import sentences
from dispatcher.core.language import ENGLISH, N_, _, language

# Texts with values, as core, db and the SQL functions write them.
STORED_TEXTS = (
    N_("An unknown code: {code}."),
    N_("A gateway in front of the API refused the request: {code}."),
    N_("Something in front of the API refused the request: {code}."),
    N_("Something in front of the API failed over the request: {code}."),
    N_("That was attempt {attempt}."),
    N_("It expires before the next try."),
    N_("it expired before it could be sent"),
    N_('It said: "{words}".'),
    N_("There is no result for any number."),
    N_("The answer has a result for none of the numbers."),
    N_(
        "They cannot be read, and nothing of {name} is sent: set or remove them"
        " (`dispatcher limit`)."
    ),
    N_(
        "It cannot be read, and no message with it is sent: define it anew or remove it"
        " (`dispatcher template`)."
    ),
    N_("They cannot be read, and nothing is sent: {kind}."),
    N_("It fails again and again, while other parts can use the database: {why}."),
    N_("a statement took too long, or its connection broke"),
    N_("a value cannot be processed ({kind})"),
    N_("It has {variables}, and the template takes {count}."),
    N_("Variable {place} is no {kind}: {rule}."),
    N_("digits only, at most {most}"),
    N_("at most {most} characters, no braces"),
    N_("a date"),
    N_("a time"),
    N_("a date or a time"),
    N_("at most 15 digits, + and -"),
    N_("at most 20 letters and digits"),
    N_("at most 20 digits and ."),
    N_("at most 20 characters, none of . 。 ' < > {{ }}"),
    N_("{count} variables"),
    N_("{count} variable"),
    N_("{changed} of {messages} cancelled"),
    N_("{changed} of {messages} wait again"),
    N_("{changed} of {messages} taken as sent"),
    N_("{changed} of {messages} settled as sent"),
    N_("{changed} of {messages} settled"),
    N_("{messages} cancelled"),
    N_("{messages} wait again"),
    N_("{messages} taken as sent"),
    N_("paused"),
    N_("resumed"),
    N_("defined"),
    N_("removed"),
    N_("added"),
    N_("revoked"),
    N_("set"),
    N_("{count} numbers new"),
    N_("{count} number new"),
    N_("{count} numbers freed"),
    N_("{count} number freed"),
    N_("there is no such template"),
    N_("not settled: the batch is not unsure, or not any more"),
    N_("started as action {id}"),
    N_("ended early: what is left may have been done before the restore"),
    N_("The push is empty."),
    N_("The push is damaged JSON; some reports were read."),
    N_("The push is damaged JSON."),
    N_("The push has no reply."),
    N_("A report of the batch is no object."),
    N_("A report has no smsMsgId, or no status."),
    N_("The smsMsgId of a report is no id."),
    N_("A reply of the push is no object."),
    N_("A reply has no number of its sender."),
    N_("It is a status report, and no reply."),
    N_("there is no campaign {name}"),
    N_("there is no such token"),
    N_("whole numbers"),
    N_("all lines"),
    N_("lines that are not in"),
    N_("all lines again"),
    N_("dropped"),
    N_("erased"),
    N_("{count} left: on their way, or unsure"),
    N_(
        "This is a restored backup: what workers wrote until {at} is missing, and messages wait"
        " since before then. They may have been sent after the backup was made: cancel those, then"
        " resume."
    ),
    N_(
        "This may be a restored backup: no worker was here since {at}, and messages wait since"
        " before then. They may have been sent after the backup was made: cancel those, then"
        " resume."
    ),
    N_("{why} (dispatcher run)"),
    N_(
        "The database may have been restored while this list was loaded: what is left of it may"
        " have been loaded before. Load it again only if it was not."
    ),
    N_(
        "{place} is no directory, so answers and reports are lost if they come while the database"
        " is unavailable: set DISPATCHER_DATA_DIR to a directory of this user."
    ),
    N_(
        "{place} cannot be written to, so answers and reports are lost if they come while the"
        " database is unavailable: set DISPATCHER_DATA_DIR to a directory of this user."
    ),
    N_(
        "This user or database may have {limit} connections (CONNECTION LIMIT), and a worker with"
        " these settings uses up to {needed}: raise it with ALTER ROLE or ALTER DATABASE."
    ),
    N_("The results of {count} of the last requests are unknown. The last: {why} ({code})."),
    N_("The result of a request is unknown again, right after the last pause: {why} ({code})."),
    N_(
        "{count} different messages in a row were refused, and none accepted. The last: {why}"
        " ({code})."
    ),
    N_("{count} different messages in a row were refused, and none accepted ({code})."),
    N_("{count} messages accepted in an hour, and at most {most} in any hour of the last 30 days"),
    N_(
        "{failed} of {count} finished messages were rejected or undelivered: over its limit of"
        " {share}%"
    ),
    N_("not done: {why}"),
    N_("campaign {name} is cancelled for good"),
    N_("campaign {name} is being moved: it goes on when that is done"),
    N_("cancelled: nothing more of it is claimed"),
    N_("moving: workers move what waits"),
    N_("the connection broke: {error}"),
    N_("it might not leave any more"),
    N_("no connection within the connect time-out"),
    N_("no connection: {why}"),
    N_("no connection to the proxy: {why}"),
    N_("the connection was closed without an answer"),
    N_("the connection was closed"),
    N_("connection refused"),
    N_("timed out"),
    N_("no route to the host"),
    N_("the host name is not found"),
    N_("the server does not speak TLS at this port"),
    N_("the server's certificate is not trusted"),
    N_("the server's certificate is expired"),
    N_("the server's certificate is for another host name"),
    N_("the proxy refuses the connection: HTTP {status}"),
    N_("the endpoint is not an address"),
    N_("no answer within {seconds} s"),
    N_("no connection within {seconds} s"),
    N_("the server's certificate is not trusted"),
    N_("the host name is not found"),
    N_("nothing was sent"),
    N_("the answer of the claim was lost"),
    N_("the worker stopped before it wrote an answer"),
    N_("the database has lost the record of its answer"),
    N_("no reason was given"),
    N_("no reason given ({who})"),
    N_("{name} (shared token)"),
    N_("{why} ({name} (shared token))"),
    N_("unsubscribed by a reply"),
    N_("action {id} ({who})"),
    N_("policy: resend"),
    N_("operator: resend"),
    N_("operator: sent"),
    N_("report"),
    N_("late answer"),
    N_("operator"),
    N_("worker"),
    N_("its worker"),
    N_("split"),
    N_("reply"),
)
FAILING_PARTS = (  # as `Rules.unreadable` and a worker name them
    N_("limits of {name}"),
    N_("template {id}"),
    N_("rules of every app"),
    N_("reports"),
    N_("events"),
    N_("spool"),
    N_("connections"),
    N_("maintenance ({what})"),
    N_("partitions made"),
    N_("indexes of full partitions made"),
    N_("numbers of yesterday forgotten"),
    N_("campaigns paused, with too many failures"),
    N_("messages of cancelled campaigns cancelled"),
    N_("counters added to those by hour"),
    N_("uploads of yesterday deleted"),
    N_("apps paused, far over their usual"),
    N_("messages of campaigns moved"),
    N_("steps of actions on many messages"),
    N_("variables looked at, to be wiped"),
    N_("a new partition begun"),
    N_("steps of dropping what is over"),
    N_("old rows deleted"),
    N_("recovery ({what})"),
    N_("requests of dead workers"),
    N_("unsure requests to be sent again"),
    N_("messages that expire"),
    N_("requests of lost claims"),
    N_("messages of a clock ahead"),
)
_SENTENCE_END = re.compile(r"(?<=[.?!]) (?=\S)")
# Fields with what people or systems are called, which may be a word that has a translation.
_NAMES = {"name", "id", "code", "at", "database", "file", "path"}
_FIELD = re.compile(r"\{(\w+)\}")
# Texts of ours are shorter. A longer one is from outside, and would take seconds to compare.
MAX_CHARACTERS, MAX_SENTENCES = 600, 8


def stored_text(text: str, forms: tuple[str, ...] = STORED_TEXTS) -> str:
    """Return a stored text in the language of the present context, sentence by sentence.

    *forms* are the texts with values that it may be.
    """
    if language() == ENGLISH or not text:
        return text
    return _in_language(language(), text, forms)


def suppression_reason(text: str) -> str:
    """Return why a number is suppressed in the reader's language: a text, or a status with one."""
    shown = stored_text(text)
    status, colon, meaning = text.partition(": ")
    if shown == text and colon and (translated := stored_text(meaning)) != meaning:
        return status + _(": ") + translated
    return shown


@lru_cache(maxsize=4096)  # an export has a million reasons, and few different ones
def _in_language(_chosen: str, text: str, forms: tuple[str, ...]) -> str:
    if len(text) > MAX_CHARACTERS or len(_SENTENCE_END.findall(text)) >= MAX_SENTENCES:
        return text
    parts = []
    while text:
        begin, text = _first_known(text, forms)
        parts.append(begin)
    return sentences(*parts)


def _first_known(text: str, forms: tuple[str, ...]) -> tuple[str, str]:
    """Return the longest beginning that is known, translated, and the rest; else a sentence."""
    if (whole := _translated(text, forms)) is not None:
        return whole, ""
    ends = [found.start() for found in _SENTENCE_END.finditer(text)]
    for end in reversed(ends):  # a text may be two sentences
        if (begin := _translated(text[:end], forms)) is not None:
            return begin, text[end + 1 :]
    return (text[: ends[0]], text[ends[0] + 1 :]) if ends else (text, "")


def _translated(text: str, forms: tuple[str, ...]) -> str | None:
    """Return the translation of a whole text; None if it is not one of ours."""
    if (translation := _(text)) != text:
        return translation
    for pattern, form in _patterns(forms):
        if (found := pattern.fullmatch(text)) is not None:
            values = {
                name: value if name in _NAMES else _value(value, forms)
                for name, value in found.groupdict().items()
            }
            return _(form).format(**values)
    return None


def _value(text: str, forms: tuple[str, ...]) -> str:
    """Return a value of a stored text; it may be a sentence without its full stop."""
    translation = stored_text(text, forms)
    if translation == text and not _SENTENCE_END.search(text):
        sentence = f"{text}."
        if (translated := stored_text(sentence, forms)) != sentence:
            return translated.rstrip(".\u3002")
    return translation


@cache
def _patterns(forms: tuple[str, ...]) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Return a pattern for each stored text with values."""
    found = []
    for form in forms:
        if _FIELD.search(form):
            parts = _FIELD.split(form)  # text, name, text, name, ..., text
            parts[::2] = [re.escape(part.format()) for part in parts[::2]]
            parts[1::2] = [f"(?P<{name}>.+)" for name in parts[1::2]]
            found.append((re.compile("".join(parts), re.DOTALL), form))
    return tuple(found)
