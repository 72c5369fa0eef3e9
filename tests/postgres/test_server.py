"""The embedded PostgreSQL starts in any directory, and stops with its parent process."""

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

from dispatcher.postgres import programs as programs_module
from dispatcher.postgres.programs import EmbeddedError, find_programs, server_user
from dispatcher.postgres.server import embedded_server, running_server

AS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
QUICK = {"fsync": "off"}
NOBODY_UID = 65534


def query(dsn: str, statement: str) -> object:
    """Return the value of *statement*, run over a new connection."""

    async def querying() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(querying())


@pytest.fixture(scope="module")
def made(tmp_path_factory, programs) -> Path:
    """A data directory with data and without a running server."""
    data_dir = tmp_path_factory.mktemp("made")
    with embedded_server(data_dir, settings=QUICK, programs=programs):
        pass
    return data_dir


@pytest.fixture
def running(made, programs):
    """A running server: its data directory and its address."""
    with embedded_server(made, settings=QUICK, programs=programs) as dsn:
        yield made, dsn


def test_data_survive_a_restart(tmp_path, programs):
    data_dir = tmp_path / "not" / "there yet"
    with embedded_server(data_dir, settings=QUICK, programs=programs) as dsn:
        query(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        first = postmaster(data_dir)
    assert not alive(first)
    assert running_server(data_dir) is None
    with embedded_server(data_dir, settings=QUICK, programs=programs) as again:
        assert query(again, "SELECT n FROM kept") == 7
        assert again == dsn  # a stored address stays valid


def test_settings_are_passed_to_the_server(made, programs):
    settings = QUICK | {"shared_buffers": "16MB"}
    with embedded_server(made, settings=settings, programs=programs) as dsn:
        assert query(dsn, "SHOW shared_buffers") == "16MB"
        assert query(dsn, "SHOW fsync") == "off"


def test_the_address_file_works_and_only_its_owner_can_read_it(running):
    data_dir, _ = running
    file = data_dir / "postgres.url"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    address = file.read_text().strip()
    assert "@127.0.0.1:" in address
    assert query(address, "SELECT 1") == 1


def test_tcp_requires_the_password(running):
    data_dir, _ = running
    address = (data_dir / "postgres.url").read_text().strip()
    user, _, host = address.rpartition("@")
    with pytest.raises(asyncpg.InvalidPasswordError):
        query(f"{user.rpartition(':')[0]}:wrong@{host}", "SELECT 1")


@only_root
def test_another_system_user_cannot_use_the_socket(programs):
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name)
        data_dir.chmod(0o755)  # open, so that only the cluster's own permissions protect it
        with embedded_server(data_dir, settings=QUICK, programs=programs) as dsn:

            def connect() -> str:
                try:
                    query(dsn, "SELECT 1")
                except (OSError, asyncpg.PostgresError) as refused:
                    return type(refused).__name__
                return "connected"

            assert as_user(NOBODY_UID - 1, connect) == "PermissionError"  # by the directory's mode
            # PostgreSQL refuses nobody too, because other programs run as nobody.
            assert as_user(NOBODY_UID, connect) == "InvalidAuthorizationSpecificationError"


def test_a_lost_address_file_is_replaced_with_a_new_password(made, programs):
    before = (made / "postgres.url").read_text()
    (made / "postgres.url").unlink()
    with embedded_server(made, settings=QUICK, programs=programs):
        after = (made / "postgres.url").read_text()
        assert query(after.strip(), "SELECT 1") == 1
    assert before != after


def test_tcp_is_used_where_the_socket_path_is_too_long(tmp_path, programs):
    data_dir = tmp_path / ("long" * 25)
    with embedded_server(data_dir, settings=QUICK, programs=programs) as dsn:
        assert "@127.0.0.1:" in dsn
        assert query(dsn, "SELECT 1") == 1


@only_linux
def test_the_server_stops_when_its_parent_is_killed(made, programs):
    with owner(made, programs) as (process, dsn):
        assert query(dsn, "SELECT 1") == 1
        server = postmaster(made)
        process.send_signal(signal.SIGKILL)
        until_dead(server)
    with embedded_server(made, settings=QUICK, programs=programs) as again:
        assert query(again, "SELECT 1") == 1


