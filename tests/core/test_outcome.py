"""Verdicts on answers, for each message and for the others of the same request."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.core.codes import REQUEST, Kind
from dispatcher.core.message import (
    Answer,
    Message,
    NoReply,
    NumberResult,
    Reply,
    RequestDraft,
    to_e164,
)
from dispatcher.core.outcome import (
    TOO_LARGE,
    Accepted,
    Deferred,
    EvaluationContext,
    Expired,
    Rejected,
    Resolved,
    ReturnAll,
    Split,
    UnknownResult,
    Verdict,
    evaluate,
    is_retryable,
)
from dispatcher.core.packing import pack
from dispatcher.core.wire import read_answer

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)  # 20:00 at the provider's: four hours of quota
MAX_ATTEMPTS = 5


def message(i: int, **fields) -> Message:
    return Message(
        **{"id": i, "recipient": f"+86131{i:08d}", "template_id": "t", "params": [str(i)]} | fields
    )


def request(*messages: Message) -> RequestDraft:
    requests, too_long = pack(messages, callback=None, token_length=26)
    assert len(requests) == 1
    assert not too_long
    return requests[0]


def result(of: Message, code: str = "000000", recipient: str | None = None) -> NumberResult:
    return NumberResult(recipient or of.recipient, code, f"id-{of.id}", 1)


def accepted(of: Message) -> Accepted:
    return Accepted(of, f"id-{of.id}", 1)


def reply(results=None, *, code="000000", http_status=200, **more) -> Reply:
    return Reply(http_status, code, "", results, **more)


CONTEXT = EvaluationContext(
    elapsed=1.0,
    max_attempts=MAX_ATTEMPTS,
    now=NOON,
    jitter=lambda: 0.0,
    country=lambda recipient: to_e164(recipient)[:3],
)


def verdict(draft: RequestDraft, answer: Answer, **changes) -> Verdict:
    return evaluate(draft, answer, replace(CONTEXT, **changes))


ONE, TWO, THREE = message(1), message(2), message(3)
THREE_NUMBERS = request(ONE, TWO, THREE)


# ---- results by number


def test_all_numbers_accepted_is_done():
    answer = reply([result(m) for m in THREE_NUMBERS.messages])
    assert verdict(THREE_NUMBERS, answer) == Resolved(
        [accepted(ONE), accepted(TWO), accepted(THREE)]
    )


BY_NUMBER = {
    "E200015": Deferred(TWO, "E200015", 15.0, counted=False, throttled=True),
    "E200028": Rejected(TWO, "E200028", "The variables do not fit the template."),
    "E200029": Rejected(TWO, "E200029", "The type of the template does not fit."),
    "E200030": Deferred(TWO, "E200030", 300.0, counted=True),
    "E200031": Rejected(
        TWO, "E200031", "Number, sender or app key failed the provider's protocol check."
    ),
    "E200033": Rejected(TWO, "E200033", "The template is of the wrong type for the sender."),
    "E200041": Rejected(
        TWO, "E200041", "The number stood twice in one request; its first copy was sent."
    ),
    "E299999": Rejected(TWO, "E299999", "An unknown code: E299999."),
    "E000027": Rejected(TWO, "E000027", "A parameter of the request is invalid."),
}


@pytest.mark.parametrize("code", BY_NUMBER)
@pytest.mark.parametrize(
    ("whole", "http_status"),
    [("000000", 200), ("E000510", 200), ("E000510", 400), ("E200037", 400), ("E000027", 400)],
)
def test_a_code_by_a_number_touches_that_number_alone(code, whole, http_status):
    answer = reply(
        [result(ONE), result(TWO, code), result(THREE)], code=whole, http_status=http_status
    )
    assert verdict(THREE_NUMBERS, answer) == Resolved(
        [accepted(ONE), BY_NUMBER[code], accepted(THREE)], throttled=int(code == "E200015")
    )


def test_a_spent_quota_of_a_number_pauses_the_app():
    ended = verdict(THREE_NUMBERS, reply([result(ONE), result(TWO, "E000623"), result(THREE)]))
    waits = Deferred(TWO, "E000623", 0.0, counted=False)
    assert ended.outcomes == [accepted(ONE), waits, accepted(THREE)]
    assert ended.pause.code == "E000623"
    assert ended.pause.until_midnight


def test_a_spent_country_of_a_number_pauses_that_country():
    abroad = message(4, recipient="+2412000000")
    ended = verdict(request(ONE, abroad), reply([result(ONE), result(abroad, "E000630")]))
    assert ended.outcomes == [accepted(ONE), Deferred(abroad, "E000630", 3600.0, counted=False)]
    assert [(each.country, each.until_in) for each in ended.countries] == [("+24", 3600.0)]
    assert ended.pause is None


def test_only_flow_control_slows_the_app_down():
    refused = reply([result(ONE, "E200015"), result(TWO, "E200028"), result(THREE, "E200030")])
    others = reply([result(ONE), result(TWO, "E200028"), result(THREE, "E200030")])
    assert verdict(THREE_NUMBERS, refused).throttled == 1
    assert verdict(THREE_NUMBERS, others).throttled == 0


@given(
    order=st.permutations([1, 0, 2, 3, 4, 5]),
    codes=st.lists(st.sampled_from(["000000", "E200028", "E200015"]), min_size=6, max_size=6),
)
def test_results_in_any_order_are_matched_by_number(order, codes):
    messages = [message(i) for i in range(6)]
    results = [result(m, code) for m, code in zip(messages, codes, strict=True)]
    straight = verdict(request(*messages), reply(results))
    assert verdict(request(*messages), reply([results[i] for i in order])) == straight
    for one, code in zip(straight.outcomes, codes, strict=True):
        assert isinstance(one, Accepted) is (code == "000000")


def test_a_number_missing_from_the_answer_stays_unsure():
    answer = reply([result(ONE), result(THREE, "E200028")])
    assert verdict(THREE_NUMBERS, answer) == Resolved(
        [accepted(ONE), Rejected(THREE, "E200028", "The variables do not fit the template.")],
        unsure=[TWO],
    )


def test_an_answer_without_our_numbers_leaves_the_batch_unsure():
    answer = reply([result(message(9)), result(message(8), "E200015")])
    assert isinstance(verdict(THREE_NUMBERS, answer), UnknownResult)


def test_a_number_that_was_not_sent_is_passed_over():
    answer = reply([result(message(9)), *(result(m) for m in THREE_NUMBERS.messages)])
    assert verdict(THREE_NUMBERS, answer).outcomes == [accepted(m) for m in (ONE, TWO, THREE)]


def test_a_repeated_result_leaves_the_missing_number_unsure():
    answer = reply([result(ONE), result(ONE), result(THREE)])
    assert verdict(THREE_NUMBERS, answer) == Resolved(
        [accepted(ONE), accepted(THREE)], unsure=[TWO]
    )


@pytest.mark.parametrize(
    ("codes", "kept"),
    [
        (["000000", "E200041"], "000000"),
        (["E200041", "000000"], "000000"),
        (["E200015", "000000", "E200028"], "000000"),
        (["E200015", "E200028"], "E200028"),
        (["E200028", "E200015"], "E200028"),
        (["E200030", "E299999"], "E299999"),
    ],
)
def test_accepted_wins_and_flow_control_loses_among_results(codes, kept):
    one = verdict(request(ONE), reply([result(ONE, code) for code in codes])).outcomes[0]
    assert isinstance(one, Accepted) if kept == "000000" else one.code == kept


@pytest.mark.parametrize(
    ("sent", "answered"), [("13112345678", "+8613112345678"), ("+8613112345678", "13112345678")]
)
def test_a_mainland_number_is_matched_in_either_spelling(sent, answered):
    one = message(1, recipient=sent)
    answer = reply([result(one, recipient=answered)])
    assert verdict(request(one), answer) == Resolved([accepted(one)])


def test_an_accepted_number_without_an_id_is_accepted():
    answer = reply([NumberResult(ONE.recipient, "000000")])
    assert verdict(request(ONE), answer) == Resolved([Accepted(ONE, None, None)])


# ---- waiting, attempts and expiry


@pytest.mark.parametrize("throttled", [0, 1, 4, MAX_ATTEMPTS, 100, 32_767])
@pytest.mark.parametrize("expires_in", [None, 1000.0])
@pytest.mark.parametrize("attempt", [1, MAX_ATTEMPTS, 32_767])
def test_flow_control_defers_longer_and_never_rejects(throttled, expires_in, attempt):
    one = message(1, attempt=attempt, throttled=throttled, expires_in=expires_in)
    [became] = verdict(request(one), reply([result(one, "E200015")])).outcomes
    wait = min(600.0, 15.0 * 2 ** min(throttled, 9))
    assert became == Deferred(one, "E200015", wait, counted=False, throttled=True)
    assert became.attempts_spent == attempt - 1
    assert became.times_throttled == min(throttled + 1, 32_767)


@pytest.mark.parametrize("code", ["E200030", "E000000", "E000027", "E000999"])
def test_flow_control_spends_no_attempt_of_other_refusals(code):
    """Else a busy hour rejects what a single later refusal lets wait."""
    one = message(1)
    for _ in range(2 * MAX_ATTEMPTS):
        [became] = verdict(request(one), reply([result(one, "E200015")])).outcomes
        attempt = became.attempts_spent + 1
        one = message(1, attempt=attempt, throttled=became.times_throttled)
    fresh = message(1, throttled=one.throttled)
    by_number = code == "E200030"
    answer = reply([result(one, code)]) if by_number else reply(code=code, http_status=400)
    assert verdict(request(one), answer) == verdict(request(fresh), answer)
    again = [each for each in verdict(request(one), answer).outcomes if isinstance(each, Deferred)]
    assert [each.times_throttled for each in again] == [2 * MAX_ATTEMPTS] * len(again)


def test_jitter_spreads_what_was_refused_together():
    chances = iter([0.0, 0.5, 0.9])
    answer = reply([result(m, "E200015") for m in THREE_NUMBERS.messages])
    waits = [o.wait for o in verdict(THREE_NUMBERS, answer, jitter=lambda: next(chances)).outcomes]
    assert waits == pytest.approx([15.0, 11.25, 8.25])


@pytest.mark.parametrize(("attempt", "kind"), [(1, Deferred), (2, Deferred), (3, Rejected)])
def test_a_template_that_is_not_active_is_tried_three_times(attempt, kind):
    one = message(1, attempt=attempt)
    [became] = verdict(request(one), reply([result(one, "E200030")])).outcomes
    assert isinstance(became, kind)


@pytest.mark.parametrize(
    ("expires_in", "requeued", "kind"),
    [
        (None, False, Deferred),
        (26.0, False, Deferred),
        (25.0, False, Expired),
        (5.0, False, Expired),
        (5.0, True, Deferred),
    ],
)
def test_a_deferral_past_the_expiry_expires_at_once(expires_in, requeued, kind):
    one = message(1, expires_in=expires_in, requeued=requeued)
    answer = reply([result(one, "E200015")])
    [became] = verdict(request(one), answer, elapsed=10.0).outcomes
    assert isinstance(became, kind)


def test_an_accepted_message_past_its_expiry_is_accepted():
    one = message(1, expires_in=0.5)
    assert verdict(request(one), reply([result(one)]), elapsed=9.0).outcomes == [accepted(one)]


# ---- codes of the whole request

PAUSES = {Kind.CONFIGURATION, Kind.CLOCK, Kind.ACCOUNT, Kind.ADDRESS, Kind.QUOTA, Kind.NOT_SENT}
ISOLATED = {Kind.CONTENT, Kind.AMBIGUOUS}
UNSURE = {Kind.RESULT, Kind.UNKNOWN_RESULT}
PAGE_STATUS = {"000000": 200, "E0001": 401, "E0006": 403}


def page_status(code: str) -> int:
    if code.startswith("HTTP "):
        return int(code.removeprefix("HTTP "))
    return PAGE_STATUS.get(code, PAGE_STATUS.get(code[:5], 400))


@pytest.mark.parametrize("results", [None, []], ids=["no result", "empty result"])
@pytest.mark.parametrize("code", REQUEST)
def test_every_code_of_a_request_without_results_has_its_end(code, results):
    answer = reply(results, code=code, http_status=page_status(code))
    whole, alone = verdict(THREE_NUMBERS, answer), verdict(request(ONE), answer)
    row = REQUEST[code]
    if row.kind in PAUSES or code == TOO_LARGE:  # these requests are small
        for ended in (whole, alone):
            assert isinstance(ended, ReturnAll)
            assert ended.pause.code == code
            assert ended.pause.reason.startswith(row.meaning)
            assert ended.pause.reason.endswith(row.advice)
            assert ended.pause.probe_in > 0
    elif row.kind in ISOLATED:
        assert isinstance(whole, Split)
        assert [m for part in whole.parts for m in part.messages] == [ONE, TWO, THREE]
        tried_again = Deferred(ONE, code, 60.0, counted=True)
        rejected = Rejected(ONE, code, row.meaning)
        ended = tried_again if row.kind is Kind.AMBIGUOUS else rejected
        assert alone == Resolved([ended], refused=True)
    elif row.kind is Kind.UNKNOWN:
        assert isinstance(whole, Split)
        assert [type(one) for one in alone.outcomes] == [Deferred]
        assert alone.pause.reason.endswith(row.advice)
    elif row.kind is Kind.COUNTRY:
        assert alone.countries[0].code == code
        assert [type(one) for one in whole.outcomes] == [Deferred] * 3
    else:
        assert row.kind in UNSURE
        assert isinstance(whole, UnknownResult)
        assert isinstance(alone, UnknownResult)


@pytest.mark.parametrize(
    ("code", "first", "longest"),
    [
        ("E000045", 60, 600),
        ("E000104", 60, 600),
        ("E000044", 60, 600),
        ("E000620", 900, 900),
        ("E000623", 300, 3600),
        ("HTTP 404", 60, 600),
        ("HTTP 429", 5, 60),
    ],
)
def test_a_pause_is_probed_after_its_own_time(code, first, longest):
    pause = verdict(THREE_NUMBERS, reply(code=code, http_status=403)).pause
    assert (pause.probe_in, pause.probe_max) == (first, longest)


@pytest.mark.parametrize("code", ["E000044", "E000110"])
@pytest.mark.parametrize(
    ("skew", "said"),
    [(10920.4, "10920 s ahead of"), (-960.0, "960 s behind"), (None, "no Date to compare")],
)
def test_a_clock_error_says_by_how_much(code, skew, said):
    ended = verdict(THREE_NUMBERS, reply(code=code, http_status=400, clock_skew=skew))
    assert said in ended.pause.reason


@pytest.mark.parametrize("http_status", [401, 403])
def test_an_unknown_code_about_the_account_pauses_the_app(http_status):
    ended = verdict(THREE_NUMBERS, reply(code="E000199", http_status=http_status))
    assert ended.pause.code == "E000199"
    assert "E000199" in ended.pause.reason


def test_an_unknown_refusal_is_isolated_deferred_and_pauses():
    refused = reply(code="E000999", http_status=400)
    assert isinstance(verdict(THREE_NUMBERS, refused), Split)
    ended = verdict(request(ONE), refused)
    assert ended.outcomes == [Deferred(ONE, "E000999", 60.0, counted=True)]
    assert ended.pause.code == "E000999"
    assert ended.refused


@pytest.mark.parametrize("http_status", [200, 500])
def test_an_unknown_code_without_a_refusal_is_unsure(http_status):
    ended = verdict(THREE_NUMBERS, reply(code="E000999", http_status=http_status))
    assert isinstance(ended, UnknownResult)


def test_flow_control_of_a_whole_request_defers_all_of_it():
    ended = verdict(THREE_NUMBERS, reply(code="E200015", http_status=400))
    assert ended.throttled == 3
    assert ended.outcomes == [
        Deferred(m, "E200015", 15.0, counted=False, throttled=True) for m in (ONE, TWO, THREE)
    ]


def test_a_template_code_of_a_whole_request_is_isolated():
    assert isinstance(verdict(THREE_NUMBERS, reply(code="E200028", http_status=400)), Split)


def test_halving_isolates_the_bad_entry():
    messages = [message(i) for i in range(400)]
    bad = messages[257]
    waiting, became, requests = [request(*messages)], {}, 0
    while waiting:
        part = waiting.pop()
        requests += 1
        if bad in part.messages:
            answer = reply(code="E000027", http_status=400)
        else:
            answer = reply([result(m) for m in part.messages])
        match verdict(part, answer):
            case Split(parts):
                waiting += parts
            case Resolved(outcomes):
                became |= {one.message.id: one for one in outcomes}
    assert {i for i, one in became.items() if isinstance(one, Rejected)} == {bad.id}
    assert len(became) == 400
    assert requests < 20


@pytest.mark.parametrize(
    ("attempt", "expires_in", "requeued", "became"),
    [
        (1, None, False, Deferred),
        (MAX_ATTEMPTS - 1, None, False, Deferred),
        (MAX_ATTEMPTS, None, False, Rejected),
        (MAX_ATTEMPTS, 86_400.0, False, Deferred),
        (MAX_ATTEMPTS, 86_400.0, True, Rejected),
        (7, 3000.0, False, Expired),
    ],
)
def test_a_system_error_waits_up_to_the_expiry(attempt, expires_in, requeued, became):
    one = message(1, attempt=attempt, expires_in=expires_in, requeued=requeued)
    ended = verdict(request(one), reply(code="E000000", http_status=400))
    assert [type(outcome) for outcome in ended.outcomes] == [became]


@pytest.mark.parametrize(("attempt", "wait"), [(1, 60), (2, 120), (6, 1920), (7, 3600), (99, 3600)])
def test_waits_for_a_system_error_grow_to_an_hour(attempt, wait):
    one = message(1, attempt=attempt, expires_in=1e9)
    [ended] = verdict(request(one), reply(code="E000000", http_status=400)).outcomes
    assert ended.wait == wait


def test_a_spent_country_is_isolated_and_only_it_waits():
    abroad = message(4, recipient="+2412000000", expires_in=600.0)
    late = message(5, recipient="+2412000001")
    spent = reply(code="E000630", http_status=403)
    ended = verdict(request(ONE, abroad, TWO, late), spent)
    assert isinstance(ended, Split)
    assert [part.messages for part in ended.parts] == [[ONE, TWO], [abroad, late]]

    ended = verdict(ended.parts[1], spent)
    assert (ended.countries[0].country, ended.countries[0].until_in) == ("+24", 3600.0)
    assert [type(o) for o in ended.outcomes] == [Expired, Deferred]
    assert ended.outcomes[1] == Deferred(late, "E000630", 3600.0, counted=False)


def test_a_country_waits_no_longer_than_to_midnight():
    late = NOON.replace(hour=15, minute=50)
    ended = verdict(request(ONE), reply(code="E000630", http_status=403), now=late)
    assert ended.countries[0].until_in == 600.0


# ---- no answer


def test_unsent_messages_return_and_the_app_pauses_shortly():
    ended = verdict(THREE_NUMBERS, NoReply("no connection: refused", sent=False))
    assert isinstance(ended, ReturnAll)
    assert (ended.pause.code, ended.pause.probe_in, ended.pause.probe_max) == ("unreachable", 5, 60)
    assert "no connection: refused" in ended.pause.reason


@pytest.mark.parametrize("code", ["no-answer", "timeout", "unreadable"])
def test_a_request_that_may_have_been_sent_is_unsure(code):
    ended = verdict(THREE_NUMBERS, NoReply("cut", sent=True, code=code))
    assert ended == UnknownResult(code, "cut")


def test_no_reason_shows_a_number_or_a_variable():
    secret = message(7, recipient="+8613999999999", params=["s3cret"])
    for code in REQUEST:
        said = repr(verdict(request(secret), reply(code=code, http_status=400)))
        said = said.replace(repr(secret), "")
        assert "3999999999" not in said
        assert "s3cret" not in said


@pytest.mark.parametrize(
    ("code", "stored"),
    [
        ("+8613999999999", "+86139****9999"),
        ("13999999999", "139****9999"),
        ("no such number 13999999999", "no such number …"),
        ("E299999", "E299999"),
    ],
)
def test_no_code_of_a_number_is_stored_with_a_number_in_it(code, stored):
    answer = reply([result(ONE), result(TWO, code), result(THREE)], code="E000510")
    refused = verdict(THREE_NUMBERS, answer).outcomes[1]
    assert (refused.code, "3999999999" in refused.reason) == (stored, False)


@pytest.mark.parametrize(
    "listed",
    [None, "", [], "0", 0, {}, {"originTo": ONE.recipient, "status": "000000"}, [None], [[]],
     json.dumps([{"originTo": ONE.recipient, "status": "000000", "smsMsgId": "x"}])],
)  # fmt: skip
@pytest.mark.parametrize("code", ["000000", "E000510", 0])
def test_a_success_without_a_list_of_results_is_unsure(code, listed):
    body = json.dumps({"code": code, "description": "Success", "result": listed}).encode()
    assert isinstance(verdict(THREE_NUMBERS, read_answer(200, body)), UnknownResult)


@pytest.mark.parametrize(
    ("http_status", "code"), [(401, "E000102"), (400, "E000045"), (403, "E000620")]
)
def test_a_code_pauses_the_app_whatever_encoding_its_words_have(http_status, code):
    for encoding in ("utf-8", "gb18030", "utf-8-sig"):
        body = f'{{"code":"{code}","description":"无效的应用"}}'.encode(encoding)
        refused = verdict(THREE_NUMBERS, read_answer(http_status, body))
        assert isinstance(refused, ReturnAll)
        assert refused.pause.code == code


@pytest.mark.parametrize("http_status", [301, 400, 401, 403, 404, 407, 451])
def test_a_page_of_a_proxy_pauses_the_app_and_loses_nothing(http_status):
    body = b"<html><head><title>Blocked</title></head><body>by the firewall</body></html>"
    refused = verdict(THREE_NUMBERS, read_answer(http_status, body))
    assert isinstance(refused, ReturnAll)
    assert refused.pause.code == f"HTTP {http_status}"


@pytest.mark.parametrize("http_status", [406, 418])
def test_a_page_of_a_firewall_is_for_one_message_or_for_all(http_status):
    """It may refuse what one message contains: the others are sent without it."""
    answer = read_answer(http_status, b"<html><body>Your request was blocked.</body></html>")
    assert isinstance(verdict(THREE_NUMBERS, answer), Split)
    alone = verdict(request(ONE), answer)
    assert [type(one) for one in alone.outcomes] == [Deferred]
    assert alone.pause.code == f"HTTP {http_status}"
    assert "Your request was blocked." in alone.pause.reason
    assert (alone.pause.probe_in, alone.pause.probe_max) == (60.0, 600.0)  # it may be a ban


# ---- another try at once


@pytest.mark.parametrize(
    ("answer", "retryable"),
    [
        (NoReply("refused", sent=False), True),
        (NoReply("cut", sent=True), False),
        (reply(code="HTTP 429", http_status=429), True),
        (reply(code="HTTP 429", http_status=429, retry_after=2.0), True),
        (reply(code="HTTP 429", http_status=429, retry_after=3.0), False),
        (reply(code="HTTP 503", http_status=503), False),
        (reply(code="HTTP 503", http_status=503, retry_after=1.0), False),
        (reply(code="HTTP 502", http_status=502), False),
        (reply(code="HTTP 404", http_status=404), False),
        (reply(code="E000000", http_status=400), False),
        (reply(code="E000000", http_status=500), False),
        (reply(code="E000027", http_status=400), False),
        (reply(code="E000045", http_status=400), False),
        (reply([result(ONE, "E200015"), result(TWO, "E200015")]), False),
        (reply([]), False),
        (reply([result(ONE)]), False),
        (reply([result(ONE, "E200015")], http_status=429), False),
    ],
)
def test_only_requests_that_were_not_sent_are_retryable(answer, retryable):
    assert is_retryable(answer) is retryable


@pytest.mark.parametrize("code", [*REQUEST, "E999999", "E200015", "E200028"])
@pytest.mark.parametrize("http_status", [500, 503, 599])
def test_a_server_error_without_results_is_unknown_whatever_its_code(code, http_status):
    for draft in (THREE_NUMBERS, request(ONE)):
        ended = verdict(draft, reply(code=code, http_status=http_status))
        assert isinstance(ended, UnknownResult)
        assert ended.code == code


@pytest.mark.parametrize(
    ("retry_after", "first", "longest"),
    [(None, 5, 60), (1.0, 5, 60), (90.0, 90, 90), (1e9, 3600, 3600)],
)
def test_a_throttled_app_pauses_as_long_as_the_gateway_asks(retry_after, first, longest):
    answer = reply(code="HTTP 429", http_status=429, retry_after=retry_after)
    pause = verdict(THREE_NUMBERS, answer).pause
    assert (pause.probe_in, pause.probe_max) == (first, longest)


# ---- spellings, places and proxies


@pytest.mark.parametrize(
    "spell",
    [
        lambda number: number.removeprefix("+"),
        lambda number: "00" + number.removeprefix("+"),
        lambda number: number.removeprefix("+86"),
        lambda number: f" {number} ",
        lambda number: number[:6] + "****" + number[-4:],
        lambda _: "",
    ],
)
def test_a_result_is_known_however_it_writes_its_number(spell):
    results = [result(m, recipient=spell(m.recipient)) for m in THREE_NUMBERS.messages]
    results[1] = NumberResult(results[1].recipient, "E200028")
    answer = reply(results, code="E000510")
    resolved = verdict(THREE_NUMBERS, answer)
    assert resolved.outcomes[0] == accepted(ONE)
    assert isinstance(resolved.outcomes[1], Rejected)
    assert resolved.unsure == []


ABROAD = message(4, recipient="+4915112345678")


@pytest.mark.parametrize(
    "written", ["4915112345678", "004915112345678", " 4915112345678", "491511***5678"]
)
def test_a_result_of_a_number_abroad_may_lack_its_plus(written):
    results = [result(ONE), result(ABROAD, recipient=written), result(TWO, "E200028")]
    resolved = verdict(request(ONE, ABROAD, TWO), reply(results))
    assert resolved.outcomes[:2] == [accepted(ONE), accepted(ABROAD)]
    assert isinstance(resolved.outcomes[2], Rejected)


def test_a_number_at_home_is_meant_before_one_that_lacks_its_plus():
    american = message(4, recipient="+13100000001")
    home = message(1, recipient="+8613100000001")
    resolved = verdict(request(home, american), reply([result(home, recipient="13100000001")]))
    assert resolved == Resolved([accepted(home)], unsure=[american])


@pytest.mark.parametrize("written", ["", "+861310000****"])
@pytest.mark.parametrize("code", ["000000", "E200028"])
def test_a_place_does_not_tell_which_of_two_is_sent_again(written, code):
    results = [NumberResult(written, each, "id") for each in ("E200015", code, "E200015")]
    answer = verdict(THREE_NUMBERS, reply(results))
    assert isinstance(answer, UnknownResult)
    alike = [NumberResult(written, "E200015", None)] * 3
    assert not verdict(THREE_NUMBERS, reply(alike)).unsure


def test_without_numbers_a_result_is_missing_when_counts_differ():
    results = [NumberResult("", "000000", "id-1"), NumberResult("", "000000", "id-2")]
    assert isinstance(verdict(THREE_NUMBERS, reply(results)), UnknownResult)


@pytest.mark.parametrize("masked", ["+86139****0001", "139****", "+65****0001", "****"])
def test_a_masked_number_that_names_no_message_leaves_its_place_unsure(masked):
    results = [result(ONE), result(TWO, recipient=masked), result(THREE)]
    assert verdict(THREE_NUMBERS, reply(results)).unsure == [TWO]


def test_masked_numbers_settle_nothing_when_the_counts_differ():
    masked = ONE.recipient[:6] + "****" + ONE.recipient[-4:]
    for results in ([result(ONE, recipient=masked)], [result(ONE, recipient=masked)] * 4):
        assert isinstance(verdict(THREE_NUMBERS, reply(results)), UnknownResult)


def test_a_foreign_number_leaves_the_message_in_its_place_unsure():
    results = [result(ONE), result(TWO, recipient="+4915112345678"), result(THREE)]
    assert verdict(THREE_NUMBERS, reply(results)).unsure == [TWO]


def test_a_code_with_a_blank_is_that_code():
    for blank in ("000000 ", " 000000"):
        results = [result(m, code=blank) for m in THREE_NUMBERS.messages]
        outcomes = verdict(THREE_NUMBERS, reply(results)).outcomes
        assert outcomes == [*map(accepted, (ONE, TWO, THREE))]
    [one] = verdict(request(ONE), reply([result(ONE, code="e200015")])).outcomes
    assert (type(one), one.code) == (Deferred, "E200015")


def test_a_failure_is_never_the_entrys_own_fault():
    answer = reply(code="E000000", http_status=500)
    assert isinstance(verdict(THREE_NUMBERS, answer), UnknownResult)
    assert not is_retryable(answer)


def test_a_large_request_that_is_too_large_is_halved():
    large = request(*(message(i, params=[str(i) * 1500]) for i in range(4)))
    assert isinstance(verdict(large, Reply(413, "HTTP 413", "")), Split)


def test_a_small_request_that_is_too_large_pauses():
    answer = Reply(413, "HTTP 413", "request entity too large")
    refused = verdict(request(ONE), answer)
    assert isinstance(refused, ReturnAll)
    assert 'It said: "request entity too large".' in refused.pause.reason


def test_a_pause_names_the_words_and_the_clocks():
    answer = Reply(401, "APIGW.0301", "signature expired", None, 1000.0)
    refused = verdict(THREE_NUMBERS, answer)
    assert refused.pause.code == "APIGW.0301"
    for words in ("signature expired", "1000 s ahead", "APP_SECRET", "NTP"):
        assert words in refused.pause.reason


def test_an_unsure_request_keeps_the_words_of_a_proxy():
    unsure = verdict(THREE_NUMBERS, Reply(502, "HTTP 502", "upstream reset"))
    assert unsure.reason.endswith('It said: "upstream reset".')


@pytest.mark.parametrize(("seconds", "waits"), [(None, 5.0), (1.0, 5.0), (900.0, 900.0)])
def test_a_proxy_that_asks_to_wait_is_obeyed(seconds, waits):
    answer = Reply(429, "HTTP 429", "", None, None, seconds)
    assert verdict(THREE_NUMBERS, answer).pause.probe_in == waits
    assert is_retryable(answer) == (waits == 5.0)
