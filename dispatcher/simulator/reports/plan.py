"""Which reports an accepted request brings, in which order. Pure, but for the dice it is given."""

from collections.abc import Iterator
from random import Random
from typing import Final

from msgspec import Struct

from dispatcher.simulator.ledger import Accepted, Row
from dispatcher.simulator.reports.options import ReportOptions

MAX_BATCH: Final = 50  # reports in one post (facts, Status reports)
INTERIM: Final = "ACCEPTD"

_CARRIER, _PLATFORM = "2", "1"  # `source`


class Report(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """One status report, as it goes out; every value is text there."""

    sms_msg_id: str
    total: str
    sequence: str
    status: str
    source: str
    org_code: str
    update_time: str | None = None  # not when the platform made the report up
    extend: str | None = None
    to: str | None = None  # only if extend was sent


class Plan(Struct, frozen=True):
    """The reports of one request."""

    reports: list[Report]
    lost: int


def plan_reports(accepted: Accepted, options: ReportOptions, dice: Random, *, updated: str) -> Plan:
    """Return the reports of *accepted*, copies included, in the order of sending."""
    reports: list[Report] = []
    lost = 0
    for report in _each(accepted, options, dice, updated):
        if options.lost and dice.random() < options.lost:
            lost += 1
            continue
        reports.append(report)
        if options.duplicates and dice.random() < options.duplicates:
            reports.append(report)
    if options.reorder:
        dice.shuffle(reports)
    return Plan(reports, lost)


def _each(
    accepted: Accepted, options: ReportOptions, dice: Random, updated: str
) -> Iterator[Report]:
    statuses = list(options.mix)
    weights = list(options.mix.values())
    for row in accepted.rows():
        status = dice.choices(statuses, weights)[0]
        for sequence in range(1, row.total + 1):
            if options.mix_by == "segment":
                status = dice.choices(statuses, weights)[0]
            if options.interim and dice.random() < options.interim:
                yield _report(row, sequence, INTERIM, options, updated)
            yield _report(row, sequence, status, options, updated)


def _report(row: Row, sequence: int, status: str, options: ReportOptions, updated: str) -> Report:
    made_up = is_made_up(status)
    number = row.number
    if options.mainland_to == "canonical" and not number.startswith("+"):
        number = "+86" + number
    return Report(
        sms_msg_id=row.sms_msg_id,
        total=str(row.total),
        sequence=str(sequence),
        status=status,
        source=_PLATFORM if made_up else _CARRIER,
        org_code="000" if status == "DELIVRD" else status,
        update_time=None if made_up else updated,
        extend=row.token,
        to=None if row.token is None else number,
    )


def is_made_up(status: str) -> bool:
    """Say whether the platform itself makes this status up, for want of the carrier's."""
    return status == "EXPIRED" or status.startswith(("E2000", "E0006"))
