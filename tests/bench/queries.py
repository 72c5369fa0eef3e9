"""Named SQL statements of the research benchmarks."""

from pathlib import Path

from dispatcher.bench.statements import read_queries


def research_query(name: str) -> str:
    """Return statement *name* of ``queries.sql`` beside this file."""
    return read_queries(Path(__file__).with_name("queries.sql"))[name]