@only_linux
def test_the_server_stops_under_load_when_its_parent_is_killed(made, programs):
    with owner(made, programs) as (process, dsn):
        work = threading.Thread(target=lambda: _ignoring(query, dsn, "SELECT pg_sleep(60)"))
        work.start()
        while not query(dsn, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            pass
        server = postmaster(made)
        process.send_signal(signal.SIGKILL)
        until_dead(server)
        work.join(60)
        assert not work.is_alive()


def _ignoring(function, *arguments) -> None:
    with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        function(*arguments)


@only_linux
def test_the_next_start_stops_a_leftover_server(made, programs, monkeypatch):
    monkeypatch.setattr(programs_module, "signal_on_parent_exit", lambda *_: None)  # as on macOS
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
        assert query(dsn, "SELECT 1") == 1


@only_linux
def test_a_reused_process_id_in_postmaster_pid_is_ignored(made, programs):
    fake = f"{os.getpid()}\n{made / 'postgres'}\n1\n5432\n.\n127.0.0.1\n1 1\nready\n"
    (made / "postgres" / "postmaster.pid").write_text(fake)
    with embedded_server(made, settings=QUICK, programs=programs) as dsn:
        assert query(dsn, "SELECT 1") == 1


def test_the_server_has_a_session_of_its_own(running):
    data_dir, _ = running
    assert os.getsid(postmaster(data_dir)) != os.getsid(0)


@only_linux
def test_the_server_inherits_no_secret_variables(made, programs, monkeypatch):
    monkeypatch.setenv("DISPATCHER_APPS__DEFAULT__APP_SECRET", "hidden")
    monkeypatch.setenv("PGPORT", "1")
    with embedded_server(made, settings=QUICK, programs=programs):
        seen = Path(f"/proc/{postmaster(made)}/environ").read_bytes()
    assert b"DISPATCHER" not in seen
    assert b"PGPORT" not in seen


def test_a_second_start_names_the_process_that_holds_the_lock(made, programs):
    with owner(made, programs) as (process, _):
        with (
            pytest.raises(EmbeddedError, match=f"in use by process {process.pid}: stop that"),
            embedded_server(made, settings=QUICK, programs=programs),
        ):
            pass
        assert alive(postmaster(made))


def test_another_process_finds_the_running_server(made, programs):
    with owner(made, programs) as (_, dsn):
        assert running_server(made) == dsn
        assert query(dsn, "SELECT 1") == 1


def test_an_exception_inside_passes_unchanged_and_stops_the_server(made, programs):
    servers: list[int] = []

    def fail_inside() -> None:
        with embedded_server(made, settings=QUICK, programs=programs):
            servers.append(postmaster(made))
            raise PermissionError("mine")

    with pytest.raises(PermissionError, match="mine"):
        fail_inside()
    assert not alive(servers[0])


def test_a_start_outside_of_the_main_thread_is_refused(made, programs):
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


def test_an_interrupted_creation_of_the_data_is_repeated(tmp_path, programs):
    half = tmp_path / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with embedded_server(tmp_path, settings=QUICK, programs=programs) as dsn:
        assert query(dsn, "SELECT 1") == 1
    assert not half.exists()


@only_root
def test_root_uses_the_real_path_where_all_users_may_pass(programs):
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name)
        data_dir.chmod(0o755)
        with embedded_server(data_dir, settings=QUICK, programs=programs) as dsn:
            assert query(dsn, "SHOW data_directory") == str(data_dir / "postgres")


@only_root
def test_for_root_the_server_runs_as_nobody_below_a_private_directory(running):
    data_dir, dsn = running
    assert stat.S_IMODE(data_dir.parent.stat().st_mode) & 0o001 == 0
    assert Path(f"/proc/{postmaster(data_dir)}").stat().st_uid == NOBODY_UID
    assert query(dsn, "SELECT pg_relation_filepath('pg_class') IS NOT NULL")


