"""Builds the image with buildah and runs it as it is meant to be run. As root, on Debian:

    apt install buildah debootstrap && ./dev python tests/deploy/image_drill.py [BASE]

BASE is an image with Python; without it one is made with debootstrap. No engine is needed: the
image's file system is mounted read-only, and its command run in it as its user, with one writable
volume, against a PostgreSQL and a provider outside. While requests are on their way it is stopped,
as an engine stops a container, and must end within its grace period; a second one then finishes.
The provider's ledger is the witness.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import aiohttp  # noqa: E402 - found only now
from support.exactness import read_books  # noqa: E402
from support.messages import finished, insert  # noqa: E402
from support.provider import app_at, provider_process  # noqa: E402
from support.tcp_postgres import loopback_server  # noqa: E402
from support.waiting import until  # noqa: E402
from support.worker import environment  # noqa: E402

from dispatcher.db.database import connect  # noqa: E402

MESSAGES = 20_000
GRACE = 60.0  # seconds, as compose.yaml and the manifests give
BUILDAH = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
USER = "10001:10001"
MIRROR = os.environ.get("MIRROR", "http://deb.debian.org/debian")
# Within its own mounts: the image read-only, /proc, /tmp, /run and the volume.
CONTAINER = """
set -e
mount --bind "$IMAGE" "$IMAGE"
mount -t proc proc "$IMAGE/proc"
mount -t tmpfs tmpfs "$IMAGE/tmp"
mount -t tmpfs -o mode=0755 tmpfs "$IMAGE/run"
mount --bind "$VOLUME" "$IMAGE/var/lib/dispatcher"
mount --bind /dev/urandom "$IMAGE/dev/urandom"
mount --bind /dev/null "$IMAGE/dev/null"
mount -o remount,ro,bind "$IMAGE"
exec chroot --userspec=$USER_ID "$IMAGE" "$@"
"""


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def buildah(*arguments: str) -> str:
    ended = subprocess.run(
        ["buildah", *arguments], env=os.environ | BUILDAH, stdout=subprocess.PIPE, check=True
    )
    return ended.stdout.decode().strip()


def made_base(folder: Path) -> str:
    include = "--include=python3,python3-venv,ca-certificates"
    subprocess.run(
        ["debootstrap", "--variant=minbase", include, "bookworm", folder / "base", MIRROR],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    made = buildah("from", "scratch")
    buildah("add", "--quiet", made, str(folder / "base"), "/")
    buildah("commit", "--quiet", "--rm", made, "localhost/python-base")
    return "localhost/python-base"


@contextmanager
def mounted(base: str) -> Iterator[tuple[Path, dict[str, object]]]:
    """Build the image; give its file system, and how it is to be run."""
    options = ["--network", "host", "--format", "docker", "--build-arg", f"BASE={base}"]
    certificates = Path("/etc/ssl/certs")  # of a proxy between this machine and PyPI
    options += ["--volume", f"{certificates}:{certificates}:ro"]
    buildah("build", *options, "-f", "deploy/Dockerfile", "-t", "dispatcher", str(ROOT))
    container = buildah("from", "--pull-never", "localhost/dispatcher")
    try:
        config = json.loads(buildah("inspect", "--type", "image", "localhost/dispatcher"))
        yield Path(buildah("mount", container)), config["Docker"]["config"]
    finally:
        buildah("rm", container)


def start(image: Path, config: dict, volume: Path, *command: str, **more: str):
    given = dict(pair.split("=", 1) for pair in config["Env"]) | more
    return subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", CONTAINER, "container", *config["Entrypoint"], *command],
        env={
            "IMAGE": str(image),
            "VOLUME": str(volume),
            "USER_ID": config["User"],
            "HOME": "/var/lib/dispatcher",
            **given,
            "PATH": given["PATH"] + ":/usr/sbin:/sbin",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def healthy(image: Path, config: dict, port: int, container: subprocess.Popen) -> bool:
    """Ask as the image's HEALTHCHECK does."""
    test = [word.replace("8080", str(port)) for word in config["Healthcheck"]["Test"][1:]]
    test[0] = "/opt/dispatcher/bin/python"
    enter = ["nsenter", "--mount", "--target", str(container.pid)]
    return subprocess.run([*enter, "chroot", str(image), *test], check=False).returncode == 0


def users(container: subprocess.Popen) -> set[str]:
    """Return the users that its process is: real, effective, saved, of its files."""
    status = Path(f"/proc/{container.pid}/status").read_text()
    return set(status.partition("Uid:")[2].partition("\n")[0].split())


def writes_nowhere(image: Path, container: subprocess.Popen) -> bool:
    """Try as root: it is not the owner of files that stops it."""
    tries = "for f in / /opt /etc /usr/bin; do touch $f/x && exit 9; done; true"
    enter = ["nsenter", "--mount", "--target", str(container.pid), "chroot", str(image)]
    ended = subprocess.run([*enter, "sh", "-c", tries], stderr=subprocess.DEVNULL, check=False)
    return ended.returncode == 0


async def drill(image: Path, config: dict, folder: Path) -> None:
    assert config["User"] == USER
    volume = folder / "volume"
    volume.mkdir()
    os.chown(volume, 10001, 10001)
    with loopback_server() as dsn:
        db = await connect(dsn)
        async with provider_process() as provider, aiohttp.ClientSession() as session:
            late = [{"fault": "delay", "seconds": 0.3}]
            async with session.put(f"{provider.url}/_faults", json=late) as answer:
                assert answer.status < 300, await answer.text()
            settings = environment(
                dsn, {"default": app_at(provider.url)}, {"LISTEN": "127.0.0.1:18080"}
            )
            given = {n: v for n, v in settings.items() if n.startswith("DISPATCHER_")}

            def run(*command: str) -> subprocess.Popen:
                return start(image, config, volume, *command, **given)

            migration = run("migrate")
            assert migration.wait(60) == 0, migration.stdout.read()
            await insert(db, MESSAGES)
            first = run("run")
            sent = "SELECT count(*) FROM dispatcher.outcome"
            await until(lambda: db.fetchval(sent), deadline=60, what="it sends")
            assert users(first) == {"10001"}
            assert healthy(image, config, 18080, first)
            assert writes_nowhere(image, first)
            say("not root, read-only, healthy")

            on_their_way = "SELECT count(*) FROM dispatcher.batch WHERE state = 'open'"
            open_now = await until(lambda: db.fetchval(on_their_way), every=0.001, what="requests")
            began = monotonic()
            first.terminate()
            assert await asyncio.to_thread(first.wait, GRACE) == 0, first.stdout.read()
            left = await db.fetchval(
                "SELECT count(*) FROM dispatcher.message_status WHERE state = 'queued'"
            )
            assert left, "it was done before it was stopped: more MESSAGES"
            assert not await db.fetchval(on_their_way)
            say(
                f"stopped in {monotonic() - began:.1f} s with {open_now} requests on their way,"
                f" {left} of {MESSAGES} messages still waiting"
            )

            second = run("run")
            await until(lambda: finished(db), deadline=120, what="everything has its end")
            second.terminate()
            assert await asyncio.to_thread(second.wait, GRACE) == 0
            books = await read_books(db, await provider.ledger())
        await db.close()
        assert not books.problems(), books.problems()
        assert books.states == Counter(accepted=MESSAGES)
        say(f"{MESSAGES} messages accepted once each, by the provider's ledger")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="dispatcher-image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        base = sys.argv[1] if sys.argv[1:] else made_base(folder)
        with mounted(base) as (image, config):
            asyncio.run(drill(image, config, folder))


if __name__ == "__main__":
    main()
