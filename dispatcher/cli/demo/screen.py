"""The output of the demo, on a terminal and without one."""

import csv
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn

from dispatcher.cli.output import screen, table_of
from dispatcher.core.codes import number_code
from dispatcher.core.format import padded
from dispatcher.core.language import _
from dispatcher.core.status import OutcomeSummary
from dispatcher.core.stored_texts import stored_text
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
        self._console.print(
            _("Everything runs on this machine, and nothing is sent to anybody.") + "\n"
        )

    def step(self, name: str, text: str) -> None:
        """Print a finished step with the time since the start."""
        seconds = time.monotonic() - self._began
        self._console.print(f"{seconds:5.1f} s  {padded(name, 10)}  {text}", soft_wrap=True)

    @contextmanager
    def progress(self, total: int) -> Iterator[ShowCounts]:
        """Give a function that shows the numbers of finished messages by state."""
        if not self._console.is_terminal:
            yield self._lines(total)
            return
        bar = min(40, max(8, self._console.width - PROGRESS_TEXT_COLUMNS))
        columns = (
            TextColumn("         " + padded(_("Sending"), 10)),
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
                self.step(_("Sending"), _counted(counts, total))
                next_at = time.monotonic() + PROGRESS_INTERVAL_SECONDS

        return show_counts

    def table(self, rows: list[OutcomeSummary], rejects: Path) -> None:
        """Show the outcomes of the messages, and the refused lines."""
        table = table_of(_("State"), _("Code"), _("Why"))
        table.add_column(_("Messages"), justify="right")
        table.add_column(_("Example"), justify="right")
        for row in rows:
            why = stored_text(row.reason or "") or (row.code and number_code(row.code).meaning)
            table.add_row(
                _(row.state), row.code or "", why or "", f"{row.messages:,}", f"ID {row.example}"
            )
        with rejects.open(encoding="utf-8-sig", newline="") as lines:
            for line in csv.DictReader(lines):
                table.add_row(
                    _("never in"),
                    "",
                    _("line {line}, refused: {reason}").format(
                        line=line["line"], reason=line["reason"]
                    ),
                    "1",
                    "",
                )
        self._console.print("", table, "", sep="\n")

    def show_addresses(self, data: Path, provider: str, worker_log: Path) -> None:
        """Show how to look around while everything runs."""
        psql = next((str(f / "psql") for f in program_folders() if (f / "psql").exists()), "psql")
        self._print(
            _("Look around, from another terminal:"),
            f"""
  {psql} "$(cat {data / "postgres.url"})"
{_STATEMENTS}

  export DISPATCHER_DATA_DIR={data}
  {_program()} status --watch
  {_program()} show ID
""",
            "  " + padded(_("The provider's own count:"), 27) + f"{provider}/_accepted",
            "  " + padded(_("The log of the worker:"), 27) + f"{worker_log}\n",
            _("Let the provider fail (a quota that is spent), insert a message, and look again:"),
            "\n  " + http_command("PUT", f"{provider}/_faults", '[{"fault": "quota"}]'),
            "  " + http_command("DELETE", f"{provider}/_faults"),
        )

    def show_console(self, address: str, token: str) -> None:
        """Show the address and the token of the console."""
        self._print(
            _("The console, in a browser:"),
            f"\n  {address}",
            "  " + _("Token") + _(": ") + token + "\n",
            _("Ctrl-C ends it and removes everything."),
        )

    def finish(self, *, kept: bool) -> None:
        """Print that everything is removed, and what to do next."""
        self.step(_("Done"), _("everything is stopped and removed"))
        if not kept:
            self._print(
                _("Look around in it, with psql and `dispatcher show`: {command}").format(
                    command=f"{_program()} demo --keep"
                )
            )
        settings = {
            "APPS__DEFAULT__ENDPOINT=https://...": _("from the provider's console"),
            "APPS__DEFAULT__APP_KEY=...": "",
            "APPS__DEFAULT__APP_SECRET_FILE=/path/to/secret": "",
            "APPS__DEFAULT__SENDER=...": _("the channel number"),
            "DATABASE_URL=postgresql://...": _("unset: the embedded PostgreSQL"),
        }
        self._print(
            _('The same with a real account (README, "From the demo to a real account"):') + "\n",
            *(
                f"  export DISPATCHER_{each:47} {what and f'# {what}'}".rstrip()
                for each, what in settings.items()
            ),
            *(f"  {_program()} {command}" for command in ("migrate", "check", "run")),
        )

    def _print(self, *lines: str) -> None:
        self._console.print("", *lines, sep="\n", soft_wrap=True)


def _program() -> str:
    """Return what starts this program in any terminal: its environment is on no PATH there."""
    script = Path(sys.executable).with_name("dispatcher")
    if script.exists():
        return shlex.quote(str(script))
    return f"{shlex.quote(sys.executable)} -m dispatcher"


def http_command(method: str, url: str, body: str = "") -> str:
    """Return a command that sends a request: by curl, or by Python where there is no curl."""
    if shutil.which("curl"):
        return f"curl -X {method} {url}" + (f" -d {shlex.quote(body)}" if body else "")
    data = f"b{json.dumps(body)}"
    program = f'from urllib.request import *; urlopen(Request("{url}", {data}, method="{method}"))'
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"


def _counted(counts: dict[str, int], total: int) -> str:
    parts = [
        _("{count} {state}").format(count=f"{number:,}", state=_(state))
        for state, number in counts.items()
    ]
    left = _("{count} to go").format(count=f"{total - sum(counts.values()):,}")
    return _(", ").join([*parts, left])
