"""Figures, ratios of one round, and the fullest second."""

from bench.rate import RequestRecord, fullest_second
from dispatcher.bench.results import Results, percentile, rotated


def test_a_ratio_is_taken_within_each_round():
    results = Results("x")
    for ours, theirs in ((10, 5), (9, 9), (8, 2)):
        results.add("ours", "rate", ours)
        results.add("theirs", "rate", theirs)
    results.compare("rate", "ours", "theirs")
    assert results.ratios[0].values == [2, 1, 4]
    assert results.ratios[0].median == 2


def test_each_round_begins_with_another_variant():
    assert [rotated("abc", number) for number in range(2)] == [["a", "b", "c"], ["b", "c", "a"]]


def test_a_percentile_is_a_value_that_was_measured():
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([5.0], 0.99) == 5.0


def test_the_fullest_second_starts_at_any_request():
    requests = [RequestRecord(at, 10, 10) for at in (0.0, 0.6, 0.9, 1.5, 1.8)]
    assert fullest_second(requests) == 30  # from 0.6 or from 0.9 on
