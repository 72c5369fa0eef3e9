"""TLS to a real PostgreSQL: who is trusted, who is not, and what is said then."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from authority import Authority
from support.exactness import read_books
from support.fixtures import working
from support.messages import finished, insert
from support.provider import app_at
from support.tcp_postgres import loopback_server
from support.waiting import until

from dispatcher.cli import main
from dispatcher.db.database import connect
from dispatcher.postgres.programs import program_folders


def programs_with_tls(given: Path | None) -> Path | None:
    """Return the first folder of PostgreSQL's programs that speak TLS: the wheels' do not."""
    found = (folder for folder in ([given] if given else program_folders()) if folder.is_dir())
    return next((f for f in found if b"libssl" in (f / "postgres").read_bytes()), None)


@pytest.fixture(scope="module")
def authorities() -> Iterator[tuple[Authority, Authority]]:
    """The one that signed the server's certificate, and a stranger."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing: apt install openssl")
    with tempfile.TemporaryDirectory(prefix="tls-") as folder:
        place = Path(folder)
        yield Authority(place, "authority").make(), Authority(place, "stranger").make()


@pytest.fixture(scope="module")
def server(authorities, programs) -> Iterator[str]:
    """The address of a PostgreSQL whose certificate is for `localhost`."""
    programs = programs_with_tls(programs)
    if programs is None:
        pytest.skip("no PostgreSQL here speaks TLS: apt install postgresql")
    with loopback_server(programs, key=authorities[0].key_for("localhost")) as dsn:
        yield dsn.replace("127.0.0.1", "localhost")


@pytest.fixture
def places(server, authorities) -> dict[str, object]:
    """What addresses are made of."""
    authority, stranger = (one.certificate for one in authorities)
    number = server.replace("localhost", "127.0.0.1")
    return {"name": server, "number": number, "authority": authority, "stranger": stranger}


@pytest.fixture
def trusted(server, authorities) -> str:
    return f"{server}?sslmode=verify-full&sslrootcert={authorities[0].certificate}"


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """Set DISPATCHER_DATABASE_URL, and nothing else."""
    for name in os.environ:
        if name.startswith("DISPATCHER_") or name == "PGSSLROOTCERT":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # libpq's default for the CA is in there
    return lambda dsn: monkeypatch.setenv("DISPATCHER_DATABASE_URL", dsn)


def run(*arguments: str) -> int:
    """Run a command here; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["dispatcher", *arguments])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def test_commands_work_with_a_verified_server(trusted, settings, capsys):
    settings(trusted)
    assert run("migrate") == 0
    assert run("status") == 0
    run("check")  # 1: no app is configured
    assert "ok    database" in capsys.readouterr().out


async def test_a_worker_does_the_main_job_over_verified_tls_alone(trusted, sim, tmp_path):
    with working(trusted, tmp_path) as workers:
        await workers.start({"default": app_at(sim.url)})
        db = await connect(trusted)
        ids = await insert(db, 1000)
        await until(lambda: finished(db), what="everything has its end")
        books = await read_books(db, sim.ledger.rows())
        assert books.states == {"accepted": len(ids)}
        assert not books.problems()
        plain = await db.fetchval(
            "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)"
            " WHERE application_name = 'dispatcher' AND NOT ssl"
        )
        assert plain == 0
        await db.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("{name}?sslmode=verify-full&sslrootcert={stranger}", "is not trusted"),
        ("{name}?sslmode=verify-ca&sslrootcert={stranger}", "is not trusted"),
        ("{name}?sslmode=require&sslrootcert={stranger}", "is not trusted"),
        ("{number}?sslmode=verify-full&sslrootcert={authority}", "is for another host name"),
        ("{name}?sslmode=verify-full", "add &sslrootcert=FILE"),
        ("{name}?sslmode=verify-full&sslrootcert=/none.pem", "names /none.pem, which is no file"),
        ("{name}?sslmode=verify-full&sslrootcert=/etc/passwd", "no file with a certificate"),
    ],
)
def test_a_server_that_cannot_be_trusted_is_refused_in_one_line_that_says_what_to_do(
    address, words, places, settings, capsys
):
    settings(address.format_map(places))
    for command in ("migrate", "status"):
        assert run(command) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
        assert "DISPATCHER_DATABASE_URL" in line


def test_a_server_without_tls_is_refused_where_it_is_asked_for(authorities, settings, capsys):
    with loopback_server() as plain:
        settings(f"{plain}?sslmode=verify-full&sslrootcert={authorities[0].certificate}")
        assert run("migrate") == 1
    assert "does not speak TLS" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["require", "prefer"])
async def test_weaker_modes_encrypt_and_trust_anybody(server, settings, mode):
    """The documented limit: a machine in between may show any certificate."""
    settings(server)
    connection = await asyncpg.connect(f"{server.replace('localhost', '127.0.0.1')}?sslmode={mode}")
    assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    await connection.close()
