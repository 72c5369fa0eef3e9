"""Status reports are read from bytes that anyone may have written."""

import json
import re
from datetime import UTC, datetime
from time import process_time
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.core.report import (
    MAX_BYTES,
    MAX_FIELDS,
    Report,
    form_pairs,
    json_fields,
    possible_tokens,
    read_push,
)
from dispatcher.core.report_status import (
    RESULT_PATTERN,
    STATUSES,
    Reason,
    report_status,
    takes_place,
)

# provider.md, Status reports
EXAMPLE = (
    b"sequence=1&total=1&orgCode=000&updateTime=2018-04-13T06%3A31%3A46Z&source=2"
    b"&smsMsgId=b9d9b4fe-ad0e-4a2a-a2c7-445505b674ac_6&status=DELIVRD"
)
FULL = {
    "smsMsgId": "id_1",
    "total": "3",
    "sequence": "2",
    "status": "SMGPERR:52",
    "statusDesc": "号码停机",
    "source": "2",
    "updateTime": "2018-04-13T06:31:46Z",
    "orgCode": "052",
    "extend": "01J0000000000000000000000Z",
    "to": "+8613112345678",
}


def form(fields: dict[str, str]) -> list[Report]:
    return read_push(urlencode(fields).encode()).reports


def batch(*reports: object) -> list[Report]:
    return read_push(json.dumps({"statusReportList": reports}).encode()).reports


def test_the_example_of_the_provider_is_read():
    [report] = read_push(EXAMPLE).reports
    assert report.provider_id == "b9d9b4fe-ad0e-4a2a-a2c7-445505b674ac_6"
    assert (report.segment, report.total) == (1, 1)
    assert (report.status, report.state) == ("DELIVRD", "delivered")
    assert report.updated_at == datetime(2018, 4, 13, 6, 31, 46, tzinfo=UTC)
    assert (report.source, report.org_code) == (2, "000")
    assert (report.token, report.recipient, report.description) == (None, None, None)


def test_every_field_is_read_from_a_form_and_from_a_batch_alike():
    [single] = form(FULL)
    [batched] = batch({**FULL, "total": 3, "sequence": 2, "source": 2})
    assert single == batched
    assert single == Report(
        provider_id="id_1",
        segment=2,
        total=3,
        status="SMGPERR:52",
        state="undelivered",
        token="01J0000000000000000000000Z",
        recipient="+8613112345678",
        updated_at=datetime(2018, 4, 13, 6, 31, 46, tzinfo=UTC),
        source=2,
        description="号码停机",
        org_code="052",
        raw=single.raw,
    )
    assert json.loads(single.raw) == FULL


def test_fields_that_nobody_here_knows_are_kept_in_the_raw_copy():
    [report] = form({**FULL, "newField": "ü&="})
    assert json.loads(report.raw)["newField"] == "ü&="
    [report] = batch({**FULL, "newNumber": 1.5, "newNothing": None, "newTruth": True})
    raw = json.loads(report.raw)
    assert (raw["newNumber"], raw["newTruth"]) == ("1.5", "true")
    assert "newNothing" not in raw


@pytest.mark.parametrize("name", ["total", "sequence"])
def test_a_message_that_was_not_split_has_one_segment(name):
    [report] = form({"smsMsgId": "a", "status": "DELIVRD", name: ""})
    assert (report.segment, report.total) == (1, 1)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2018-04-13T14:31:46+08:00", datetime(2018, 4, 13, 6, 31, 46, tzinfo=UTC)),
        *(
            (text, datetime(2018, 4, 13, 6, 31, 46, tzinfo=UTC))
            for text in (
                "2018-04-13 06:31:46",
                "2018/04/13 06:31:46",
                "20180413063146",
                "20180413T063146Z",
                "1523601106",
                "1523601106000",
                "2018-04-13T14:31:46 08:00",  # its + was not encoded
                "2018-04-13 14:31:46 0800",
                "2018-04-13T02:31:46-04:00",
                '"2018-04-13T06:31:46Z"',
            )
        ),
        ("1764112233", datetime(2025, 11, 25, 23, 10, 33, tzinfo=UTC)),  # no time of the year 1764
        ("17641122334", None),
        ("1999-12-31T23:59:59Z", None),
        ("2018", None),
        ("²018", None),
        ("", None),
        ("yesterday", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("2018-13-45T99:99:99Z", None),
    ],
)
def test_a_time_is_utc_and_one_that_is_none_spoils_no_report(text, time):
    [report] = form({**FULL, "updateTime": text})
    assert report.updated_at == time


