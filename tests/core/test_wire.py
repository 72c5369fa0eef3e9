"""Requests are encoded, and answers decoded, as documented and as observed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.message import Entry, Message, NoReply, Reply, RequestDraft
from dispatcher.core.wire import content, encode, overhead, read_answer

PAGE_ANSWER = (
    b'{"result":[{"originTo":"+8615512345678","createTime":"2018-05-25T16:34:34Z","from":"10690312'
    b'21280012","smsMsgId":"5963c5be-f189-4c0c-ab2e-7cab0c42c798_52","status":"000000","countryId"'
    b':"CN","total":2}],"code":"000000","description":"Success"}'
)


def said(answer) -> list[tuple]:
    """Return the results of a reply as tuples."""
    assert isinstance(answer, Reply)
    assert answer.results is not None
    return [(r.recipient, r.code, r.provider_id, r.segments, r.country) for r in answer.results]


def read(value: object, http_status: int = 200):
    return read_answer(http_status, json.dumps(value).encode())


def test_a_request_has_the_form_of_the_page():
    first, second, third = (
        Message(1, "+8615512345678", "abcdefghabcdefghabcdefghabcdefgh", ["062569"], "1069"),
        Message(2, "+8615512345679", "abcdefghabcdefghabcdefghabcdefgh", ["062569"], "1069"),
        Message(3, "+8615512345680", "t", [], "1069", signature="华为"),
    )
    request = RequestDraft(
        "1069", [Entry(content(first), [first, second]), Entry(content(third), [third])], 0
    )
    assert encode(request, token="tok", callback="http://205.145.111.168:9330/report") == (
        '{"from":"1069","smsContent":[{"to":["+8615512345678","+8615512345679"],"templateId":'
        '"abcdefghabcdefghabcdefghabcdefgh","templateParas":["062569"]},{"to":["+8615512345680"]'
        ',"templateId":"t","signature":"华为"}],"statusCallback":"http://205.145.111.168:9330/'
        'report","extend":"tok"}'.encode()
    )


def test_what_is_not_given_is_left_out():
    alone = Message(1, "13112345678", "t", [])
    request = RequestDraft(None, [Entry(content(alone), [alone])], 0)
    body = encode(request, token="tok", callback=None)
    assert body == b'{"smsContent":[{"to":["13112345678"],"templateId":"t"}],"extend":"tok"}'
    assert len(body) == overhead(None, token_length=3, callback=None) + len(
        b',{"to":["13112345678"],"templateId":"t"}'
    )


def test_the_answer_of_the_page_is_read():
    answer = read_answer(200, PAGE_ANSWER, clock_skew=1.5)
    assert said(answer) == [
        ("+8615512345678", "000000", "5963c5be-f189-4c0c-ab2e-7cab0c42c798_52", 2, "CN")
    ]
    assert (answer.http_status, answer.code, answer.description) == (200, "000000", "Success")
    assert answer.clock_skew == 1.5


@pytest.mark.parametrize(
    ("result", "results"),
    [
        ({"originTo": "+1", "status": "E200015"}, [("+1", "E200015", None, None, None)]),
        (
            {"originTo": 13112345678, "status": 0, "smsMsgId": 7, "total": "2"},
            [("13112345678", "000000", "7", 2, None)],
        ),
        (
            {"originTo": "+1", "status": "000000", "total": None, "new": {"a": [1]}},
            [("+1", "000000", None, None, None)],
        ),
        (
            {"originTo": "+1", "status": "000000", "total": 99999},
            [("+1", "000000", None, None, None)],
        ),
        ({"originTo": "+1", "status": "000000", "total": -1}, [("+1", "000000", None, None, None)]),
        ({"originTo": "+1", "status": "000000", "total": True}, [("+1", "000000", *[None] * 3)]),
        (
            {"originTo": "+1", "status": "000000", "smsMsgId": "a\0b"},
            [("+1", "000000", "ab", *[None] * 2)],
        ),
        ({"originTo": "+1"}, []),
        ({"originTo": "+1", "status": None}, []),
        ({"status": "000000", "smsMsgId": "x"}, []),
        ("none", []),
    ],
)
def test_results_without_a_number_are_left_out(result, results):
    assert said(read({"code": "000000", "description": "", "result": [result]})) == results


def test_a_sound_result_beside_a_broken_one_is_kept():
    sound = {"originTo": "+1", "status": "000000", "smsMsgId": "x", "total": 1}
    answer = read({"code": "E000510", "description": "", "result": [{"originTo": 1.5}, sound]})
    assert said(answer) == [("+1", "000000", "x", 1, None)]


@pytest.mark.parametrize("http_status", [200, 400, 500])
@pytest.mark.parametrize("code", ["E000510", "E200037", "E000000", "E999999"])
def test_results_are_read_at_any_status_and_code(http_status, code):
    body = {"code": code, "description": "d", "result": [{"originTo": "+1", "status": "E200028"}]}
    answer = read(body, http_status)
    assert said(answer) == [("+1", "E200028", None, None, None)]
    assert (answer.http_status, answer.code) == (http_status, code)


@pytest.mark.parametrize("body", [{"result": None}, {}])
@pytest.mark.parametrize("code", ["E000045", "000000", "E999999"])
def test_an_answer_without_results_has_none(code, body):
    answer = read({"code": code, "description": "no", **body}, 401)
    assert answer == Reply(401, code, "no", None)


def test_a_code_that_lost_its_type_is_read():
    taken = {"originTo": "+1", "status": "000000"}
    assert read({"code": 0, "result": [taken]}).code == "000000"
    assert read({"code": "E000027"}, 400) == Reply(400, "E000027", "", None)


NOT_OURS = [
    b"",
    b"<html><body>Bad gateway</body></html>",
    b"null",
    b"[]",
    b'"000000"',
    b"{}",
    b'{"code":"NotFound","message":"no such route"}',
    b'{"error_code":"APIG.0101","error_msg":"The API does not exist"}',
    b'{"code":404}',
    b'{"code":"Unauth","description":"no code of this API"}',
    b'{"code":"404","description":"Not Found"}',
    b'{"code":0,"description":"Success"}',
    b'{"result":[],"x":1}',
    PAGE_ANSWER[:-1],
    PAGE_ANSWER[: len(PAGE_ANSWER) // 2],
    PAGE_ANSWER + b"}",
    b"\xff\xfe" + PAGE_ANSWER,
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", NOT_OURS, ids=lambda body: repr(body[:30]))
def test_a_success_that_cannot_be_read_may_have_been_sent(body):
    match read_answer(200, body):
        case NoReply(sent=True, code="unreadable"):
            pass
        case other:
            pytest.fail(f"read as {other}")


@pytest.mark.parametrize("http_status", [302, 404, 429, 502, 503])
@pytest.mark.parametrize("body", NOT_OURS, ids=lambda body: repr(body[:30]))
def test_a_refusal_by_a_proxy_has_its_status_as_code(http_status, body):
    code = f"HTTP {http_status}"
    assert read_answer(http_status, body, clock_skew=2.0) == Reply(http_status, code, "", None, 2.0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
nearly_results = st.fixed_dictionaries(
    {},
    optional={
        name: json_values | st.sampled_from(["000000", "+8613112345678", "1", 2])
        for name in ("originTo", "status", "smsMsgId", "total", "countryId")
    },
)
nearly_answers = st.fixed_dictionaries(
    {},
    optional={
        "code": json_values | st.sampled_from(["000000", "E000510"]),
        "description": json_values,
        "result": json_values | st.lists(nearly_results, max_size=4),
    },
)


@given(
    body=st.binary() | nearly_answers.map(lambda value: json.dumps(value).encode()),
    http_status=st.integers(100, 599),
)
def test_any_answer_is_read_and_can_be_stored(body, http_status):
    answer = read_answer(http_status, body)
    if isinstance(answer, NoReply):
        assert http_status < 300
        return
    texts = [answer.code, answer.description]
    for result in answer.results or []:
        assert result.recipient
        assert result.code
        assert result.segments is None or 1 <= result.segments <= 1000
        texts += [result.code, result.provider_id or "", result.country or ""]
    assert all(len(text) <= 512 and "\0" not in text for text in texts)
    assert all(text.encode() is not None for text in texts)
