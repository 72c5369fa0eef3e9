"""Replies are read whatever became of them on the way; unsubscribe words in every form."""

from urllib.parse import quote, urlencode

import pytest

from dispatcher.core.reply import plain_word, read_posted, read_replies, reply_digest

FIELDS = {
    "from": "+8615512345678",
    "to": "201804131431201234",
    "body": "R",
    "smsMsgId": "9e64ae47-0000",
}


def form(**fields) -> bytes:
    return urlencode({**FIELDS, **fields}).encode()


def one(body: bytes):
    (reply,) = read_replies(body).replies
    return reply


def test_a_reply_as_documented_is_read():
    reply = one(form(createTime="2026-11-29T01:02:03Z", body="好的, 谢谢"))
    assert (reply.number, reply.channel) == ("+8615512345678", "201804131431201234")
    assert (reply.text, reply.provider_id) == ("好的, 谢谢", "9e64ae47-0000")
    assert (reply.unsubscribes, reply.replied_at.isoformat()) == (
        False,
        "2026-11-29T01:02:03+00:00",
    )


@pytest.mark.parametrize(
    "text",
    ["R", "r", "\uff32", "\uff52", "T", "t", "TD", "td", "Td", "\uff34\uff24", "退订", " R ", "R。",
     "“R”", "r\r\n", "退订\uff01", "【退订】", "\u200bR", "R."],
)  # fmt: skip
def test_unsubscribe_words_are_known_in_every_form(text):
    assert one(form(body=text)).unsubscribes


@pytest.mark.parametrize("text", ["", " ", "RR", "Thanks", "T D", "R U there?", "不退订", "\uff01"])
def test_other_texts_unsubscribe_nobody(text):
    assert not one(form(body=text)).unsubscribes


def test_the_words_are_a_setting():
    assert read_replies(form(body="stop!"), ["STOP"]).replies[0].unsubscribes
    assert not read_replies(form(body="R"), ["STOP"]).replies[0].unsubscribes
    assert not read_replies(form(body="!"), []).replies[0].unsubscribes
    assert plain_word("\uff01") == ""


@pytest.mark.parametrize(
    "body",
    [
        b"from=+8615512345678&to=1&body=R&smsMsgId=a",  # the plus is not encoded
        b"from=8615512345678&to=1&body=R&smsMsgId=a",
        b"from=008615512345678&to=1&body=R&smsMsgId=a",
        b"from=15512345678&to=1&body=R&smsMsgId=a",
        b"\xef\xbb\xbffrom=15512345678&to=1&body=R&smsMsgId=a&",
        b"From=15512345678&To=1&Body=R&SmsMsgId=a",
        b"from=15512345678&to=1&body=R%00&smsMsgId=a&x&x",
        b'{"from": "+8615512345678", "to": 1, "body": "R", "smsMsgId": "a"}',
        b'[{"from": 8615512345678, "to": "1", "body": "R", "smsMsgId": "a"}]',
    ],
)
def test_a_reply_in_other_spellings_is_the_same(body):
    reply = one(body)
    assert (reply.number, reply.channel, reply.text) == ("+8615512345678", "1", "R")
    assert (reply.provider_id, reply.unsubscribes) == ("a", True)


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
@pytest.mark.parametrize("percent", [True, False])
def test_chinese_is_read_in_either_encoding(encoding, percent):
    raw = "退订".encode(encoding)
    text = quote(raw).encode() if percent else raw
    reply = one(b"from=15512345678&to=1&smsMsgId=a&body=" + text)
    assert (reply.text, reply.unsubscribes) == ("退订", True)


@pytest.mark.parametrize(
    "body", [b"", b"to=1&body=R", b"from=&body=R", b"from=abc&body=R", b"{", b"[]", b"[7]", b"\xff"]
)
def test_what_names_no_number_is_unreadable(body):
    push = read_replies(body)
    assert (push.replies, push.unreadable is not None) == ([], True)


def test_a_masked_number_is_kept_and_stops_nothing():
    reply = one(form(**{"from": "+86155****5678"}))
    assert (reply.number, reply.unsubscribes) == ("+86155****5678", False)


def test_a_repeated_reply_is_the_same_and_another_is_not():
    first = one(form())
    assert reply_digest(first, 1.0) == reply_digest(one(form(createTime="x")), 2.0)
    for fields in ({"smsMsgId": "other"}, {"body": "r"}, {"from": "15512345679"}, {"to": "2"}):
        assert reply_digest(one(form(**fields)), 1.0) != reply_digest(first, 1.0)
    nameless = one(form(smsMsgId=""))
    assert reply_digest(nameless, 1.0) != reply_digest(nameless, 2.0)


def test_what_comes_to_the_wrong_address_is_recognised():
    report = b"smsMsgId=p1&status=DELIVRD&to=%2B8615512345678"
    posted = read_posted(report, is_reply=True, words=["R"])
    assert ([each.provider_id for each in posted.reports], posted.replies) == (["p1"], [])
    posted = read_posted(form(), is_reply=False, words=["R"])
    assert (posted.reports, [each.unsubscribes for each in posted.replies]) == ([], [True])
    assert read_posted(b"nothing", is_reply=False, words=["R"]).unreadable is not None
