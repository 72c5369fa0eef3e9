"""What the rules for numbers cost an INSERT: `PYTHONPATH=tests ./dev python -m bench.insert_cost`.

valgrind counts the instructions of a PostgreSQL in single-user mode, for a row inserted alone and
for a row of a list. Beside them stand the two constraints that were there before these rules, and
no rule at all.
"""

import asyncio
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from dispatcher.db.database import connect
from dispatcher.db.migrate import migrate
from dispatcher.postgres.programs import find_programs, run_program, server_user
from dispatcher.postgres.server import embedded_server

ALL_PASS = """
CREATE OR REPLACE FUNCTION dispatcher.is_usual_recipient(recipient text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true;
CREATE OR REPLACE FUNCTION dispatcher.has_usual_prefix_and_length(recipient text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true;
DO $$ BEGIN EXECUTE replace(
    pg_get_functiondef('dispatcher.fill_queue'::regproc),
    $x$AND string_agg(right(recipient, -1), '') !~ '[^0-9]'$x$, ''
); END $$;
"""
VARIANTS = {
    "two constraints": f"""{ALL_PASS}
        ALTER TABLE dispatcher.message
            ADD CONSTRAINT recipient_is_digits CHECK (recipient ~ '^[+]?[0-9]+$'),
            ADD CONSTRAINT recipient_is_short CHECK (octet_length(recipient) <= 21);
    """,
    "no rule": ALL_PASS,
    "all rules": "SELECT 1",
}
COLUMNS = "dispatcher.message (recipient, template_id, params)"
ROW = "'8ff55eac1d0b478ab3c06c3c6a492300', '{062569}'"
SINGLE, MORE_SINGLE = 50, 250  # rows; the difference leaves out what starts and ends a backend
LISTED, MORE_LISTED = 500, 1_500


def single_rows(count: int) -> Iterator[str]:
    """Yield the lines that insert *count* rows, each alone."""
    yield f"PREPARE one (text) AS INSERT INTO {COLUMNS} VALUES ($1, {ROW})"
    for number in range(count):
        yield f"EXECUTE one ('+86138{number:08d}')"


def one_list(count: int) -> Iterator[str]:
    """Yield the line that inserts *count* rows together."""
    yield (
        f"INSERT INTO {COLUMNS} SELECT '+86138' || lpad(n::text, 8, '0'), {ROW}"
        f" FROM generate_series(1, {count}) AS n"
    )


def instructions(cluster: Path, database: str, lines: Iterator[str]) -> int:
    """Return the instructions of a PostgreSQL that executes *lines*."""
    user = server_user(cluster)
    postgres = find_programs(user, major=None) / "postgres"
    counted = ["--tool=callgrind", "--callgrind-out-file=/dev/null", str(postgres)]
    alone = ["--single", "-j", "-D", str(cluster), database]
    text = "".join(f"{line};\n\n" for line in lines)
    valgrind = Path(shutil.which("valgrind") or "valgrind")
    _, said = run_program(valgrind, [*counted, *alone], user=user, stdin=text)
    total = re.search(r"Collected : (\d+)", said)
    if total is None or "ERROR:" in said:
        raise SystemExit(said)
    return int(total[1])


async def prepare(dsn: str) -> None:
    """Make a database for each variant."""
    await migrate(dsn)
    parts = urlsplit(dsn)
    template = parts.path.removeprefix("/")
    admin = await connect(urlunsplit(parts._replace(path="/postgres")))
    for place, change in enumerate(VARIANTS.values()):
        await admin.execute(f"CREATE DATABASE variant{place} TEMPLATE {template}")
        variant = await connect(urlunsplit(parts._replace(path=f"/variant{place}")))
        await variant.execute(change)
        await variant.close()
    await admin.close()


def main() -> int:
    """Print the instructions for a row of each variant, and their ratios to the first."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with embedded_server(data) as dsn:
            asyncio.run(prepare(dsn))
        Path(folder).chmod(0o755)
        first: tuple[float, float] | None = None
        for place, name in enumerate(VARIANTS):
            counts = [
                (
                    instructions(data / "postgres", f"variant{place}", rows(more))
                    - instructions(data / "postgres", f"variant{place}", rows(few))
                )
                / (more - few)
                for rows, few, more in (
                    (single_rows, SINGLE, MORE_SINGLE),
                    (one_list, LISTED, MORE_LISTED),
                )
            ]
            first = first or (counts[0], counts[1])
            print(  # noqa: T201 - the figures
                f"{name:16} a row alone {counts[0]:9,.0f} ({counts[0] / first[0] - 1:+.2%}),"
                f" a row of a list {counts[1]:7,.0f} ({counts[1] / first[1] - 1:+.2%})"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
