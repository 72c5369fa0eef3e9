"""The country of a number, and the hours it may be there: for quotas and quiet hours."""

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from types import MappingProxyType

import phonenumbers

from dispatcher.core.message import to_e164


def country(recipient: str) -> str:
    """Return the ISO 3166 code of *recipient*'s country, or ``+<calling code>`` without one.

    The provider limits by country, and several countries share a calling code (+1, +7, +44), so
    a prefix is not enough; the library carries the numbering plans.
    """
    number = to_e164(recipient)
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return number[:4]
    return phonenumbers.region_code_for_number(parsed) or f"+{parsed.country_code}"


# From the zones of each country in the IANA database (release 2025b), lowest and highest offset of
# a year. A country with several zones, or with summer time, has a range: its night is then taken to
# last while it is night at either end. So nobody is woken, and some wait longer than they must; in
# return no time-zone database is needed, which a minimal machine does not have. China has one time.

_DAY = timedelta(days=1)

# Lowest and highest offset from UTC in minutes, and the countries (ISO 3166).
_TABLE = """
 -660  -660 AS NU
 -660  +720 UM
 -600  -600 CK
 -600  -540 PF
 -600  -240 US
 -480  -480 PN
 -480  -300 MX
 -480  -150 CA
 -360  -360 BZ CR GT HN NI SV
 -360  -300 EC
 -360  -180 CL
 -300  -300 CO JM KY PA PE
 -300  -240 BS CU HT TC
 -300  -120 BR
 -240  -240 AG AI AW BB BL BO BQ CW DM DO GD GP GY KN LC MF MQ MS PR SX TT VC VE VG VI
 -240  -180 BM
 -240    +0 GL
 -180  -180 AR FK GF PY SR UY
 -180  -120 PM
 -180  +780 AQ
 -120  -120 GS
  -60   -60 CV
  -60   +60 PT
   +0    +0 BF CI GH GM GN GW IS LR ML MR SH SL SN ST TG
   +0   +60 EH FO GB GG IE IM JE MA
   +0  +120 ES
  +60   +60 AO BJ CF CG CM DZ GA GQ NE NG TD TN
  +60  +120 AD AL AT BA BE CD CH CZ DE DK FR GI HR HU IT LI LU MC ME MK MT NL NO PL RS SE
  +60  +120 SI SJ SK SM VA
 +120  +120 BI BW LS LY MW MZ NA RW SD SS SZ ZA ZM ZW
 +120  +180 AX BG CY EE EG FI GR IL LB LT LV MD PS RO UA
 +120  +720 RU
 +180  +180 BH BY DJ ER ET IQ JO KE KM KW MG QA SA SO SY TR TZ UG YE YT
 +210  +210 IR
 +240  +240 AE AM AZ GE MU OM RE SC
 +270  +270 AF
 +300  +300 KZ MV PK TF TJ TM UZ
 +330  +330 IN LK
 +345  +345 NP
 +360  +360 BD BT IO KG
 +390  +390 CC MM
 +420  +420 CX KH LA TH VN
 +420  +480 MN
 +420  +540 ID
 +480  +480 CN BN HK MO MY PH SG TW
 +480  +660 AU
 +540  +540 JP KP KR PW TL
 +600  +600 GU MP
 +600  +660 FM PG
 +660  +660 NC SB VU
 +660  +720 NF
 +720  +720 FJ MH NR TV WF
 +720  +825 NZ
 +720  +840 KI
 +780  +780 TK TO WS
"""


def _read(table: str) -> Mapping[str, tuple[timedelta, timedelta]]:
    offsets: dict[str, tuple[timedelta, timedelta]] = {}
    for line in table.strip().splitlines():
        lowest, highest, *countries = line.split()
        for country in countries:
            offsets[country] = timedelta(minutes=int(lowest)), timedelta(minutes=int(highest))
    return MappingProxyType(offsets)


OFFSETS = _read(_TABLE)
_LONGEST = timedelta(hours=22)  # a country as wide as Russia still has two hours of day


def quiet_for(country: str, begin: time, end: time, *, now: datetime) -> float:
    """Return for how many seconds it is still quiet in *country*; 0 if it is not.

    Quiet is from *begin* to *end* by the clocks there, over midnight if *end* is the earlier.
    Where a country lies that is not in the table nobody knows, so it is never quiet there. *now*
    is in UTC.
    """
    if country not in OFFSETS or begin == end:
        return 0.0
    lowest, highest = OFFSETS[country]
    whole = (_clock(end) - _clock(begin)) % _DAY
    # By UTC it begins in the east, at the highest offset, and ends in the west, at the lowest.
    longest = max(whole, min(whole + highest - lowest, _LONGEST))
    gone = (_clock(now.time()) - _clock(begin) + highest) % _DAY
    return (longest - gone).total_seconds() if gone < longest else 0.0


def _clock(clock: time) -> timedelta:
    return timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second)
