"""The rules of the design, each with its guards taken away: some test must notice.

::

    ./dev guards             all of them, some minutes
    ./dev guards --rule 2

`table` says what is taken away and which tests must fail then; `__main__` does it in a copy.
"""
