"""Success and time of delivery by app, template and country, beside what is usual."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import quantiles
from typing import Final

from msgspec import Struct

from dispatcher.core.status import DeliveredMessage

ENOUGH_MESSAGES: Final = 20  # of a group, to compare it
WORSE_SHARE: Final = 0.05  # of delivered messages, less than usual
WORSE_TIMES: Final = 2.0  # as slow as usual
WORSE_SECONDS: Final = 5.0  # slower than usual, at least


class DeliveryFigures(Struct, frozen=True):
    """How messages of one group were delivered."""

    messages: int
    share: float  # delivered, 0 to 1
    median: float | None  # seconds to the report; None: nothing was delivered
    most: float | None  # 95 % were faster


class DeliveryGroup(Struct, frozen=True):
    """One app, template or country: now, and as usual."""

    kind: str  # app, template or country
    name: str
    now: DeliveryFigures
    usual: DeliveryFigures | None  # None: too few messages before

    @property
    def fewer(self) -> bool:
        """Whether fewer are delivered than usual."""
        if self.usual is None or self.now.messages < ENOUGH_MESSAGES:
            return False
        return self.now.share < self.usual.share - WORSE_SHARE

    @property
    def slower(self) -> bool:
        """Whether delivery takes longer than usual."""
        now, usual = self.now, self.usual
        if usual is None or now.messages < ENOUGH_MESSAGES:
            return False
        if now.median is None or usual.median is None:
            return False
        return now.median > max(WORSE_TIMES * usual.median, usual.median + WORSE_SECONDS)


def delivery_groups(
    now: Iterable[DeliveredMessage],
    before: Iterable[DeliveredMessage],
    *,
    country: Callable[[str], str],
) -> list[DeliveryGroup]:
    """Return the groups of *now*, those that are worse than in *before* first."""
    present, usual = _figures(now, country), _figures(before, country)
    groups = [
        DeliveryGroup(kind, name, figures, _if_enough(usual.get((kind, name))))
        for (kind, name), figures in present.items()
    ]
    kinds = ("app", "template", "country")
    return sorted(
        groups,
        key=lambda each: (
            not (each.fewer or each.slower),
            kinds.index(each.kind),
            -each.now.messages,
            each.name,
        ),
    )


def _if_enough(figures: DeliveryFigures | None) -> DeliveryFigures | None:
    return figures if figures is not None and figures.messages >= ENOUGH_MESSAGES else None


def _figures(
    messages: Iterable[DeliveredMessage], country: Callable[[str], str]
) -> dict[tuple[str, str], DeliveryFigures]:
    groups: defaultdict[tuple[str, str], list[DeliveredMessage]] = defaultdict(list)
    countries: dict[str, str] = {}
    for each in messages:
        prefix = "+86" if each.recipient.startswith("+86") else each.recipient
        if prefix not in countries:
            countries[prefix] = country(each.recipient)
        groups["app", each.app].append(each)
        groups["template", each.template_id].append(each)
        groups["country", countries[prefix]].append(each)
    return {key: _of_group(group) for key, group in groups.items()}


def _of_group(group: list[DeliveredMessage]) -> DeliveryFigures:
    seconds = [each.seconds for each in group if each.delivered]
    cuts = quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else seconds * 19
    return DeliveryFigures(
        len(group),
        len(seconds) / len(group),
        cuts[9] if cuts else None,
        cuts[18] if cuts else None,
    )
