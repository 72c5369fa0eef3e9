"""Every command has a help text, and prints it fast."""

import asyncio
import sys

import pytest
from typer.testing import CliRunner

from dispatcher import __version__
from dispatcher.cli import main
from dispatcher.cli.commands import app

COMMANDS = [one.name for one in (*app.registered_commands, *app.registered_groups)]


def test_the_commands_of_the_design_are_there():
    assert {
        "run", "migrate", "demo", "simulate", "enqueue", "status", "show", "cancel", "requeue",
        "settle", "pause", "resume", "check",
    } <= set(COMMANDS)  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_explains_itself(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dispatcher", name, "--help"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Usage: dispatcher {name}")
    assert err == ""


async def test_no_command_at_all_shows_the_help(command):
    ended = await command()
    assert ended.code == 0
    for name in COMMANDS:
        assert f"  {name} " in ended.out


async def test_the_help_lists_each_command_with_a_whole_sentence(command):
    ended = await command("--help")
    listed = ended.out.partition("Commands:")[2].partition("\n\n")[0].strip().splitlines()
    assert len(listed) == len(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("..") for line in listed), ended.out


async def test_help_imports_no_other_package():
    """What makes --help fast: each of these costs 20 to 250 ms."""
    heavy = {"aiohttp", "asyncpg", "pydantic", "rich", "structlog", "uvloop", "msgspec"}
    script = f"import sys, dispatcher.cli.commands; print({heavy} & set(sys.modules))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == "set()"


async def test_the_version_is_that_of_the_package(command):
    ended = await command("--version")
    assert (ended.code, ended.out) == (0, f"dispatcher {__version__}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_is_printed(monkeypatch, shell):
    """The shell is that which runs the command; none does in a service, and in some CI."""
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: shell)
    ended = CliRunner().invoke(app, ["--show-completion"], prog_name="dispatcher")
    assert (ended.exit_code, "_DISPATCHER_COMPLETE" in ended.output) == (0, True)


async def test_completion_lists_matching_commands(monkeypatch, command):
    monkeypatch.setenv("_DISPATCHER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "dispatcher re")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert (await command()).out.split() == ["reports", "replies", "requeue", "resume"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("enqueue x.csv --campaign m", ["may.csv"]),
        ("enqueue x.csv --app s", ["shop"]),
        ("export --app s", ["shop"]),
        ("campaign pause m", ["may.csv"]),
        ("limit s", ["shop"]),
    ],
)
async def test_completion_knows_apps_and_campaigns(monkeypatch, operate, db, words, names):
    await db.execute("INSERT INTO dispatcher.campaign (name, first_id) VALUES ('may.csv', 1)")
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    monkeypatch.setenv("_DISPATCHER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"dispatcher {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    assert (await operate()).out.split() == names
