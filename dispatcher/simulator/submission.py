"""A request body, checked against the page's tables 4 and 5.

What breaks the form of a parameter is E000503, what is no request at all is E000027; the page
gives both codes without telling them apart.
"""

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct, field

from dispatcher.simulator.codes import RefusedError
from dispatcher.simulator.options import Options

MAX_NUMBERS: Final = 500  # one more, and none of them is sent to (Notes)
MAX_BYTES: Final = 65_536  # the page says it of smsContent; here the whole body must keep it

# All numbers of the request at once, joined by commas: one match instead of five hundred.
# Any other character in a number fails the whole request (documented of the sibling API).
_NUMBERS = re.compile(r"\+?[0-9]++(?:,\+?[0-9]++)*+")
_EXTEND = re.compile(r"[^\s{}]+")


class Entry(Struct, frozen=True, gc=False, rename="camel"):
    """One element of smsContent."""

    to: Annotated[list[Annotated[str, Meta(min_length=1, max_length=21)]], Meta(min_length=1)]
    template_id: Annotated[str, Meta(min_length=1, max_length=32)]
    template_paras: list[str] = []
    signature: Annotated[str, Meta(max_length=32)] | None = None


class Body(Struct, frozen=True, rename="camel"):
    """The body as the page defines it."""

    sms_content: Annotated[list[Entry], Meta(min_length=1)]
    sender: Annotated[str, Meta(min_length=1, max_length=21)] | None = field(
        name="from", default=None
    )
    status_callback: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    extend: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class Submission(Struct, frozen=True):
    """A request that is well-formed: what the rest of the simulator works with."""

    body: Body
    numbers: list[str]  # of all entries, in order
    joined: str  # the same, joined by commas

    @property
    def token(self) -> str | None:
        """What `extend` carried."""
        return self.body.extend


_DECODER = msgspec.json.Decoder(Body)


def read_submission(body: bytes, content_type: str, options: Options) -> Submission:
    """Read *body*. Raises RefusedError with what is wrong with it."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise RefusedError("E000027", "Content-Type is not application/json")
    if len(body) > MAX_BYTES:
        raise RefusedError("E000027", f"the body has {len(body)} bytes, more than {MAX_BYTES}")
    try:
        decoded = _DECODER.decode(body)
    except msgspec.ValidationError as wrong:  # names the field, never its value
        raise RefusedError("E000503", str(wrong)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RefusedError("E000027", "the body is not JSON") from None
    entries = decoded.sms_content
    numbers = (
        entries[0].to if len(entries) == 1 else [number for entry in entries for number in entry.to]
    )
    counted = len(numbers)
    if options.numbers_per == "entry":
        counted = max(len(entry.to) for entry in entries)
    if counted > MAX_NUMBERS:
        raise RefusedError("E000027", f"{counted} numbers, more than {MAX_NUMBERS}")
    joined = ",".join(numbers)
    if joined.count(",") != len(numbers) - 1 or _NUMBERS.fullmatch(joined) is None:
        raise RefusedError("E000503", "a number holds something else than digits and a leading +")
    if decoded.extend is not None and _EXTEND.fullmatch(decoded.extend) is None:
        raise RefusedError("E000503", "extend holds a blank or a brace")
    if decoded.sender is None and not all(entry.signature for entry in entries):
        raise RefusedError("E000503", "neither from nor signature")
    return Submission(decoded, numbers, joined)
