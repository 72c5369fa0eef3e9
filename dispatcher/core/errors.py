"""The errors that several packages raise and catch."""


class DatabaseUnavailable(Exception):  # noqa: N818 - the word of its readers: a state, not a mistake
    """The database cannot be used now; the text is one line for people.

    The same call may succeed later on a new connection. **The failed call may have committed**:
    repeat only what is safe to repeat. `__cause__` is the driver's error.
    """


class StatementRefused(DatabaseUnavailable):
    """The database answers, and refuses a statement; the text is one line for people.

    Trying again helps only after someone has corrected what it names, such as a missing table.
    """


class ListError(Exception):
    """A list cannot be read or loaded. Each line says what, where and what to do.

    *misused*: the user gave a wrong file or wrong options, and nothing was tried.
    """

    def __init__(self, *lines: str, misused: bool = False) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.misused = misused


def first_error(error: BaseException) -> BaseException:
    """Return *error*, or the first error in it if it is a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
