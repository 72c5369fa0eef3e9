"""`dispatcher explain`: every published code, wherever it stands."""

import pytest


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("E200028", "variables"),
        ("e000629", "package"),
        ("MI:0079", "report"),
        ("MB:9999", "SMS centre"),
        ("DELIVRD", "handset"),
        ("APIGW.0301", "signature"),
        ("HTTP 503", "request"),
        ("suppressed", "dispatcher"),
        ("ONLY-TO", "dispatcher"),
        (" E200028 ", "variables"),  # as it was copied
        ("\u200bE200028", "variables"),
        ("\uff2d\uff22\uff1a9999", "SMS centre"),
    ],
)
async def test_a_code_is_explained(operate, code, words):
    ended = await operate("explain", code)
    assert ended.code == 0
    assert words in " ".join(ended.out.split())


@pytest.mark.parametrize("code", ["", " ", "\u200b"])
async def test_no_code_is_a_mistake(operate, code):
    ended = await operate("explain", code)
    assert (ended.code, ended.line) == (2, "dispatcher: give a code, such as E200028.")
