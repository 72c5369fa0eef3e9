"""The page's result codes: the HTTP status each comes with, and the message it carries.

Source: batchSendDiffSms, Table 8 (of the whole request) and Table 7 (of one number). The page's
wording is kept, for a client may show it.
"""

from typing import Final

from msgspec import Struct

ACCEPTED: Final = "000000"
DUPLICATE: Final = "E200041"
BAD_TEMPLATE: Final = "E200028"


class TopCode(Struct, frozen=True):
    """A result code of the whole request."""

    http_status: int
    message: str  # goes out as `description`


class RefusedError(Exception):
    """A request is refused as a whole.

    *detail* says what exactly is wrong, and holds no number, no parameter and no secret.
    *http_status* overrules the one the page gives the code.
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
    # Older servers say this where the page says E000510 (facts, The answer).
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
    """Return the row of *code*; a code the page does not know goes out with HTTP 400."""
    return TOP_CODES.get(code, TopCode(400, "Unknown error."))
