"""Research benchmarks run rarely: a name that they import must not be lost unnoticed."""

from importlib import import_module
from pathlib import Path

import pytest

PROGRAMS = {"__init__", "__main__", "process", "stretched"}  # they run when they are imported
MODULES = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if path.stem not in PROGRAMS and not path.stem.startswith("test_")
)


@pytest.mark.parametrize("name", MODULES)
def test_a_research_benchmark_can_be_imported(name):
    import_module(f"bench.{name}")
