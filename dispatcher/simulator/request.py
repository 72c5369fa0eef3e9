"""One request of the API: its result codes, its body, and the checks of its form.

The codes and their texts are those of the API reference (batchSendDiffSms, Tables 7 and 8). The
wording is kept because a client may show it. The body is checked against Tables 4 and 5. A
parameter of the wrong form is E000503; a body that is no request at all is E000027. The reference
lists both codes and does not say where one ends and the other begins.
"""

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct, field

from dispatcher.simulator.options import Options

ACCEPTED: Final = "000000"
DUPLICATE: Final = "E200041"
BAD_TEMPLATE: Final = "E200028"


class TopCode(Struct, frozen=True):
    """A result code of the whole request."""

    http_status: int
    message: str  # sent as `description`


class RequestRefusedError(Exception):
    """The provider refuses the whole request.

    *detail* says what is wrong and holds no number, no parameter and no secret. *http_status*
    replaces the status that the API reference gives the code.
    """

    def __init__(self, code: str, detail: str = "", http_status: int | None = None) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.http_status = http_status or top_code(code).http_status


TOP_CODES: Final[dict[str, TopCode]] = {
    "000000": TopCode(200, "Success"),
    "E000000": TopCode(400, "System error."),
    "E000001": TopCode(400, "Authorization not contained in the HTTP header."),
    "E000002": TopCode(400, "realm not contained in Authorization."),
    "E000003": TopCode(400, "profile not contained in Authorization."),
    "E000004": TopCode(400, "The value of realm in Authorization must be SDP."),
    "E000005": TopCode(400, "The value of profile in Authorization must be UsernameToken."),
    "E000006": TopCode(400, "The value of type in Authorization must be app_key."),
    "E000007": TopCode(400, "type not contained in Authorization."),
    "E000008": TopCode(400, "WSSE not contained in Authorization."),
    "E000020": TopCode(400, "X-WSSE not contained in the HTTP header."),
    "E000021": TopCode(400, "UserName not contained in X-WSSE."),
    "E000022": TopCode(400, "Nonce not contained in X-WSSE."),
    "E000023": TopCode(400, "Created not contained in X-WSSE."),
    "E000024": TopCode(400, "PasswordDigest not contained in X-WSSE."),
    "E000025": TopCode(400, "The format of Created is incorrect."),
    "E000026": TopCode(400, "UsernameToken not contained in X-WSSE."),
    "E000027": TopCode(400, "Invalid request."),
    "E000041": TopCode(400, "X-Sdk-Date header is empty."),
    "E000042": TopCode(400, "The format of X-Sdk-Date header is invalid."),
    "E000043": TopCode(400, "The format of Authorization header is incorrect."),
    "E000044": TopCode(400, "X-Sdk-Date is expired."),
    "E000045": TopCode(400, "Authorization verify failed."),
    "E000503": TopCode(400, "The parameter format is incorrect."),
    "E000510": TopCode(400, "The SMS fails to be sent. For details, see Status."),
    # Older servers use it where the reference has E000510 (provider.md, The answer).
    "E200037": TopCode(400, "The SMS fails to be sent. For details, see Status."),
    "E000101": TopCode(401, "Authentication failed."),
    "E000102": TopCode(401, "Invalid app_key."),
    "E000103": TopCode(401, "The status of the app_key is unavailable."),
    "E000104": TopCode(401, "Invalid app_secret."),
    "E000105": TopCode(401, "Invalid digest."),
    "E000106": TopCode(401, "The app_key is not allowed to invoke this API."),
    "E000109": TopCode(401, "The user status is deactivated."),
    "E000110": TopCode(401, "Time out limit."),
    "E000111": TopCode(401, "Incorrect username or password."),
    "E000112": TopCode(401, "The subscriber status is frozen."),
    "E000620": TopCode(403, "The app client ip is not in ip white list."),
    "E000623": TopCode(403, "Number of SMSs sent by the SP reached the limit."),
    "E000630": TopCode(403, "Number of SMSs sent by the SP reached the country/region limit."),
}

