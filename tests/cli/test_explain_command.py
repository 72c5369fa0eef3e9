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
    ],
)
async def test_a_code_is_explained(operate, code, words):
    ended = await operate("explain", code)
    assert ended.code == 0
    assert words in " ".join(ended.out.split())
