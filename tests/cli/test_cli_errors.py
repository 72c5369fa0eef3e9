"""An expected failure is one clear line on stderr, with the right exit code."""

import pytest

from dispatcher.cli.commands import command_tree

APP = {
    "APPS__DEFAULT__ENDPOINT": "http://127.0.0.1:1",
    "APPS__DEFAULT__APP_KEY": "key",
    "APPS__DEFAULT__APP_SECRET": "hunter2",
}
NOWHERE = "postgresql://amy:hunter2@127.0.0.1:1/sms"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense': see `dispatcher --help`."),
        (
            ["show", "seven"],
            "Invalid value for 'ID': it must be a whole number: see `dispatcher show --help`.",
        ),
        (["stats"], "No such command 'stats'. Did you mean 'status'? See `dispatcher --help`."),
        (["show"], "Missing argument 'ID': see `dispatcher show --help`."),
        (["status", "--nonsense"], "No such option: --nonsense: see `dispatcher status --help`."),
        (["template", "add"], "Missing argument 'ID': see `dispatcher template add --help`."),
        (["settle", "token", "perhaps"], "HOW is sent or resend, not perhaps."),
        (["settle", "--since", "soon", "sent"], "or a time such as 2026-01-31T09:00:00+08:00."),
        (["settle", "--until", "0001-01-01T00:00+14:00", "sent"], "2026-01-31T09:00:00+08:00."),
        (["requeue", "--code", "X", "--since", "999999999d"], "2026-01-31T09:00:00+08:00."),
        (["requeue", "--code", "X", "--since", "2026-01-31T09:00"], "2026-01-31T09:00:00+08:00."),
        (["export", "--since", "9999-12-31T23:00-14:00"], "2026-01-31T09:00:00+08:00."),
        (["cost", "--day", "9999-12-31"], "--day takes a day such as 2026-11-01."),
        (["cost", "--day", "0001-01-01"], "--day takes a day such as 2026-11-01."),
        (["cost", "--price", "CN=1e400CNY"], "or is a calling code, such as +44."),
        (["cost", "--price", "CN=1YUANRENMINBI"], "or is a calling code, such as +44."),
        (["cost", "--price", "UK=0.04GBP"], "or is a calling code, such as +44."),
        (["show", "\udcff"], "it must be text in UTF-8: see `dispatcher show --help`."),
        (["enqueue", "nowhere.csv"], "see `dispatcher enqueue --help`."),
        (["migrate", "--status", "--down"], "--status and --down do not go together."),
        (["bench", "--server", "postgresql://amy:hunter2@db..x/sms"], "@host:5432/name."),
    ],
)
async def test_a_wrong_command_line_exits_with_2(command, arguments, words):
    ended = await command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.line.startswith("dispatcher: ")
    assert ended.line.endswith(words)


def whole_numbers(command, path=()):
    """Yield each command that takes whole numbers: its words, and a parameter with its metavar."""
    for parameter in command.params:
        if parameter.type_descriptor.annotation in (int, list[int]):
            name = parameter.opts[0]
            yield [*path, *([name] if name.startswith("--") else [])], parameter.metavar
    for name, each in getattr(command, "commands", {}).items():
        yield from whole_numbers(each, (*path, name))


NEEDED = {"limit": ["app"], "enqueue": [__file__], "move": ["name"]}


@pytest.mark.parametrize(("words", "metavar"), [*whole_numbers(command_tree())])
async def test_no_number_is_greater_than_the_database_takes(command, words, metavar):
    most = 2**63 - 1 if metavar == "ID" else 2**31 - 1
    more = next((NEEDED[word] for word in words if word in NEEDED), [])
    ended = await command(*words, str(10**20), *more)
    assert (ended.code, ended.out) == (2, "")
    assert "it must be" in ended.line
    assert "or less" in ended.line
    assert str(most) in ended.line or words[-1] in ("--processes", "--priority")


