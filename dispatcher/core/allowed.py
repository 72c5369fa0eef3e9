"""What numbers an app may send to at all: a guard for tests, and for countries nobody pays for."""

from collections.abc import Callable

from msgspec import Struct

from dispatcher.core.message import to_e164

_MAINLAND_PREFIX, _MAINLAND = "+86", "CN"


class AllowedNumbers(Struct, frozen=True):
    """The numbers and the countries that an app may send to; None: all."""

    numbers: frozenset[str] | None = None  # canonical
    prefixes: tuple[str, ...] = ()  # beside *numbers*
    countries: frozenset[str] | None = None  # as core.country names them

    @property
    def all(self) -> bool:
        """Whether nothing is refused."""
        return self.numbers is None and self.countries is None

    def refusal(self, recipient: str, *, country: Callable[[str], str]) -> str | None:
        """Return the code of the refusal of *recipient*; None if it is allowed."""
        number = to_e164(recipient)
        if (
            self.numbers is not None
            and number not in self.numbers
            and not number.startswith(self.prefixes)
        ):
            return "only-to"
        if self.countries is None:
            return None
        mainland = number.startswith(_MAINLAND_PREFIX)
        home = _MAINLAND if mainland else country(recipient)  # its look-up takes 20 µs
        return None if home in self.countries else "country-not-allowed"
