"""The table of codes has all that the provider's page has, and explains each."""

import pytest

from dispatcher.core.code_table import published_rows
from dispatcher.core.codes import NUMBER, OURS, REQUEST, Kind, number_code, request_code

# Copied from the page batchSendDiffSms of 2024-10-25.
TABLE_7 = """
000000: Request succeeded.
E200015: Too many SMSs are waiting to be sent.
E200028: Failed to verify the template.
E200029: Failed to verify the template type.
E200030: The template is not activated.
E200031: Failed to verify the protocol.
E200033: The template type is incorrect.
E200041: The recipient numbers of the same SMS are duplicate.
"""
TABLE_8 = """
000000 Success.
E000000 System error.
E000001 Authorization not contained in the HTTP header.
E000002 realm not contained in Authorization.
E000003 profile not contained in Authorization.
E000004 The value of realm in Authorization must be SDP.
E000005 The value of profile in Authorization must be UsernameToken.
E000006 The value of type in Authorization must be app_key.
E000007 type not contained in Authorization.
E000008 WSSE not contained in Authorization.
E000020 X-WSSE not contained in the HTTP header.
E000021 UserName not contained in X-WSSE.
E000022 Nonce not contained in X-WSSE.
E000023 Created not contained in X-WSSE.
E000024 PasswordDigest not contained in X-WSSE.
E000025 The format of Created is incorrect.
E000026 UsernameToken not contained in X-WSSE.
E000027 Invalid request.
E000041 X-Sdk-Date header is empty.
E000042 The format of X-Sdk-Date header is invalid.
E000043 The format of Authorization header is incorrect.
E000044 X-Sdk-Date is expired.
E000045 Authorization verify failed.
E000503 The parameter format is incorrect.
E000510 The SMS fails to be sent. For details, see Status.
E000101 Authentication failed.
E000102 Invalid app_key.
E000103 The status of the app_key is unavailable.
E000104 Invalid app_secret.
E000105 Invalid digest.
E000106 The app_key is not allowed to invoke this API.
E000109 The user status is deactivated.
E000110 Time out limit.
E000111 Incorrect username or password.
E000112 The subscriber status is frozen.
E000620 The app client ip is not in ip white list.
E000623 Number of SMSs sent by the SP reached the limit.
E000630 Number of SMSs sent by the SP reached the country/region limit.
"""
# provider.md, The answer: older servers' E000510, and a code of the form API
OF_THE_FIELD = {"E200037", "E000040"}


def codes(table: str) -> set[str]:
    return {line.replace(":", " ").split()[0] for line in table.strip().splitlines()}


def test_every_number_code_of_the_page_has_a_row_and_no_other():
    assert set(NUMBER) == codes(TABLE_7)


def test_every_result_code_of_the_page_has_a_row_and_no_other():
    ours = {code for code in REQUEST if code.startswith(("HTTP ", "APIG"))}
    assert set(REQUEST) - ours == codes(TABLE_8) | OF_THE_FIELD


def test_every_row_has_its_code_its_level_and_two_sentences():
    for table, level in ((NUMBER, "number"), (REQUEST, "request"), (OURS, "ours")):
        for code, row in table.items():
            assert (row.code, row.level) == (code, level)
            for text in (row.meaning, row.advice):
                assert 10 < len(text) < 140, code
                assert text[0].isupper(), code
                assert text.endswith("."), code
                assert "\n" not in text, code


@pytest.mark.parametrize("code", ["E000040", "HTTP 404", "APIG.0108"])
def test_a_request_that_reached_another_api_is_said_to_have(code):
    row = request_code(code)
    assert row.kind is Kind.CONFIGURATION
    assert "API" in row.meaning
    assert "__ENDPOINT" in row.advice
    assert "__AUTH" not in row.advice


@pytest.mark.parametrize(("code", "kind"), [("E000623", Kind.QUOTA), ("E000630", Kind.COUNTRY)])
def test_a_spent_quota_means_the_same_at_a_number(code, kind):
    assert (number_code(code).level, number_code(code).kind) == ("number", kind)


@pytest.mark.parametrize("code", [f"E2000{n}" for n in range(18, 28)] + ["E200032", "SC:0016"])
def test_a_published_code_is_known_wherever_it_stands(code):
    (published,) = published_rows("report", code)
    for row in (number_code(code), request_code(code)):
        assert row.meaning == published.meaning
        assert row.advice == published.advice
        assert row.kind is Kind.UNKNOWN  # it is shown, and nothing is sent again by itself


@pytest.mark.parametrize("code", ["E299999", "E000045", "E000620", "", "whatever"])
def test_a_number_code_without_a_row_is_unknown(code):
    row = number_code(code)
    assert (row.code, row.level, row.kind) == (code, "number", Kind.UNKNOWN)
    assert row.meaning == REQUEST[code].meaning if code in REQUEST else code in row.meaning
    assert row.advice


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("E999999", Kind.UNKNOWN),
        ("E200015", Kind.LATER),
        ("HTTP 301", Kind.CONFIGURATION),
        ("HTTP 451", Kind.CONFIGURATION),
        ("HTTP 406", Kind.UNKNOWN),
        ("HTTP 418", Kind.UNKNOWN),
        ("HTTP 408", Kind.UNKNOWN_RESULT),
        ("HTTP 429", Kind.NOT_SENT),
        ("HTTP 503", Kind.UNKNOWN_RESULT),
        ("HTTP 500", Kind.UNKNOWN_RESULT),
        ("HTTP 502", Kind.UNKNOWN_RESULT),
        ("HTTP 504", Kind.UNKNOWN_RESULT),
        ("HTTP 599", Kind.UNKNOWN_RESULT),
    ],
)
def test_a_request_code_has_the_kind_of_its_row_or_class(code, kind):
    row = request_code(code)
    assert (row.code, row.kind) == (code, kind)
    assert row.meaning
    assert row.advice


def test_the_tables_cannot_be_changed():
    with pytest.raises(TypeError):
        NUMBER["E1"] = NUMBER["000000"]