@pytest.mark.parametrize("source", ["", "0", "9", "x"])
def test_a_source_that_is_unknown_spoils_no_report(source):
    [report] = form({**FULL, "source": source})
    assert report.source is None


UNREADABLE = [
    (b"", "empty"),
    (b" \0\r\n", "empty"),
    (b"hello", "no smsMsgId"),
    (b"smsMsgId=a", "no smsMsgId, or no status"),
    (b"smsMsgId=&status=DELIVRD", "no smsMsgId"),
    (b"smsMsgId=%20&status=DELIVRD", "no smsMsgId"),
    (b"smsMsgId=%00&status=DELIVRD", "no smsMsgId"),
    (b"smsMsgId=a&status=", "no smsMsgId"),
    (b"smsMsgId=a&smsMsgId=b&status=DELIVRD", "smsMsgId stands twice"),
    (b"smsMsgId=a&status=DELIVRD&status=UNDELIV", "status stands twice"),
    (b"smsMsgId=" + b"a" * 129 + b"&status=DELIVRD", "is no id"),
    (b"{", "damaged JSON"),
    (b"[" * 100_000, "damaged JSON"),
    (b"{" * 100_000, "damaged JSON"),
    (b"null", "no smsMsgId"),
    (b"[]", "no statusReportList"),
    (b"{}", "no statusReportList"),
    (b'{"statusReportList":"x"}', "no statusReportList"),
    (b'{"statusReportList":[]}', "no statusReportList"),
    (b'{"statusReportList":[1]}', "no object"),
    (b'{"statusReportList":[{}]}', "no smsMsgId"),
    (b'{"statusReportList":[{"smsMsgId":{},"status":"X"}]}', "is no id"),
    (b'[{"smsMsgId":"a","smsMsgId":"b","status":"DELIVRD"}]', "smsMsgId stands twice"),
    (b'[{"smsMsgId":1,"smsMsgId":2,"status":"DELIVRD"}]', "smsMsgId stands twice"),
    (b"smsmsgid=a&smsmsgid=b&status=DELIVRD", "smsMsgId stands twice"),
    ("smsMsgId=a&status=\u200b\xa0".encode(), "no smsMsgId, or no status"),
]


@pytest.mark.parametrize(("body", "said"), UNREADABLE, ids=lambda value: repr(value)[:40])
def test_what_has_no_id_or_no_status_is_unreadable(body, said):
    read = read_push(body)
    assert read.reports == []
    assert said in read.unreadable.reason