async def test_a_value_that_is_no_text_is_one_line(operate):
    for words in (["find", "\udcff"], ["campaign", "show", "\udcff"]):
        ended = await operate(*words)
        assert ended.code == 1
        assert "cannot take a value (DataError, 22000)" in ended.line


async def test_an_export_of_an_unknown_app_says_so(operate, db):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    ended = await operate("export", "--app", "shoop")
    assert (ended.code, ended.line) == (1, "dispatcher: no app is called shoop: known are shop.")
    assert (await operate("export", "--app", "shop")).code == 0


@pytest.mark.parametrize("name", ["run", "status"])
async def test_a_bad_setting_exits_with_2_and_names_itself(command, name):
    ended = await command(name, **APP, POLL_INTERVAL="often")
    assert (ended.code, ended.out) == (2, "")
    assert ended.line.startswith("dispatcher: DISPATCHER_POLL_INTERVAL must be a duration")


async def test_each_bad_setting_has_a_line_of_its_own(command):
    ended = await command("run", LISTEN="everywhere", LOG_LEVL="info")
    assert ended.code == 2
    first, second = ended.err.splitlines()
    assert first == (
        "dispatcher: DISPATCHER_LOG_LEVL is not a setting: did you mean DISPATCHER_LOG_LEVEL?"
    )
    assert second.startswith("dispatcher: DISPATCHER_LISTEN must be HOST:PORT")


async def test_run_without_an_app_says_what_to_set(command):
    ended = await command("run", DATABASE_URL=NOWHERE)
    assert ended.code == 2
    assert "DISPATCHER_APPS__DEFAULT__ENDPOINT" in ended.line


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["status"], ["migrate"]],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
async def test_an_unreachable_database_exits_with_1_and_says_where(command, arguments):
    ended = await command(*arguments, **APP, DATABASE_URL=NOWHERE, LISTEN="127.0.0.1:0")
    assert ended.code == 1
    assert ended.line.startswith("dispatcher: No PostgreSQL answers at 127.0.0.1:1/sms")
    assert "hunter2" not in ended.err


@pytest.mark.parametrize("name", ["run", "status", "migrate", "check", "bench"])
async def test_a_host_that_no_one_can_look_up_is_a_mistake_of_the_settings(command, name):
    ended = await command(name, **APP, DATABASE_URL="postgresql://amy:hunter2@db..x/sms")
    assert (ended.code, ended.out) == (2, "")
    assert ended.line.startswith("dispatcher: DISPATCHER_DATABASE_URL must name hosts that can")


async def test_a_benchmark_names_what_it_cannot_use_before_it_measures(command, tmp_path):
    ended = await command("bench", "--server", NOWHERE)
    assert (ended.code, ended.line.endswith("start it, or correct --server.")) == (1, True)
    file = tmp_path / "missing" / "x.json"
    ended = await command("bench", "--json", file, DATABASE_URL=NOWHERE)
    assert ended.line == (
        f"dispatcher: {file} cannot be written: No such file or directory. Nothing was measured."
    )


async def test_a_database_without_tables_says_how_to_make_them(command, empty_dsn):
    ended = await command("status", DATABASE_URL=empty_dsn)
    assert ended.code == 1
    assert "run `dispatcher migrate`" in ended.line


async def test_commands_do_not_make_a_database_where_there_is_none(command, tmp_path):
    ended = await command("status", DATA_DIR=tmp_path / "data")
    assert ended.code == 1
    assert "there is no database yet" in ended.line
    assert not (tmp_path / "data").exists()
    (tmp_path / "data" / "spool").mkdir(parents=True)  # as a service with another database has it
    ended = await command("pause", "default", DATA_DIR=tmp_path / "data")
    assert ended.code == 1
    assert "there is no database yet: set DISPATCHER_DATABASE_URL" in ended.line
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["spool"]


async def test_the_direct_address_is_the_one_that_commands_use(command, dsn):
    ended = await command("status", DATABASE_URL=NOWHERE, DATABASE_DIRECT_URL=dsn)
    assert ended.code == 0, ended.err
