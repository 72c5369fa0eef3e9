"""Requests are encoded, and answers decoded, as documented and as observed."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.core.message import Entry, Message, NoReply, NumberResult, Reply, RequestDraft
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
        ({"status": "000000", "smsMsgId": "x"}, [("", "000000", "x", None, None)]),
        ({"status": "000000"}, []),
        ("none", []),
    ],
)
def test_results_without_a_number_or_an_id_are_left_out(result, results):
    assert said(read({"code": "000000", "description": "", "result": [result]})) == results


def test_an_empty_id_is_none():
    result = {"originTo": "+1", "status": "000000", "smsMsgId": "", "total": 1}
    answer = read({"code": "000000", "description": "", "result": [result]})
    assert said(answer) == [("+1", "000000", None, 1, None)]


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


@pytest.mark.parametrize("number", ["+6591234567", "+5511912345678"])
def test_a_captured_answer_without_sender_total_and_country_is_read(number):
    answer = read_answer(
        200,
        b'{"result":[{"total":null,"originTo":"%s","createTime":"2019-05-01T02:03:04Z","from":"",'
        b'"smsMsgId":"dd7c3d25-1a5e-4d31-9d0b-7a1b4d9d0f6e_1","status":"000000"}],'
        b'"code":"000000","description":"Success"}' % number.encode(),
    )
    provider_id = "dd7c3d25-1a5e-4d31-9d0b-7a1b4d9d0f6e_1"
    assert said(answer) == [(number, "000000", provider_id, None, None)]


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
    b"[" * 100_000,
]
DAMAGED = [PAGE_ANSWER[:-1], PAGE_ANSWER[: len(PAGE_ANSWER) // 2], b"\xff\xfe" + PAGE_ANSWER]


@pytest.mark.parametrize("body", NOT_OURS + DAMAGED, ids=lambda body: repr(body[:30]))
def test_a_success_that_cannot_be_read_may_have_been_sent(body):
    match read_answer(200, body):
        case NoReply(sent=True, code="unreadable"):
            pass
        case other:
            pytest.fail(f"read as {other}")


@pytest.mark.parametrize("body", [b"<" * 500_000, b"<script" * 70_000, b"<style>1 " * 50_000])
def test_a_page_that_never_ends_takes_no_time(body):
    begin = time.process_time()
    read_answer(502, body)
    assert time.process_time() - begin < 2.0


@pytest.mark.parametrize("http_status", [302, 404, 429, 502, 503])
@pytest.mark.parametrize("body", NOT_OURS, ids=lambda body: repr(body[:30]))
def test_a_refusal_by_a_proxy_has_its_status_as_code(http_status, body):
    read = read_answer(http_status, body, clock_skew=2.0)
    code = "APIG.0101" if b"APIG.0101" in body and http_status == 404 else f"HTTP {http_status}"
    assert read == Reply(http_status, code, read.description, None, 2.0)


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
        assert http_status < 300 or b"smsMsgId" in body or b"originTo" in body
        return
    texts = [answer.code, answer.description]
    for result in answer.results or []:
        assert result.recipient or result.provider_id
        assert result.code
        assert result.segments is None or 1 <= result.segments <= 1000
        texts += [result.code, result.provider_id or "", result.country or ""]
    assert all(len(text) <= 512 and "\0" not in text for text in texts)
    assert all(text.encode() is not None for text in texts)


def test_half_a_character_in_an_answer_can_be_stored_and_kept():
    """JSON may have it (a text that was cut), and no text in UTF-8."""
    result = {"originTo": "+8613112345678", "status": "000000", "countryId": "C\ud83d"}
    body = {
        "code": "000000",
        "description": "ok \ud83d",
        "result": [{**result, "smsMsgId": "id\ud83d"}, {**result, "status": "E2\ude00"}],
    }
    answer = read(body)
    assert [one.provider_id for one in answer.results] == ["id?", None]
    assert [one.code for one in answer.results] == ["000000", "E2?"]
    assert answer.description == "ok ?"
    assert answer.results[0].country == "C?"


# ---- what stands in front of the API, and damaged answers

SENT = [
    NumberResult("+8613100000001", "000000", "id-1", 1),
    NumberResult("+8613100000002", "E200015"),
]
ANSWER = {
    "code": "E000510",
    "description": "发送失败",
    "result": [
        {"originTo": "+8613100000001", "status": "000000", "smsMsgId": "id-1", "total": 1},
        {"originTo": "+8613100000002", "status": "E200015"},
    ],
}


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + json.dumps(ANSWER).encode(),
        json.dumps(ANSWER, ensure_ascii=False).encode("gb18030"),
        json.dumps(ANSWER, ensure_ascii=False).replace("发", "发\n").encode(),
        json.dumps(ANSWER).replace('"000000"', '" 000000 "').encode(),
        json.dumps(ANSWER, ensure_ascii=False).encode("utf-8").replace("败".encode(), b"\xff"),
    ],
)
def test_an_answer_with_every_id_is_read(body):
    read = read_answer(400, body)
    assert (read.code, [replace(one, code=one.code.strip()) for one in read.results]) == (
        "E000510",
        SENT,
    )


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (
            401,
            {"error_code": "APIGW.0301", "error_msg": "Incorrect IAM authentication information"},
            "APIGW.0301",
            "Incorrect IAM authentication information",
        ),
        (404, {"error_code": "APIGW.0101", "error_msg": "no API"}, "APIGW.0101", "no API"),
        (429, {"error_code": "APIGW.0308", "error_msg": "slow"}, "HTTP 429", "APIGW.0308: slow"),
        (502, {"error_code": "APIGW.0201", "error_msg": "x"}, "HTTP 502", "APIGW.0201: x"),
        (413, {"error_code": "APIGW.0201", "error_msg": "x"}, "HTTP 413", "APIGW.0201: x"),
        (500, {"error_code": "MSGSMS.0001", "error_msg": "x"}, "HTTP 500", "MSGSMS.0001: x"),
        (403, "<html><head><style>a{}</style></head><h1>Access\n denied</h1>", "HTTP 403",
         "Access denied"),
        (403, "to +8613112345678 denied", "HTTP 403", "to … denied"),
        (403, "a\0b", "HTTP 403", "ab"),
        (400, "x" * 500, "HTTP 400", "x" * 200),
        (400, "", "HTTP 400", ""),
        (401, {"error_code": "APIGW.0301", "error_msg": "signature time 20240815T100000Z"},
         "APIGW.0301", "signature time 20240815T100000Z"),
    ],
)  # fmt: skip
def test_the_words_of_a_gateway_are_kept_without_numbers(status, body, code, words):
    raw = json.dumps(body) if isinstance(body, dict) else body
    read = read_answer(status, raw.encode())
    assert (read.code, read.description, read.results) == (code, words, None)


def test_an_unreadable_success_keeps_its_words():
    read = read_answer(200, b"<p>Please log in</p>")
    assert (read.sent, read.code) == (True, "unreadable")
    assert read.reason == "The answer, HTTP 200, cannot be read: Please log in"


TAKEN = {"originTo": "+8613112345678", "smsMsgId": "x_1", "status": "000000"}
OTHER = {"originTo": "+8613199995678", "smsMsgId": "x_2", "status": "000000"}
REFUSAL = {"code": "E000510", "description": "", "result": [TAKEN]}


@pytest.mark.parametrize("http_status", [200, 400, 401, 429])
@pytest.mark.parametrize(
    "body",
    [
        *DAMAGED,
        json.dumps(REFUSAL).encode("utf-16"),
        json.dumps([REFUSAL]).encode(),
        json.dumps([TAKEN]).encode(),
        json.dumps(json.dumps(REFUSAL)).encode(),
        json.dumps({**REFUSAL, "result": json.dumps([TAKEN])}).encode(),
        json.dumps({**REFUSAL, "result": TAKEN}).encode(),
        json.dumps({**REFUSAL, "result": [[TAKEN, OTHER]]}).encode(),
        json.dumps({**REFUSAL, "result": [{"originTo": "+8613112345678"}]}).encode(),
        json.dumps({**REFUSAL, "result": [{**TAKEN, "status": {"code": "000000"}}]}).encode(),
        json.dumps({**REFUSAL, "result": [{**TAKEN, "status": 0.0}]}).encode(),
    ],
)
def test_results_that_cannot_be_read_may_have_accepted(http_status, body):
    """Whatever the status and the code: sent again, an accepted number would get it twice."""
    answer = read_answer(http_status, body)
    assert isinstance(answer, NoReply)
    assert (answer.sent, answer.code) == (True, "unreadable")


@pytest.mark.parametrize("http_status", [200, 400])
@pytest.mark.parametrize("after", [b"\n<!-- proxy -->", b"{}", b"\0", b"]"])
def test_what_follows_an_answer_is_no_part_of_it(http_status, after):
    answer = read_answer(http_status, json.dumps(REFUSAL).encode() + after)
    assert said(answer) == [("+8613112345678", "000000", "x_1", None, None)]


def test_a_refusal_in_front_of_another_answer_proves_nothing():
    refusal, success = b'{"code":"E000503","description":""}', b'{"code":"000000","descr'
    for after in (success, b"x", b"\0"):
        assert isinstance(read_answer(200, refusal + after), NoReply)
    assert read_answer(200, refusal + b" \n").code == "E000503"
    assert read_answer(400, refusal + success).code == "E000503"


@pytest.mark.parametrize("http_status", [200, 400])
def test_a_second_answer_that_names_results_leaves_a_refusal_in_doubt(http_status):
    """It may be the one that counts: sent again, its number would get the message twice."""
    later = {"code": "E000510", "description": "", "result": [{**TAKEN, "status": "E200015"}]}
    refusal, success = json.dumps(later).encode(), json.dumps(REFUSAL).encode()
    other_list = refusal[:-1] + b',"Result":' + json.dumps([TAKEN]).encode() + b"}"
    by_id = b'{"result":[{"smsMsgId":"x_1","status":"000000"}]}'
    by_number = b'{"result":[{"originTo":"+8613112345678","status":"E200015"}]}'
    for body in (refusal + success, refusal + b"\n" + success, other_list, by_number + by_id):
        answer = read_answer(http_status, body)
        assert isinstance(answer, NoReply), body
        assert answer.sent
    taken = [("+8613112345678", "000000", "x_1", None, None)]
    assert said(read_answer(http_status, success + refusal)) == taken
    both = json.dumps({**later, "result": [*later["result"], OTHER]}).encode()
    assert [one[2] for one in said(read_answer(http_status, both + both))] == ["x_2"]


@pytest.mark.parametrize("http_status", [200, 400])
@pytest.mark.parametrize("status", [None, {"code": "000000"}, ""])
def test_a_result_that_cannot_be_read_leaves_its_number_in_doubt(http_status, status):
    later = {"originTo": OTHER["originTo"], "status": "E200015"}
    odd = {**TAKEN, "originTo": "13112345678", "status": status}
    for results in ([{**TAKEN, "status": "E200015"}, odd, later],
                    [odd, {**TAKEN, "status": "E200015"}, later]):  # fmt: skip
        body = json.dumps({"code": "E000510", "description": "", "result": results})
        read_codes = [(one[0], one[1]) for one in said(read_answer(http_status, body.encode()))]
        assert read_codes == [(OTHER["originTo"], "E200015")]


@pytest.mark.parametrize("http_status", [200, 400])
def test_fields_that_stand_twice_lose_no_accepted_number(http_status):
    taken, other = json.dumps(TAKEN), json.dumps(OTHER)

    def read_twice(results: str) -> list[tuple[str, str]]:
        body = '{"code":"E000027","description":"",' + results + "}"
        answer = read_answer(http_status, body.encode())
        return [(one[2], one[1]) for one in said(answer)]

    both = [("x_1", "000000"), ("x_2", "000000")]
    assert read_twice(f'"result":[{taken},{other}],"result":[]') == both
    assert read_twice(f'"result":[{taken}],"result":[{other}]') == both[1:]  # unsure is x_1
    later = other.replace("000000", "E200015")
    assert read_twice(f'"result":[{taken}],"result":[{later}]') == [both[0], ("x_2", "E200015")]
    late = taken[:-1] + ',"status":"E200015"}'
    assert read_twice(f'"result":[{late}]') == both[:1]
    early = taken.replace("000000", "E200015")[:-1] + ',"status":"000000"}'
    assert read_twice(f'"result":[{early}]') == both[:1]
    neither = taken.replace("000000", "E200015")[:-1] + ',"status":"E200028"}'
    assert read_twice(f'"result":[{neither},{other}]') == both[1:]


def test_blanks_around_values_are_dropped():
    answer = read({**REFUSAL, "result": [{**TAKEN, "smsMsgId": " x_1 ", "status": " 000000"}]})
    assert said(answer) == [("+8613112345678", "000000", "x_1", None, None)]


@pytest.mark.parametrize("http_status", [200, 400])
@pytest.mark.parametrize("place", ["top", "result"])
def test_an_answer_that_is_nested_deeply_is_read_or_unreadable(http_status, place):
    """Near the limit of recursion some decoders raise, and others do not."""
    for depth in (*range(900, 1100, 3), 5_000, 100_000):
        deep = b'"x":' + b"[" * depth + b"]" * depth
        result = b'{"originTo":"+8613112345678","smsMsgId":"x_1","status":"000000"'
        inner, outer = (b"", b"," + deep) if place == "top" else (b"," + deep, b"")
        body = b'{"code":"E000510","description":"","result":[' + result + inner + b"}]" + outer
        answer = read_answer(http_status, body + b"}")
        assert isinstance(answer, NoReply) or len(said(answer)) == 1