GBK = "号码停机".encode("gb18030")
WIDE = "".join(chr(ord(letter) + 0xFEE0) for letter in "DELIVRD")  # as a Chinese keyboard has it
ONE = b'{"smsMsgId":"id_1","status":"DELIVRD","extend":"t","to":"+8613112345678"}'
REQUIRED = b"smsMsgId=id_1&status=DELIVRD&extend=t&to=%2B8613112345678"
LENIENT = {
    "raw UTF-8": REQUIRED + "&statusDesc=号码停机".encode(),
    "raw GBK": REQUIRED + b"&statusDesc=" + GBK,
    "GBK, percent-encoded": REQUIRED + b"&statusDesc=" + quote(GBK).encode(),
    "bytes of no encoding": REQUIRED + b"&statusDesc=%ff%ff%ff",
    "status padded with NUL": REQUIRED.replace(b"DELIVRD", b"DELIVRD%00"),
    "NUL in the description": REQUIRED + b"&statusDesc=a%00b",
    "NUL in a name": REQUIRED + b"&x%00=1",
    "BOM": b"\xef\xbb\xbf" + REQUIRED,
    "line end": REQUIRED + b"\r\n",
    "ampersand at the end": REQUIRED + b"&",
    "two ampersands": REQUIRED.replace(b"&", b"&&"),
    "a field without =": REQUIRED + b"&flag",
    "a harmless field twice": REQUIRED + b"&source=1&source=2",
    "the id twice alike": REQUIRED + b"&smsMsgId=id_1",
    "a long unknown field": REQUIRED + b"&x=" + b"y" * 70_000,
    "a long unknown name": REQUIRED + b"&" + b"x" * 3000 + b"=1",
    "many fields": b"".join(b"f%d=1&" % i for i in range(500)) + REQUIRED,
    "sequence 0 of 1": REQUIRED + b"&sequence=0&total=1",
    "sequence 0 of 0": REQUIRED + b"&sequence=0&total=0",
    "sequence null": REQUIRED + b"&sequence=null&total=null",
    "sequence 2 of 1": REQUIRED + b"&sequence=2&total=1",
    "sequence 2 of no total": REQUIRED + b"&sequence=2",
    "too many segments": REQUIRED + b"&sequence=1&total=1001",
    "odd digits": REQUIRED + b"&sequence=1&total=%C2%B2",
    "a long description": REQUIRED + b"&statusDesc=" + b"1" * 2049,
    "blanks around": b"smsMsgId=+id_1+&status=%20DELIVRD%20&extend=t&to=%2B8613112345678",
    "quotes around": b'smsMsgId="id_1"&status=%22DELIVRD%22&extend=t&to=%2B8613112345678',
    "quotes and blanks around the token": REQUIRED.replace(b"=t&", b"=+%22t%22%0D%0A&"),
    "a blank that does not break": REQUIRED.replace(b"DELIVRD", b"%C2%A0DELIVRD%E3%80%80"),
    "marks that nobody sees": REQUIRED.replace(b"DELIVRD", b"%EF%BB%BFDELI%E2%80%8BVRD"),
    "marks in id and token": REQUIRED.replace(b"id_1", b"%E2%80%8Bid_1").replace(
        b"=t&", b"=t%C2%A0&"
    ),
    "letters of full width": REQUIRED.replace(b"DELIVRD", WIDE.encode()),
    "a wide status in JSON": ONE.replace(b'"DELIVRD"', f'" \u200b{WIDE}"'.encode()),
    "counts that are decimals": REQUIRED + b"&sequence=1.0&total=1.00",
    "names in small letters": REQUIRED.replace(b"smsMsgId", b"smsmsgid"),
    "names in capital letters": REQUIRED.replace(b"smsMsgId", b"SMSMSGID")
    .replace(b"status", b"STATUS")
    .replace(b"extend", b"EXTEND")
    .replace(b"to=", b"TO="),
    "a blank before a name": REQUIRED.replace(b"&status", b"& status"),
    "JSON whose names have another case": b'{"StatusReportList":['
    + ONE.replace(b"smsMsgId", b"SmsMsgId").replace(b"status", b"Status")
    + b"]}",
    "a batch in a list": b'[{"statusReportList":[' + ONE + b"]}]",
    "the same status twice": ONE.replace(b'"extend"', b'"status":"DELIVRD","extend"'),
    "the same id twice": ONE.replace(b'"extend"', b'"smsMsgId":"id_1","extend"'),
    "an id in a field": ONE.replace(b'"extend"', b'"more":{"smsMsgId":"x"},"extend"'),
    "another field twice": ONE.replace(b'"extend"', b'"source":1,"source":"2","extend"'),
    "UTF-16 with BOM": REQUIRED.decode().encode("utf-16"),
    "UTF-16 without BOM": REQUIRED.decode().encode("utf-16-le"),
    "UTF-16 of the other order": REQUIRED.decode().encode("utf-16-be"),
    "NUL in front": b"\0" + REQUIRED,
    "JSON in UTF-16 without BOM": '{"smsMsgId":"id_1","status":"DELIVRD","extend":"t",'
    '"to":"+8613112345678"}'.encode("utf-16-be"),
    "a sequence below 0": REQUIRED + b"&sequence=-1&total=1",
    "a huge sequence": REQUIRED + b"&sequence=99999999999999999999&total=1",
    "one report as JSON": b'{"smsMsgId":"id_1","status":"DELIVRD","extend":"t",'
    b'"to":"+8613112345678"}',
    "a bare list": b'[{"smsMsgId":"id_1","status":"DELIVRD","extend":"t","to":"+8613112345678"}]',
    "a list encoded twice": json.dumps(
        {
            "statusReportList": json.dumps(
                [
                    {
                        "smsMsgId": "id_1",
                        "status": "DELIVRD",
                        "extend": "t",
                        "to": "+8613112345678",
                    }
                ]
            )
        }
    ).encode(),
    "JSON with BOM": b"\xef\xbb\xbf"
    b'{"statusReportList":[{"smsMsgId":"id_1","status":"DELIVRD","extend":"t",'
    b'"to":"+8613112345678"}]}',
    "JSON in GBK": b'[{"smsMsgId":"id_1","status":"DELIVRD","extend":"t","to":"+8613112345678",'
    b'"statusDesc":"' + GBK + b'"}]',
    "JSON in UTF-16": '[{"smsMsgId":"id_1","status":"DELIVRD","extend":"t","to":"+8613112345678"}]'
    "".encode("utf-16"),
    "half a character": b'[{"smsMsgId":"id_1","status":"DELIVRD","extend":"t",'
    b'"to":"+8613112345678","statusDesc":"a\\ud800b"}]',
    "a raw line break in JSON": b'[{"smsMsgId":"id_1","status":"DELIVRD","extend":"t",'
    b'"to":"+8613112345678","statusDesc":"a\nb"}]',
    "a nested unknown field": b'[{"smsMsgId":"id_1","status":"DELIVRD","extend":"t",'
    b'"to":"+8613112345678","n":[1,{"a":2}]}]',
}


