"""What may well happen to a command, and what it exits with then."""

from typing import Final

FAILED: Final = 1
USED_WRONGLY: Final = 2


class CommandError(Exception):
    """The command cannot do its work. Each line says what, where, and what to do about it."""

    def __init__(self, *lines: str, code: int = FAILED) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.code = code
