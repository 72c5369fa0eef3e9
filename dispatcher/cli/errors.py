"""The error of a command, and the exit codes."""

from typing import Final

FAILED: Final = 1
USED_WRONGLY: Final = 2


class CommandError(Exception):
    """A command failed. Each line says what, where and what to do."""

    def __init__(self, *lines: str, code: int = FAILED) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.code = code