@pytest.mark.parametrize("body", LENIENT.values(), ids=LENIENT.keys())
def test_no_optional_damage_costs_a_report(body):
    read = read_push(body)
    assert read.unreadable is None
    [report] = read.reports
    assert (report.provider_id, report.status, report.state) == ("id_1", "DELIVRD", "delivered")
    assert (report.token, report.recipient) == ("t", "+8613112345678")
    assert (report.segment, report.total) == (1, 1)
    assert "\0" not in report.raw


@pytest.mark.parametrize("name", ["raw UTF-8", "raw GBK", "GBK, percent-encoded", "JSON in GBK"])
def test_a_chinese_description_is_read_in_any_encoding(name):
    assert read_push(LENIENT[name]).reports[0].description == "号码停机"


def test_a_value_too_long_to_be_compared_is_none():
    [report] = read_push(b"smsMsgId=a&status=X&extend=" + b"a" * 257 + b"&to=" + b"1" * 65).reports
    assert (report.token, report.recipient) == (None, None)


@pytest.mark.parametrize(
    ("sequence", "total", "segment"),
    [
        ("1", "3", (1, 3)),
        ("3", "3", (3, 3)),
        ("5", "3", (5, 5)),
        ("0", "3", (3, 3)),
        ("2.0", "3.0", (2, 3)),
        ('"2"', "3.00", (2, 3)),
        ("2.5", "3", (3, 3)),
        ("2.0", "3.5", (1, 1)),
    ],
)
def test_a_long_message_has_its_segments(sequence, total, segment):
    [report] = form({**FULL, "sequence": sequence, "total": total})
    assert (report.segment, report.total) == segment


