"""What `./dev speed` refuses."""

from bench.instructions import batch_request
from bench.speed import Entry, compare, last_entry
from dispatcher.bench.posting import encode_request
from dispatcher.core.report import read_push

HERE = {"machine": "x86_64", "python": "3.11.2"}
OTHER = {"machine": "x86_64", "python": "3.14.0"}


def entry(worker: float, environment: dict[str, str] = HERE, commit: str = "abc") -> Entry:
    return Entry(commit, "2026-11-29", "first", environment, {"worker": worker})


def test_two_percent_more_or_fewer_instructions_pass():
    assert compare({"worker": 10_199}, entry(10_000)) == []
    assert compare({"worker": 9_801}, entry(10_000)) == []


def test_more_than_two_percent_more_are_refused():
    [line] = compare({"worker": 10_201}, entry(10_000))
    assert "2.0% more" in line
    assert "at abc" in line
    assert "--record" in line


def test_a_gain_is_recorded_too_so_that_its_loss_is_seen():
    [line] = compare({"worker": 9_000}, entry(10_000))
    assert "10.0% fewer" in line


def test_a_figure_without_a_predecessor_is_refused():
    [line] = compare({"worker": 10_000, "receiver": 1}, entry(10_000))
    assert line.startswith("receiver is new")


def test_only_the_last_entry_of_the_same_environment_counts():
    entries = [entry(1), entry(2, commit="def"), entry(3, OTHER)]
    assert last_entry(entries, HERE) == entries[1]
    assert last_entry(entries[2:], HERE) is None
    assert "no entry" in compare({"worker": 1}, None)[0]


def test_a_batch_post_holds_the_reports_of_its_single_posts():
    single = [encode_request(number, "/reports/t") for number in (1, 2, 3)]
    head, _, body = batch_request(single, "/reports/t").partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    reports = [read_push(each.partition(b"\r\n\r\n")[2]).reports[0] for each in single]
    assert read_push(body).reports == reports
