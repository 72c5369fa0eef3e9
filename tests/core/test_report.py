"""Status reports are parsed from untrusted bytes."""

import json
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.core.report import (
    MAX_FIELDS,
    MAX_FORM_BYTES,
    MAX_JSON_BYTES,
    MAX_REPORTS,
    Malformed,
    Report,
    parse_form,
    parse_json,
)
from dispatcher.core.report_status import STATUSES, Reason, report_status

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


def form(fields: dict[str, str]) -> list[Report] | Malformed:
    return parse_form(urlencode(fields).encode())


def batch(*reports: object) -> list[Report] | Malformed:
    return parse_json(json.dumps({"statusReportList": reports}).encode())


def reason(read: list[Report] | Malformed, status: int = 400) -> str:
    assert isinstance(read, Malformed)
    assert read.status == status
    return read.reason


def test_the_example_of_the_provider_is_read():
    [report] = parse_form(EXAMPLE)
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


def test_unknown_fields_are_kept_in_the_raw_copy():
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


def test_a_segment_past_the_total_raises_the_total():
    [report] = form({**FULL, "total": "1", "sequence": "2"})
    assert (report.segment, report.total) == (2, 2)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2018-04-13T14:31:46+08:00", datetime(2018, 4, 13, 6, 31, 46, tzinfo=UTC)),
        ("2018-04-13 06:31:46", datetime(2018, 4, 13, 6, 31, 46, tzinfo=UTC)),
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


MALFORMED_FORMS = [
    (b"", "lacks smsMsgId or status"),
    (b"hello", "no form"),
    (b"smsMsgId=a", "lacks smsMsgId or status"),
    (b"smsMsgId=&status=DELIVRD", "lacks smsMsgId or status"),
    (b"smsMsgId=%20&status=DELIVRD", "lacks smsMsgId or status"),
    (b"smsMsgId=a&status=", "lacks smsMsgId or status"),
    (b"smsMsgId=a&smsMsgId=b&status=DELIVRD", "stands twice"),
    (b"smsMsgId=a&status=%ff", "UTF-8"),
    ("smsMsgId=ü&status=DELIVRD".encode(), "UTF-8"),
    (b"smsMsgId=a%00&status=DELIVRD", "NUL"),
    (b"smsMsgId=a&status=DELIVRD&x%00=1", "NUL"),
    (b"smsMsgId=a&status=DELIVRD&sequence=0", "from 1 to 1000"),
    (b"smsMsgId=a&status=DELIVRD&sequence=-1", "from 1 to 1000"),
    (b"smsMsgId=a&status=DELIVRD&total=1001", "from 1 to 1000"),
    (b"smsMsgId=a&status=DELIVRD&total=1.5", "from 1 to 1000"),
    (b"smsMsgId=a&status=DELIVRD&total=" + "²".encode("latin-1"), "UTF-8"),
    (b"smsMsgId=a&status=DELIVRD&total=%C2%B2", "from 1 to 1000"),
    (b"smsMsgId=" + b"a" * 129 + b"&status=DELIVRD", "smsMsgId is longer than 128"),
    (b"smsMsgId=a&status=" + b"a" * 65, "status is longer than 64"),
    (b"smsMsgId=a&status=DELIVRD&extend=" + b"a" * 257, "extend is longer than 256"),
    (b"smsMsgId=a&status=DELIVRD&to=" + b"1" * 65, "to is longer than 64"),
    (b"smsMsgId=a&status=DELIVRD&statusDesc=" + b"1" * 2049, "A field is longer than 2048"),
    (b"smsMsgId=a&status=DELIVRD&" + b"x" * 65 + b"=1", "name is longer than 64"),
    (b"smsMsgId=a&status=DELIVRD" + b"".join(b"&f%d=1" % i for i in range(MAX_FIELDS)), "fields"),
]


@pytest.mark.parametrize(("body", "said"), MALFORMED_FORMS, ids=lambda value: repr(value)[:40])
def test_a_malformed_form_is_refused_with_its_reason(body, said):
    assert said in reason(parse_form(body))


