"""Removes a directory when the process that started it is gone, however it went.

Run as ``python -m dispatcher.cli.demo.broom DIRECTORY`` with a pipe as its standard input: the
pipe ends with the process that holds its other end. A process of its own, because nothing can
be done in one that was killed.
"""

import shutil
import sys
import time
from pathlib import Path

PATIENCE = 30.0  # seconds for a PostgreSQL to stop that still writes into the directory


def main(directory: str) -> int:
    """Wait for the end of standard input, then remove *directory*."""
    sys.stdin.buffer.read()
    deadline = time.monotonic() + PATIENCE
    while Path(directory).exists():
        if time.monotonic() > deadline:
            return 1
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
