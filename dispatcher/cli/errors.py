"""The error of a command, and the exit codes."""

from typing import Final

from dispatcher.core.language import N_

FAILED: Final = 1
USED_WRONGLY: Final = 2
NO_APP = N_(
    "no app is configured: set DISPATCHER_APPS__DEFAULT__ENDPOINT, __APP_KEY and __APP_SECRET;"
    " `dispatcher demo` shows how it works without an account."
)


class CommandError(Exception):
    """A command failed. Each line says what, where and what to do."""

    def __init__(self, *lines: str, code: int = FAILED) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.code = code