NUMBER_CODES: Final[dict[str, str]] = {
    "000000": "Request succeeded.",
    "E200015": "Too many SMSs are waiting to be sent.",
    "E200028": "Failed to verify the template.",
    "E200029": "Failed to verify the template type.",
    "E200030": "The template is not activated.",
    "E200031": "Failed to verify the protocol.",
    "E200033": "The template type is incorrect.",
    "E200041": "The recipient numbers of the same SMS are duplicate.",
}


def top_code(code: str) -> TopCode:
    """Return the row of *code*. A code that is not in the table has HTTP status 400."""
    return TOP_CODES.get(code, TopCode(400, "Unknown error."))


MAX_NUMBERS: Final = 500  # with one more, the provider sends to none of them (Notes)
MAX_BODY_BYTES: Final = (
    65_536  # the reference limits smsContent; here the limit holds for the whole body
)

# Matches all numbers of a request, joined by commas: one match instead of five hundred.
# Any other character in a number fails the whole request (documented for the sibling API).
_NUMBERS_PATTERN = re.compile(r"\+?[0-9]++(?:,\+?[0-9]++)*")
_EXTEND_PATTERN = re.compile(r"[^\s{}]+")


class ContentEntry(Struct, frozen=True, gc=False, rename="camel"):
    """One element of smsContent."""

    to: Annotated[list[Annotated[str, Meta(min_length=1, max_length=21)]], Meta(min_length=1)]
    template_id: Annotated[str, Meta(min_length=1, max_length=32)]
    template_paras: list[str] = []
    signature: Annotated[str, Meta(max_length=32)] | None = None


class RequestBody(Struct, frozen=True, rename="camel"):
    """The body as the API reference defines it."""

    sms_content: Annotated[list[ContentEntry], Meta(min_length=1)]
    sender: Annotated[str, Meta(min_length=1, max_length=21)] | None = field(
        name="from", default=None
    )
    status_callback: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    extend: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class SmsRequest(Struct, frozen=True):
    """A well-formed request. The rest of the simulator works with it."""

    body: RequestBody
    numbers: list[str]  # of all entries, in order
    joined: str  # the same, joined by commas

    @property
    def token(self) -> str | None:
        """The value of `extend`."""
        return self.body.extend


_DECODER = msgspec.json.Decoder(RequestBody)


def read_request(body: bytes, content_type: str, options: Options) -> SmsRequest:
    """Read *body*. Raises RequestRefusedError with the code of the first mistake."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise RequestRefusedError("E000027", "Content-Type is not application/json")
    if len(body) > MAX_BODY_BYTES:
        raise RequestRefusedError(
            "E000027", f"the body has {len(body)} bytes, more than {MAX_BODY_BYTES}"
        )
    try:
        decoded = _DECODER.decode(body)
    except msgspec.ValidationError as wrong:  # names the field, never its value
        raise RequestRefusedError("E000503", str(wrong)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RequestRefusedError("E000027", "the body is not JSON") from None
    entries = decoded.sms_content
    numbers = (
        entries[0].to if len(entries) == 1 else [number for entry in entries for number in entry.to]
    )
    counted = len(numbers)
    if options.numbers_per == "entry":
        counted = max(len(entry.to) for entry in entries)
    if counted > MAX_NUMBERS:
        raise RequestRefusedError("E000027", f"{counted} numbers, more than {MAX_NUMBERS}")
    joined = ",".join(numbers)
    if joined.count(",") != len(numbers) - 1 or _NUMBERS_PATTERN.fullmatch(joined) is None:
        raise RequestRefusedError(
            "E000503", "a number holds something else than digits and a leading +"
        )
    if decoded.extend is not None and _EXTEND_PATTERN.fullmatch(decoded.extend) is None:
        raise RequestRefusedError("E000503", "extend holds a blank or a brace")
    if decoded.sender is None and not all(entry.signature for entry in entries):
        raise RequestRefusedError("E000503", "neither from nor signature")
    return SmsRequest(decoded, numbers, joined)