@pytest.mark.parametrize(
    ("status", "stored"),
    [
        ("+8613112345678", "+86131****5678"),
        ("13112345678", "131****5678"),
        ("blocked 13112345678", "blocked …"),
        ("CL26:-37", "CL26:-37"),
        ("SMGPERR:52", "SMGPERR:52"),
        ("601", "601"),
        ("delivrd", "delivrd"),
        ("X-CHECK", "X-CHECK"),
    ],
)
def test_no_status_is_stored_with_a_number_in_it(status, stored):
    [report] = form({**FULL, "status": status})
    assert report.status == stored
    assert json.loads(report.raw)["status"] == status  # as it came
    assert "3112345678" not in report_status(report.status).meaning


def test_one_broken_report_costs_no_other():
    read = read_push(
        json.dumps(
            {"statusReportList": [FULL, {"smsMsgId": "b"}, {**FULL, "smsMsgId": "c"}, 7]}
        ).encode()
    )
    assert [report.provider_id for report in read.reports] == ["id_1", "c"]
    assert read.unreadable.reason == (
        "2 of 4 reports cannot be read. A report has no smsMsgId, or no status."
    )


def test_whole_reports_are_read_from_a_batch_that_is_cut_off():
    whole = json.dumps({"statusReportList": [FULL, {**FULL, "smsMsgId": "c"}, FULL]}).encode()
    read = read_push(whole[: whole.rindex(b"smsMsgId")])
    assert [report.provider_id for report in read.reports] == ["id_1", "c"]
    assert "damaged" in read.unreadable.reason


@pytest.mark.parametrize(
    "behind",
    [b"x", b"}", b",", b"\0x", b"\xef\xbb\xbf", b"\r\n<!-- -->", b"[1]", b'{"ok":true}', b"\xff"],
)
def test_a_whole_batch_is_read_whatever_stands_behind_it(behind):
    body = json.dumps({"statusReportList": [FULL, {**FULL, "smsMsgId": "c"}]})
    read = read_push(body.encode() + behind)
    assert [report.provider_id for report in read.reports] == ["id_1", "c"]
    assert read.unreadable.reason == "The push is damaged JSON; some reports were read."


def test_batches_behind_each_other_are_read():
    bodies = [json.dumps({"statusReportList": [{**FULL, "smsMsgId": word}]}) for word in "abc"]
    for between in ("", "\n", " x "):
        read = read_push(between.join(bodies).encode())
        assert [report.provider_id for report in read.reports] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "lists",
    [
        b'"statusReportList":[A],"statusReportList":[B]',
        b'"statusReportList":[A,B],"statusReportList":[]',
        b'"statusReportList":null,"statusReportList":A,"statusReportList":[B]',
        b'"statusReportList":[A],"more":[1.5],"statusReportList":[B]',
    ],
)
@pytest.mark.parametrize("behind", [b"", b"x"])
def test_two_lists_of_a_batch_are_both_read(lists, behind):
    body = b"{" + lists.replace(b"A", ONE).replace(b"B", ONE.replace(b"id_1", b"id_2")) + b"}"
    read = read_push(body + behind)
    assert [report.provider_id for report in read.reports] == ["id_1", "id_2"]
    assert (read.unreadable is None) is (behind == b"")


@pytest.mark.parametrize("behind", [b"", b"x"])
def test_a_report_with_two_statuses_proves_what_one_proves(behind):
    """The last status counts, and the push is kept: the policy `resend` must see its token."""
    for second in (b'"UNDELIV"', b"7"):
        twice = ONE.replace(b'"extend"', b'"status":' + second + b',"extend"')
        read = read_push(b'{"statusReportList":[' + twice + b"," + ONE + b"]}" + behind)
        statuses = [second.decode().strip('"'), "DELIVRD"]
        assert [report.status for report in read.reports] == statuses
        assert {report.token for report in read.reports} == {"t"}
        assert "1 of 2 reports cannot be read. status stands twice" in read.unreadable.reason


