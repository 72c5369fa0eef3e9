"""Marks the cases of a test that repeat slowly what its first cases show."""

from collections.abc import Iterable

import pytest


def slow_after(fast: int, cases: Iterable[object]) -> list[object]:
    """Return *cases* for parametrize, all but the first *fast* marked as slow."""
    return [
        case
        if place < fast
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for place, case in enumerate(cases)
    ]
