"""Operators' rules: template checks, suppression list, limits by recipient, quiet hours.

All rules are optional, and messages of an app without rules are not checked. The history that
rules need (`ClaimFacts`) is read with the claim.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, time
from decimal import Decimal
from hashlib import blake2b
from typing import Final

from msgspec import Struct, field

from dispatcher.core.codes import number_code
from dispatcher.core.country import quiet_for
from dispatcher.core.language import N_, _
from dispatcher.core.message import Message, to_e164
from dispatcher.core.outcome import Deferred, Outcome, Rejected
from dispatcher.core.templates import Template, template_mismatch

MAX_URGENT_PRIORITY = 1  # messages up to this priority ignore quiet hours
DAILY_LIMIT: Final = "daily-limit"  # the code of what waits for the next day
_MINUTE_SECONDS, _HOUR_SECONDS = 60.0, 3600.0


class Limits(Struct, frozen=True):
    """The limits of one app; None: no limit."""

    per_minute: int | None = None  # messages to one number
    per_day: int | None = None
    same_per_minute: int | None = None  # of the same template and variables
    same_per_hour: int | None = None
    daily_limit: int | None = None  # messages of the app a day (UTC+8)
    quiet_from: time | None = None  # by the recipient's clock
    quiet_until: time | None = None

    @property
    def by_number(self) -> bool:
        """Whether a limit counts messages by number."""
        limits = (self.per_minute, self.per_day, self.same_per_minute, self.same_per_hour)
        return any(limit is not None for limit in limits)


class Rules(Struct, frozen=True):
    """All rules, as last read."""

    templates: Mapping[str, Template] = {}
    limits: Mapping[str, Limits] = {}  # by app
    suppressing: bool = False  # whether any number is on the list
    promotional: frozenset[str] = frozenset()  # apps
    # Nothing of them is sent: an operator wrote a rule, and it is not known what it says.
    unreadable_templates: frozenset[str] = frozenset()
    unreadable_limits: frozenset[str] = frozenset()  # of apps

    def is_promotional(self, app: str, template_id: str) -> bool:
        """Return whether messages of *app* with this template are promotional."""
        template = self.templates.get(template_id)
        if template is None or template.promotional is None:
            return app in self.promotional
        return template.promotional

    def concern(self, app: str) -> bool:
        """Return whether messages of *app* must be checked."""
        templates = self.templates or self.unreadable_templates
        return bool(templates) or self.suppressing or app in self.limits

    def unreadable(self) -> dict[str, str]:
        """Return the rules that cannot be read, each with what follows and what to do."""
        limits = {
            f"limits of {app}": (
                f"They cannot be read, and nothing of {app} is sent: set or remove them"
                " (`dispatcher limit`)."
            )
            for app in sorted(self.unreadable_limits)
        }
        return limits | {
            f"template {template_id}": (
                "It cannot be read, and no message with it is sent: define it anew or remove it"
                " (`dispatcher template`)."
            )
            for template_id in sorted(self.unreadable_templates)
        }


class Suppressed(Struct, frozen=True):
    """A number on the suppression list."""

    recipient: str
    reason: str
    source: str
    added_at: datetime
    app: str = ""  # only messages of this app; empty: of every app
    promotional: bool = False  # only promotional messages

    @property
    def scope(self) -> str:
        """What is not sent to the number, in words."""
        return describe_scope(self.app, promotional=self.promotional) or _("everything")


class RuleList(Struct, frozen=True):
    """The rules as shown to operators."""

    templates: list[tuple[Template, str]]  # each with its note
    limits: dict[str, Limits]  # by app
    today: dict[str, int]  # messages of each app with a daily limit, sent since 00:00 UTC+8
    suppressed: list[Suppressed]  # the newest
    prices: dict[str, tuple[Decimal, str]]  # of a segment, with its currency, by country
    texts: dict[str, str]  # of templates, by id, where it is known


class RecipientUsage(Struct):
    """The messages that one number had from an app; same texts are counted by digest."""

    minute: int = 0
    day: int = 0
    same_minute: Counter[int] = field(default_factory=Counter)
    same_hour: Counter[int] = field(default_factory=Counter)


class ClaimFacts(Struct, frozen=True):
    """The history of the messages of one claim, from the database."""

    suppressed: Collection[str] = frozenset()  # numbers in canonical form
    unsubscribed: Collection[str] = frozenset()  # the same, for promotional messages only
    used: Mapping[str, RecipientUsage] = {}  # by number in canonical form
    left: int | None = None  # messages until the daily limit; None: there is none


def evaluate_rules(
    messages: Iterable[Message],
    rules: Rules,
    limits: Limits,
    facts: ClaimFacts,
    *,
    app: str,
    now: datetime,
    country: Callable[[str], str],
) -> dict[int, Outcome]:
    """Return the outcomes of the messages of *app* that must not be sent now, by id.

    Later messages of a claim are checked as if the earlier ones were sent already. *now* is in
    UTC; *country* returns the country of a number, and is called only if there are quiet hours.
    """
    used = {number: _copy_usage(each) for number, each in facts.used.items()}
    left = facts.left
    decided: dict[int, Outcome] = {}
    for message in messages:
        outcome = _withheld(message, app, rules, facts) or _quiet(message, limits, now, country)
        if outcome is None and limits.by_number:
            outcome = _over_limit(
                message, limits, used.setdefault(to_e164(message.recipient), RecipientUsage())
            )
        if outcome is None and left is not None:
            if left <= 0:
                outcome = Deferred(message, DAILY_LIMIT, 0.0, counted=False)
            left -= 1
        if outcome is not None:
            decided[message.id] = outcome
    return decided


def describe_scope(app: str, *, promotional: bool) -> str:
    """Return what a suppression stops, in words; the empty text if it stops everything."""
    if not app and not promotional:
        return ""
    of = app or _("every app")
    if promotional:
        return _("promotion of {app}").format(app=of)
    return _("everything of {app}").format(app=of)


def describe_limits(limits: Limits) -> str:
    """Return *limits* as one line of text."""
    parts = [
        _(words).format(count=f"{value:,}")
        for value, words in (
            (limits.per_minute, N_("{count} a minute to a number")),
            (limits.per_day, N_("{count} a day to a number")),
            (limits.same_per_minute, N_("{count} a minute of the same text to a number")),
            (limits.same_per_hour, N_("{count} an hour of the same text to a number")),
            (limits.daily_limit, N_("{count} a day in all")),
        )
        if value is not None
    ]
    if limits.quiet_from is not None and limits.quiet_until is not None:
        parts.append(
            _("quiet from {begin} to {end}").format(
                begin=f"{limits.quiet_from:%H:%M}", end=f"{limits.quiet_until:%H:%M}"
            )
        )
    return _(", ").join(parts) or _("no limits")


def text_digest(message: Message) -> int:
    """Return a digest of template and params, in 63 bits: equal for messages of the same text."""
    text = "\0".join((message.template_id, *message.params)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1


def _withheld(message: Message, app: str, rules: Rules, facts: ClaimFacts) -> Outcome | None:
    if message.template_id in rules.unreadable_templates:
        return Deferred(message, "unreadable-rule", _MINUTE_SECONDS, counted=False)
    if facts.suppressed or facts.unsubscribed:
        number = to_e164(message.recipient)
        code = None
        if number in facts.suppressed:
            code = "suppressed"
        elif number in facts.unsubscribed and rules.is_promotional(app, message.template_id):
            code = "unsubscribed"
        if code is not None:
            return Rejected(message, code, number_code(code).meaning)
    template = rules.templates.get(message.template_id)
    if template is not None and (why := template_mismatch(template, message.params)) is not None:
        return Rejected(message, "template-mismatch", why)
    return None


def _quiet(
    message: Message, limits: Limits, now: datetime, country: Callable[[str], str]
) -> Outcome | None:
    begin, end = limits.quiet_from, limits.quiet_until
    if begin is None or end is None or message.priority <= MAX_URGENT_PRIORITY:
        return None
    wait = quiet_for(country(message.recipient), begin, end, now=now)
    return Deferred(message, "quiet-hours", wait, counted=False) if wait > 0 else None


def _over_limit(message: Message, limits: Limits, used: RecipientUsage) -> Outcome | None:
    text = text_digest(message)
    for limit, had, wait in (
        (limits.per_day, used.day, _HOUR_SECONDS),
        (limits.same_per_hour, used.same_hour[text], _HOUR_SECONDS / 6),
        (limits.per_minute, used.minute, _MINUTE_SECONDS),
        (limits.same_per_minute, used.same_minute[text], _MINUTE_SECONDS),
    ):
        if limit is not None and had >= limit:
            return Deferred(message, "recipient-limit", wait, counted=False)
    used.day += 1
    used.minute += 1
    used.same_hour[text] += 1
    used.same_minute[text] += 1
    return None


def _copy_usage(used: RecipientUsage) -> RecipientUsage:
    return RecipientUsage(used.minute, used.day, Counter(used.same_minute), Counter(used.same_hour))
