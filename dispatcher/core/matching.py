"""Matching: which result of an answer is a number's. The order of results is not promised."""

from collections.abc import Iterable

from dispatcher.core.codes import Kind, number_code
from dispatcher.core.message import NumberResult, canonical


def by_number(results: Iterable[NumberResult]) -> dict[str, NumberResult]:
    """Return one result for each number, by its canonical form.

    Of several for one number, accepted wins, for then it was sent; and a code that passes with
    time loses, for a number is sent again only if nothing speaks against it.
    """
    answers: dict[str, NumberResult] = {}
    for one in results:
        number = canonical(one.recipient)
        known = answers.setdefault(number, one)
        if known is not one and _weight(one) > _weight(known):
            answers[number] = one
    return answers


def _weight(one: NumberResult) -> int:
    match number_code(one.code).kind:
        case Kind.ACCEPTED:
            return 2
        case Kind.LATER | Kind.NOT_YET:
            return 0
        case _:
            return 1
