"""The country of a number, and whether it is quiet there: for quotas and quiet hours.

The zones of a country come from the time zone database (`zone.tab` of the package tzdata, which a
minimal machine needs anyway: it has no zones of its own). A number says its country and not its
zone, so a country with several zones is taken to be quiet while it is quiet in any of them: no
message arrives at night, and some wait longer than they must.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from functools import cache, lru_cache
from importlib import resources
from types import MappingProxyType
from zoneinfo import ZoneInfo

import phonenumbers

from dispatcher.core.message import to_e164

_DAY = timedelta(days=1)
_MAX_QUIET = timedelta(hours=22)  # a country as wide as Russia still has two hours of day
# China has one legal time, +08:00. zone.tab also lists Urumqi, at +06:00, whose local time is not
# the official one.
_ONE_ZONE = {"CN": ("Asia/Shanghai",)}
# Kosovo, Ascension and Tristan da Cunha have numbers of their own, and no line in zone.tab.
_BESIDE_ZONE_TAB = {
    "XK": ("Europe/Belgrade",),
    "AC": ("Atlantic/St_Helena",),
    "TA": ("Atlantic/St_Helena",),
}
# Guam and the Northern Marianas: with them and Hawaii it is night in +1 at every hour.
_FAR_FROM_THE_OTHERS = ("GU", "MP")

# Of the numbering plans, as ISO 3166 writes them: the United Kingdom is GB.
COUNTRIES = frozenset(phonenumbers.SUPPORTED_REGIONS)
_CALLING_CODE = re.compile(r"\+[1-9][0-9]{0,2}")


def country(recipient: str) -> str:
    """Return the ISO 3166 code of *recipient*'s country, or ``+<calling code>`` without one.

    The provider limits by country, and several countries share a calling code (+1, +7, +44), so
    a prefix is not enough; the library carries the numbering plans. Of a shared code they do not
    know every number; and those of satellites are of no country.
    """
    number = to_e164(recipient)
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return number[:4]
    found = phonenumbers.region_code_for_number(parsed)
    return found if found in COUNTRIES else f"+{parsed.country_code}"


def countries_of(text: str) -> frozenset[str]:
    """Return what `country` may return for numbers of *text*; empty: it names no country.

    *text*, by a person, is a country's two letters, or a calling code, which stands for all of its
    countries. One that several share also stands for its numbers that no numbering plan has.
    """
    word = text.strip().upper()
    if word in COUNTRIES:
        return frozenset({word})
    if not _CALLING_CODE.fullmatch(word):
        return frozenset()
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(word), ())
    found = COUNTRIES.intersection(regions)
    return found if len(found) == 1 or not regions else found | {word}


def country_of(text: str) -> str | None:
    """Return the one name that `country` has for *text*; None if it names no country.

    The calling code of one country is that country; one that several share names what the
    numbering plans do not know of it.
    """
    found = countries_of(text)
    return next(iter(found)) if len(found) == 1 else text.strip() if found else None


def _read_zones(zone_tab: str) -> Mapping[str, tuple[str, ...]]:
    """Return the names of the zones of each country, as `country` names it.

    *zone_tab* is the text of zone.tab, which has those of ISO 3166.
    """
    zones: defaultdict[str, list[str]] = defaultdict(list)
    for line in zone_tab.splitlines():
        if line and not line.startswith("#"):
            code, _coordinates, zone, *_comment = line.split("\t")
            zones[code].append(zone)
    known = {code: tuple(names) for code, names in zones.items()} | _ONE_ZONE | _BESIDE_ZONE_TAB
    return MappingProxyType(known | _shared_zones(known))


def _shared_zones(zones: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the zones of the calling codes that several countries share, of all of them."""
    return {
        f"+{code}": tuple(
            {
                zone: None
                for region in regions
                if region not in _FAR_FROM_THE_OTHERS
                for zone in zones.get(region, ())
            }
        )
        for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items()
        if len(regions) > 1
    }


ZONES = _read_zones(resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text("utf-8"))


def quiet_for(country: str, begin: time, end: time, *, now: datetime) -> float:
    """Return for how many seconds it is still quiet in *country*; 0 if it is not.

    Args:
        country: its name, as `country` returns it. Only satellites have no zones; for them it is
            never quiet.
        begin: when it begins to be quiet, by the clocks there.
        end: when it ends; on the next day if it is earlier than *begin*.
        now: the time in UTC. The offsets of this minute count, so a message that waits over a
            change of the clocks may wait an hour too long.
    """
    if country not in ZONES or begin == end:
        return 0.0
    lowest, highest = _offsets(country, now.replace(second=0, microsecond=0))
    whole = (_clock(end) - _clock(begin)) % _DAY
    # By UTC it begins in the east, at the highest offset, and ends in the west, at the lowest.
    longest = max(whole, min(whole + highest - lowest, _MAX_QUIET))
    gone = (_clock(now.time()) - _clock(begin) + highest) % _DAY
    return (longest - gone).total_seconds() if gone < longest else 0.0


@cache
def _zones(country: str) -> tuple[ZoneInfo, ...]:
    return tuple(map(ZoneInfo, ZONES[country]))


@lru_cache(maxsize=1024)  # a claim asks for the same few countries in the same minute
def _offsets(country: str, now: datetime) -> tuple[timedelta, timedelta]:
    """Return the lowest and the highest offset from UTC that the clocks of *country* show."""
    local = now.astimezone(UTC)
    offsets = [local.astimezone(zone).utcoffset() or timedelta() for zone in _zones(country)]
    return min(offsets), max(offsets)


def _clock(clock: time) -> timedelta:
    return timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second)