@pytest.mark.parametrize(
    "body",
    [
        b'{"statusReportList":[A],"StatusReportList":[B]}',
        b'{"StatusReportList":[A],"statusreportlist":[B]}',
        b'{"smsMsgId":"id_2","status":"DELIVRD","statusReportList":[A]}',
        b'{"statusReportList":[A],"more":[B]}',
        b'{"statusReportList":[A],"StatusReportList":[b]}',
    ],
)
def test_reports_outside_of_the_list_are_kept(body):
    other = ONE.replace(b"id_1", b"id_2").replace(b'"smsMsgId"', b'"SmsMsgId"')
    body = body.replace(b"A", ONE).replace(b"B", ONE.replace(b"id_1", b"id_2"))
    read = read_push(body.replace(b"[b]", b"[" + other + b"]"))
    assert [report.status for report in read.reports] == ["DELIVRD"]
    assert read.unreadable.reason == "Reports stand outside of the list of the push."


TOKEN = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    "body",
    [
        f'{{"list":[{{"id":1,"extend":"{TOKEN}"}}]}}'.encode(),
        f"id=1&extend={TOKEN}&to=1".encode(),
        f"id=1&extend=%22{TOKEN}%22".encode(),
        b"id=1&extend=" + b"".join(b"%%%02X" % one for one in TOKEN.encode()),
        f"<extend>{TOKEN.upper()}</extend>".encode(),
        f"id={TOKEN}9".encode(),
        f"extend={TOKEN}".encode("utf-16"),
    ],
)
def test_what_may_be_a_token_is_found_in_what_cannot_be_read(body):
    assert TOKEN in possible_tokens(body)


def test_many_possible_tokens_are_limited():
    assert possible_tokens(TOKEN[1:].encode()) == []
    many = b",".join(b"%032x" % number for number in range(8000))
    assert len(possible_tokens(many)) == 5000
    assert possible_tokens(b"0" * 100_000 + b" " + TOKEN.encode()) == [TOKEN]


def test_json_that_cannot_be_decoded_again_is_kept():
    for depth in range(900, 1010):
        deep = "[" * depth + "]" * depth
        body = '{"smsMsgId":"a","status":"A","status":"B","x":' + deep + "}x"
        assert read_push(body.encode()).unreadable is not None


def test_a_nested_status_is_no_second_one():
    nested = {**FULL, "more": {"status": 1, "smsMsgId": [2]}}
    assert [report.status for report in batch(nested, FULL)] == ["SMGPERR:52"] * 2


def test_a_field_that_is_nested_too_deeply_costs_no_other_report():
    body = json.dumps({"statusReportList": [FULL, {**FULL, "n": "deep"}, FULL]})
    for depth in range(850, 1050):  # a few of these can be decoded, and not be encoded again
        deep = "[" * depth + "]" * depth
        read = read_push(body.replace('"deep"', deep).encode())
        assert len(read.reports) == 3 or (len(read.reports) == 2 and read.unreadable)


def test_a_field_that_cannot_be_encoded_again_is_left_out():
    deep: list = []
    for _ in range(2000):
        deep = [deep]
    assert json_fields({"status": "DELIVRD", "n": deep, "m": [1]}) == {
        "status": "DELIVRD",
        "m": "[1]",
    }


@pytest.mark.parametrize("opened", ['{"a":', '{"a":[', '[{"a":['])
def test_objects_in_each_other_that_do_not_end_are_parsed_a_few_times(opened):
    body = (opened * 300 + "[" + "1," * MAX_BYTES).encode()[:MAX_BYTES]
    began = process_time()
    assert "damaged" in read_push(body).unreadable.reason
    assert process_time() - began < 2.0  # each beginning took 20 ms


def test_a_report_behind_many_damaged_beginnings_is_read():
    (report,) = read_push(('{"a":[,' * 900 + json.dumps(FULL)).encode()).reports
    assert report.provider_id == "id_1"


