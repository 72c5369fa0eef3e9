"""The errors that several packages raise and catch, and the words of the system's own."""

from dispatcher.core.language import N_, _

_REASONS = (  # of the system, in strerror's words, that a user meets
    N_("No such file or directory"),
    N_("Permission denied"),
    N_("Operation not permitted"),
    N_("Not a directory"),
    N_("Is a directory"),
    N_("File exists"),
    N_("Read-only file system"),
    N_("No space left on device"),
    N_("Address already in use"),
    N_("Cannot assign requested address"),
)


def os_reason(error: OSError) -> str:
    """Return why the system refused a call, in the reader's language."""
    return _(error.strerror or type(error).__name__)


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