@only_root
def test_root_continues_with_the_data_of_an_ordinary_user(programs):
    folder = find_programs(server_user(Path("/none")), major=None, folder=programs).folder
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name)
        os.chown(data_dir, NOBODY_UID, NOBODY_UID)

        def start() -> str:
            with embedded_server(data_dir, settings=QUICK, programs=folder) as dsn:
                query(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
                return f"uid {Path(f'/proc/{postmaster(data_dir)}').stat().st_uid}"

        assert as_user(NOBODY_UID, start) == f"uid {NOBODY_UID}"
        with embedded_server(data_dir, settings=QUICK, programs=folder) as dsn:
            assert query(dsn, "SELECT n FROM kept") == 7


@only_root
@pytest.mark.slow
def test_programs_that_nobody_cannot_reach_are_copied_once(tmp_path, monkeypatch):
    folder = next(programs_module.program_folders())
    if "site-packages" not in str(folder):
        pytest.skip("no package with programs is installed")
    package = folder.parent.parent
    hidden = tmp_path / "site-packages"
    shutil.copytree(package, hidden / package.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, hidden / libraries.name, symlinks=True)
    with tempfile.TemporaryDirectory() as cache:
        monkeypatch.setattr(programs_module, "COPIES_FOLDER", Path(cache))
        hidden_programs = hidden / package.name / "pginstall" / "bin"
        for _ in range(2):
            with embedded_server(
                tmp_path / "data", settings=QUICK, programs=hidden_programs
            ) as dsn:
                program = Path(f"/proc/{postmaster(tmp_path / 'data')}/exe").readlink()
                assert program.is_relative_to(cache)
                assert query(dsn, "SELECT 1") == 1
        assert len(list(Path(cache).iterdir())) == 1


def start_error(data_dir: Path, programs: Path | None = None) -> str:
    """Return the one line of the error with which a start fails."""
    with (
        pytest.raises(EmbeddedError) as refused,
        embedded_server(data_dir, settings=QUICK, programs=programs),
    ):
        pass
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_without_programs_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(programs_module, "PACKAGES", ())
    monkeypatch.setattr(programs_module, "DEBIAN_FOLDER", tmp_path)
    line = start_error(tmp_path)
    assert "pip install '.[embedded]'" in line
    assert "DISPATCHER_DATABASE_URL" in line


def test_data_of_another_major_version_are_refused(made, programs):
    file = made / "postgres" / "PG_VERSION"
    before = file.read_text()
    file.write_text("9\n")
    try:
        assert "The data are of PostgreSQL 9, and only" in start_error(made, programs)
    finally:
        file.write_text(before)


def test_a_file_at_the_path_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for data_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "cannot be written" in start_error(data_dir)


@only_root
def test_a_directory_of_another_user_is_refused():
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        line = as_user(NOBODY_UID, lambda: start_error(Path(name)))
    assert "cannot be written (Permission denied): set DISPATCHER_DATA_DIR" in line


@only_root
def test_data_of_another_user_are_refused_with_both_names(made, programs):
    cluster = made / "postgres"
    owner_before = cluster.stat().st_uid
    os.chown(cluster, 0, 0)
    try:
        line = start_error(made, programs)
    finally:
        os.chown(cluster, owner_before, owner_before)
    assert "belongs to root, and PostgreSQL would run as nobody" in line


@only_root
def test_a_full_disk_is_reported(tmp_path, programs):
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=4m tmpfs '{small}' 2>/dev/null") != 0:
        pytest.skip("no right to mount here")
    try:
        line = start_error(small, programs)
    finally:
        os.system(f"umount '{small}'")
    assert "is full: make room there" in line


@only_root
def test_root_without_a_user_nobody_is_refused(tmp_path, programs, monkeypatch):
    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)
    assert "no user called nobody" in start_error(tmp_path, programs)


def test_the_servers_own_error_is_reported_in_one_line(made, programs):
    with (
        pytest.raises(EmbeddedError, match='unrecognized configuration parameter "nonsense"'),
        embedded_server(made, settings={"nonsense": "1"}, programs=programs),
    ):
        pass
    with embedded_server(made, settings=QUICK, programs=programs) as dsn:
        assert query(dsn, "SELECT 1") == 1


@pytest.mark.parametrize(
    ("known", "name"), [({"dispatcher", "nobody"}, "dispatcher"), ({"nobody"}, "nobody")]
)
def test_data_that_root_makes_belong_to_a_user_of_their_own(monkeypatch, tmp_path, known, name):
    asked: list[str] = []

    def find(wanted: str) -> pwd.struct_passwd:
        asked.append(wanted)
        if wanted not in known:
            raise KeyError(wanted)
        return pwd.getpwuid(os.getuid())

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", find)
    server_user(tmp_path / "none")
    assert asked[-1] == name
