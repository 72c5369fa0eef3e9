"""The output of the demo, on a terminal and without one."""

import csv
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn

from dispatcher.cli.output import screen, table_of
from dispatcher.core.codes import number_code
from dispatcher.core.status import OutcomeSummary
from dispatcher.postgres.programs import program_folders

_STATEMENTS = """\
      SELECT * FROM dispatcher.message_status LIMIT 10;
      INSERT INTO dispatcher.message (recipient, template_id)
      VALUES ('+8613100000000', '9e8d7c6b5a493827160fe1d2c3b4a596') RETURNING id;"""

PROGRESS_TEXT_COLUMNS = 72  # of a progress line, besides its bar
PROGRESS_INTERVAL_SECONDS = 1.0  # between progress lines without a terminal

ShowCounts = Callable[[dict[str, int]], None]


class Screen:
    """The demo's output: timed steps, a progress bar, a table, and what to do next."""

    def __init__(self) -> None:
        self._console = screen()
        self._began = time.monotonic()
        self._console.print("Everything runs on this machine, and nothing is sent to anybody.\n")

    def step(self, name: str, text: str) -> None:
        """Print a finished step with the time since the start."""
        seconds = time.monotonic() - self._began
        self._console.print(f"{seconds:5.1f} s  {name:10}  {text}", soft_wrap=True)

    @contextmanager
    def progress(self, total: int) -> Iterator[ShowCounts]:
        """Give a function that shows the numbers of finished messages by state."""
        if not self._console.is_terminal:
            yield self._lines(total)
            return
        bar = min(40, max(8, self._console.width - PROGRESS_TEXT_COLUMNS))
        columns = (
            TextColumn("         Sending   "),
            BarColumn(bar),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task("", total=total)

            def show_counts(counts: dict[str, int]) -> None:
                progress.update(
                    task, completed=sum(counts.values()), description=_counted(counts, total)
                )

            yield show_counts

    def _lines(self, total: int) -> ShowCounts:
        next_at = time.monotonic()

        def show_counts(counts: dict[str, int]) -> None:
            nonlocal next_at
            if time.monotonic() >= next_at or sum(counts.values()) == total:
                self.step("Sending", _counted(counts, total))
                next_at = time.monotonic() + PROGRESS_INTERVAL_SECONDS

        return show_counts

    def table(self, rows: list[OutcomeSummary], rejects: Path) -> None:
        """Show the outcomes of the messages, and the refused lines."""
        table = table_of("State", "Code", "Why")
        table.add_column("Messages", justify="right")
        table.add_column("For example", justify="right")
        for row in rows:
            why = row.reason or (number_code(row.code).meaning if row.code else "")
            table.add_row(row.state, row.code or "", why, f"{row.messages:,}", f"ID {row.example}")
        with rejects.open(encoding="utf-8-sig", newline="") as lines:
            for line in csv.DictReader(lines):
                table.add_row(
                    "never in",
                    "",
                    f"line {line['line']}, refused: {line['reason']}",
                    "1",
                    "",
                )
        self._console.print("", table, "", sep="\n")

    def show_addresses(self, data: Path, provider: str, worker_log: Path) -> None:
        """Show how to look around while everything runs."""
        psql = next((str(f / "psql") for f in program_folders() if (f / "psql").exists()), "psql")
        self._console.print(
            f"""
Look around, from another terminal:

  {psql} "$(cat {data / "postgres.url"})"
{_STATEMENTS}

  export DISPATCHER_DATA_DIR={data}
  dispatcher status --watch
  dispatcher show ID

  The provider's own count:  {provider}/_accepted
  What the worker says:      {worker_log}

Let the provider fail (a quota that is spent), insert a message, and see what they say:

  curl -X PUT {provider}/_faults -d '[{{"fault": "quota"}}]'
  curl -X DELETE {provider}/_faults""",
            soft_wrap=True,
        )

    def show_console(self, address: str, token: str) -> None:
        """Show the address and the token of the console."""
        self._console.print(
            f"""
The console, in a browser:

  {address}
  Token: {token}

Ctrl-C ends it and removes everything.""",
            soft_wrap=True,
        )

    def finish(self, *, kept: bool) -> None:
        """Print that everything is removed, and what to do next."""
        self.step("Done", "everything is stopped and removed")
        look = (
            ""
            if kept
            else "\nLook around in it, with psql and `dispatcher show`: dispatcher demo --keep\n"
        )
        self._console.print(
            f"""{look}
The same with a real account (README, "From the demo to a real account"):

  export DISPATCHER_APPS__DEFAULT__ENDPOINT=https://...      from the provider's console
  export DISPATCHER_APPS__DEFAULT__APP_KEY=...
  export DISPATCHER_APPS__DEFAULT__APP_SECRET_FILE=/path/to/secret
  export DISPATCHER_APPS__DEFAULT__SENDER=...                the channel number
  export DISPATCHER_DATABASE_URL=postgresql://...            unset: the embedded PostgreSQL
  dispatcher check
  dispatcher run""",
            soft_wrap=True,
        )


def _counted(counts: dict[str, int], total: int) -> str:
    parts = [f"{number:,} {state}" for state, number in counts.items()]
    return ", ".join([*parts, f"{total - sum(counts.values()):,} to go"])