def test_a_batch_may_have_more_than_fifty_reports():
    many = [{**FULL, "smsMsgId": f"id_{i}"} for i in range(51)]
    assert [report.provider_id for report in batch(*many)] == [f"id_{i}" for i in range(51)]


def test_names_in_another_case_are_kept_as_they_came():
    fields = {"smsmsgid": "a", "STATUS": "DELIVRD", "Total": "2", "x": "y"}
    [report] = form(fields)
    assert (report.provider_id, report.status, report.total) == ("a", "DELIVRD", 2)
    assert json.loads(report.raw) == fields


def test_no_reason_shows_what_a_stranger_wrote():
    stranger = {"smsMsgId": "a" * 200, "status": "DELIVRD", "+8613112345678" * 9: "s3cret"}
    for body in (urlencode(stranger).encode(), json.dumps([stranger]).encode()):
        said = read_push(body).unreadable.reason
        assert "13112345678" not in said
        assert "s3cret" not in said


# Beginnings that come near to reports, so that more than the first check is fuzzed.
names = st.sampled_from(
    [
        *("smsMsgId", "status", "sequence", "total", "updateTime", "extend", "to"),
        *("smsmsgid", " STATUS", "To", "StatusReportList"),
    ]
)
marks = st.sampled_from(["=", "&", "%", "%00", "%ff", "+", "{", "}", '"', ":", "DELIVRD", "1"])
scraps = names | marks | st.sampled_from(["2018-04-13T06:31:46Z", '{"statusReportList":['])
bodies = st.one_of(
    st.binary(max_size=400),
    st.lists(scraps, max_size=40).map(lambda parts: "".join(parts).encode()),
    st.dictionaries(scraps, st.text(max_size=10)).map(lambda pairs: urlencode(pairs).encode()),
    st.lists(
        st.dictionaries(
            scraps,
            st.text(max_size=10) | st.integers() | st.none() | st.booleans() | st.floats(),
        ),
        max_size=4,
    ).map(lambda reports: json.dumps({"statusReportList": reports}).encode()),
)


@settings(max_examples=500)
@given(body=bodies)
def test_whatever_is_pushed_raises_nothing_and_can_be_stored(body):
    read = read_push(body)
    assert read.reports or read.unreadable
    for report in read.reports:
        assert report.provider_id
        assert report.status
        assert 1 <= report.segment <= report.total <= 1000
        assert report.state in {"interim", "delivered", "undelivered"}
        report.raw.encode()
        texts = [report.token, report.recipient, report.description, report.org_code, report.raw]
        assert not any("\0" in text for text in texts if text)
        assert 0 < len(json.loads(report.raw)) <= MAX_FIELDS
        assert report.updated_at is None or report.updated_at.tzinfo is UTC


KNOWN = {
    "delivered": "DELIVRD",
    "interim": "ACCEPTD",
    "silent": "UNKNOWN EXPIRED",
    "failed": "UNDELIV REJECTD DELETED SMGPERR:52 CL26:-37 MK:0001",
    "refused": "E200015 E200041 E000623 E000630",
    "limit": "MILIMIT LIMIT BEYONDN",
    "content": "CTLIMIT KEYWORD SC:0006",
    "blocked": "BLACK MBBLACK TDBLACK TSBLACK SC:0005",
}


@pytest.mark.parametrize(
    ("status", "why"), [(status, why) for why, line in KNOWN.items() for status in line.split()]
)
def test_a_status_has_the_class_of_the_facts(status, why):
    row = report_status(status)
    assert (row.status, row.reason) == (status, Reason(why))
    assert row.state == {"delivered": "delivered", "interim": "interim"}.get(why, "undelivered")
    assert row.meaning.endswith(".")


def test_every_published_status_has_its_words():
    for code, row in STATUSES.items():
        assert row == report_status(code)
        for text in (row.meaning, row.advice):
            assert text.endswith("."), code
            assert text[0].isupper() or not text[0].isalpha(), code


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        ("ML:0001", "interim", "interim"),
        ("MB:9999", "undelivered", "MB:9999"),
        ("E200099", "undelivered", "E200099"),
        ("-123", "undelivered", "aggregator"),
        ("MI:0079", "undelivered", ""),
    ],
)
def test_a_status_that_begins_like_a_published_one_has_its_words(status, state, words):
    row = report_status(status)
    assert row.state == state
    assert words in row.meaning


