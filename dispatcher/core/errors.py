"""The error that several packages raise and catch."""


class DatabaseUnavailable(Exception):  # noqa: N818 - the word of its readers: a state, not a mistake
    """The database cannot be used now; the text is one line for people.

    The same call may succeed later on a new connection. **The failed call may have committed**:
    repeat only what is safe to repeat. `__cause__` is the driver's error.
    """
