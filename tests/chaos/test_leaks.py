"""What looks for leaks at the end of a storm finds them."""

import json

import pytest
from support.provider import SECRET

from chaos.application import NUMBERS, TEXT
from chaos.leaks import leaks

PASSWORD = "pass-9b1c"
TOLD = [
    *(number.format(4711) for number in NUMBERS),
    *(f"to=%2B{number.format(4711).lstrip('+')}&x" for number in NUMBERS),
    json.dumps({"event": "x", "why": TEXT.format(815)}),
    f"Authorization: {SECRET}",
    f"postgresql://postgres:{PASSWORD}@127.0.0.1/d",
]
HARMLESS = [
    "postgresql://postgres:***@127.0.0.1/d",
    "+86138****4711",
    '{"timestamp":"2026-11-22T22:11:27.123456Z","batch":"9cfe8be7ac58ee84e26b8213e202ea74"}',
]


@pytest.mark.parametrize("line", TOLD)
def test_a_whole_number_a_text_or_a_secret_is_found_wherever_it_is_said(tmp_path, line):
    log = tmp_path / "worker-0001.log"
    log.write_text("\n".join((*HARMLESS, line, "")))
    assert len(leaks(tmp_path, (), [PASSWORD])) == 1
    log.unlink()
    assert len(leaks(tmp_path, [*HARMLESS, line], [PASSWORD])) == 1


def test_what_is_masked_is_no_leak(tmp_path):
    assert not leaks(tmp_path, HARMLESS, [PASSWORD])
