"""Deletes the demo's temporary directory after its parent process exits, even by SIGKILL.

Run as ``python -m dispatcher.cli.demo.cleanup DIRECTORY`` with a pipe as standard input: the pipe
closes when the parent exits. It is a separate process because a killed one cannot clean up.
"""

import shutil
import sys
import time
from pathlib import Path

DELETE_TIMEOUT_SECONDS = 30.0  # a stopping PostgreSQL may still write into the directory


def main(directory: str) -> int:
    """Wait for the end of standard input, then remove *directory*."""
    sys.stdin.buffer.read()
    deadline = time.monotonic() + DELETE_TIMEOUT_SECONDS
    while Path(directory).exists():
        if time.monotonic() > deadline:
            return 1
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