MALFORMED_BATCHES = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"\xff", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"null", "no statusReportList"),
    (b"[]", "no statusReportList"),
    (b"{}", "no statusReportList"),
    (b'{"statusReportList":{}}', "no statusReportList"),
    (b'{"statusReportList":[]}', "no statusReportList"),
    (b'{"statusReportList":[1]}', "no object"),
    (b'{"statusReportList":[{}]}', "lacks smsMsgId or status"),
    (b'{"statusReportList":[{"smsMsgId":{},"status":"X"}]}', "neither text nor number"),
    (b'{"statusReportList":[{"smsMsgId":"a","status":"X","n":[1]}]}', "neither text nor number"),
    (b'{"statusReportList":[{"smsMsgId":"a\\u0000","status":"X"}]}', "NUL"),
    (b'{"statusReportList":[{"smsMsgId":"a","status":"\\ud800"}]}', "not JSON"),
]


@pytest.mark.parametrize(("body", "said"), MALFORMED_BATCHES, ids=lambda value: repr(value)[:40])
def test_a_malformed_batch_is_refused_with_its_reason(body, said):
    assert said in reason(parse_json(body))


def test_the_sound_reports_of_a_malformed_batch_are_kept():
    read = batch(FULL, {"smsMsgId": "b"}, {**FULL, "smsMsgId": "c"}, 7)
    assert reason(read) == "2 of 4 reports are malformed. A report lacks smsMsgId or status."
    assert [report.provider_id for report in read.reports] == ["id_1", "c"]


def test_a_batch_may_have_fifty_reports_and_no_more():
    fifty = [{**FULL, "smsMsgId": f"id_{i}"} for i in range(MAX_REPORTS)]
    assert [report.provider_id for report in batch(*fifty)] == [f"id_{i}" for i in range(50)]
    assert "more than 50" in reason(batch(*fifty, FULL), 413)


def test_a_body_over_its_limit_is_refused_before_it_is_read():
    assert "longer than" in reason(parse_form(b"a" * (MAX_FORM_BYTES + 1)), 413)
    assert "longer than" in reason(parse_json(b"[" * (MAX_JSON_BYTES + 1)), 413)


def test_no_reason_shows_what_a_stranger_wrote():
    stranger = {"smsMsgId": "a", "status": "DELIVRD", "+8613112345678" * 9: "s3cret"}
    for read in (form(stranger), batch(stranger), form({"<script>": "\0", **FULL})):
        assert "13112345678" not in reason(read)
        assert "script" not in reason(read)


# Beginnings that come near to reports, so that more than the first check is fuzzed.
names = st.sampled_from(["smsMsgId", "status", "sequence", "total", "updateTime", "extend", "to"])
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


@settings(max_examples=1000)
@given(body=bodies)
@pytest.mark.parametrize("parse", [parse_form, parse_json])
def test_any_push_is_parsed_and_can_be_stored(parse, body):
    read = parse(body)
    if isinstance(read, Malformed):
        assert read.reason
        assert read.status in {400, 413}
    for report in read.reports if isinstance(read, Malformed) else read:
        assert report.provider_id
        assert report.status
        assert 1 <= report.segment <= report.total <= 1000
        assert report.state in {"interim", "delivered", "undelivered"}
        texts = [report.token, report.recipient, report.description, report.org_code, report.raw]
        assert not any("\0" in text for text in texts if text)
        assert isinstance(json.loads(report.raw), dict)
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


def test_every_row_of_the_table_is_a_known_status():
    assert set(STATUSES) <= set(" ".join(KNOWN.values()).split())


def test_an_unknown_status_is_final_and_shown_as_it_is():
    row = report_status("xyz-99")
    assert (row.state, row.status) == ("undelivered", "xyz-99")
    assert "xyz-99" in row.meaning


def test_a_status_is_known_in_small_letters_too():
    assert report_status("delivrd").state == "delivered"
