"""Wrong wall clocks for processes of a storm, by libfaketime; their monotonic clocks go right."""

import tempfile
from pathlib import Path

from dispatcher.postgres.programs import program_folders

FAKE_TIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")  # Debian: libfaketime
HAS_FAKE_TIME = FAKE_TIME.exists()
CACHE_SECONDS = 1  # a process sees a new time after so long, at the latest


def faked(clock: Path) -> dict[str, str]:
    """Return the environment of a process whose clock the file *clock* sets."""
    return {
        "LD_PRELOAD": str(FAKE_TIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",  # the same of older versions
        "FAKETIME_CACHE_DURATION": str(CACHE_SECONDS),
    }


def set_clock(clock: Path, ahead: float) -> None:
    """Set the clock of the processes of the file *clock* so many seconds *ahead*."""
    clock.write_text(f"{ahead:+.0f}")


class FakedPostgres:
    """PostgreSQL's programs, of which the server has a clock that can be set."""

    def __init__(self) -> None:
        """Make a folder that any user can read: the server may have one of its own."""
        self._folder = tempfile.TemporaryDirectory(prefix="chaos-clock-")
        folder = Path(self._folder.name)
        folder.chmod(0o755)
        self.clock = folder / "clock"
        set_clock(self.clock, 0.0)
        self.clock.chmod(0o644)
        real = next(each for each in program_folders() if (each / "postgres").is_file())
        self.programs = folder / "bin"
        self.programs.mkdir()
        for program in real.iterdir():
            if program.name != "postgres":
                (self.programs / program.name).symlink_to(program)
        server = self.programs / "postgres"
        settings = " ".join(f"{name}={value}" for name, value in faked(self.clock).items())
        server.write_text(f'#!/bin/sh\n{settings} exec {real / "postgres"} "$@"\n')
        server.chmod(0o755)

    def remove(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()