def test_nobody_who_unsubscribed_is_to_be_sent_it_again():
    for code in ("SC:0016", "SC:0003", "TDBLACK", "MBBLACK"):
        row = report_status(code)
        assert not row.resendable
        assert "again" not in row.advice
        assert "requeue" not in row.advice


@pytest.mark.parametrize("status", ["7025", "702:1", "2:705", "SC:00031", "BLACKED"])
def test_a_status_that_only_begins_like_a_listed_one_blocks_nothing(status):
    assert report_status("702").reason is Reason.BLOCKED
    assert report_status(status).reason is not Reason.BLOCKED


def test_only_what_was_never_sent_may_be_sent_again():
    resendable = {code for code, row in STATUSES.items() if row.resendable}
    assert resendable == {"E200019", "E000628", "E000629", "E000632"}


def test_an_unknown_status_is_final_and_shown_as_it_is():
    row = report_status("xyz-99")
    assert (row.state, row.status) == ("undelivered", "xyz-99")
    assert "xyz-99" in row.meaning


def test_a_status_is_known_in_small_letters_too():
    assert report_status("delivrd").state == "delivered"


def _library_pairs(text: str) -> list[tuple[str, str]] | None:
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        return None


def _own_pairs(text: str) -> list[tuple[str, str]] | None:
    try:
        return form_pairs(text)
    except UnicodeDecodeError:
        return None


@given(st.text(st.sampled_from("ab=&+%;2C3bBe4E5 \t"), max_size=40))
@settings(max_examples=500)
def test_a_form_is_read_as_the_library_reads_it(text):
    assert _own_pairs(text) == _library_pairs(text)


@pytest.mark.parametrize(
    ("known", "later", "takes"),
    [
        ("ACCEPTD", "UNDELIV", True),
        ("ACCEPTD", "ACCEPTD", False),
        ("EXPIRED", "UNDELIV", True),
        ("EXPIRED", "UNKNOWN", False),
        ("expired", "undeliv", True),
        ("EXPIRED", "unknown", False),
        ("ENROUTE", "DELIVRD", True),
        ("ENROUTE", "UNDELIV", False),
        ("MM:0001", "DELIVRD", True),
        ("mk:0001", "DELIVRD", False),
        ("UNDELIV", "DELIVRD", False),
        ("SC:0003", "DELIVRD", False),
        ("DELIVRD", "EXPIRED", False),
        ("DELIVRD", "DELIVRD", False),
    ],
)
def test_what_nobody_knows_gives_way_to_what_is_known(known, later, takes):
    states = [report_status(status).state for status in (later, known)]
    assert takes_place(states[0], later, states[1], known) is takes


def test_a_status_says_a_result_if_it_has_a_row_that_does():
    for code, row in STATUSES.items():
        found = re.match(RESULT_PATTERN, code)
        assert (found is None) is (row.reason is Reason.SILENT), code
    for code in ("ENROUTE", "77.1*", "", "UNDELIVX", "MM:0001"):
        assert re.match(RESULT_PATTERN, code) is None, code


@given(reports=st.lists(st.dictionaries(names | st.text(max_size=70), scraps), max_size=4))
def test_a_batch_is_read_as_its_reports_alone(reports):
    whole = read_push(json.dumps({"statusReportList": reports}).encode()).reports
    listed = [read_push(json.dumps([report]).encode()).reports for report in reports]
    assert whole == [report for alone in listed for report in alone]


def test_long_values_that_are_allowed_are_kept_as_they_came():
    fields = {**FULL, "a": "x" * 2000, "b": "y" * 2000}
    (report,) = batch(fields)
    assert list(json.loads(report.raw)) == list(fields)
