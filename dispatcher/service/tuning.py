"""What the interpreter is told for a process that makes and drops many small objects."""

import gc

OBJECTS = 50_000  # made since the last look for cycles; by default 700


def collect_rarely() -> None:
    """Look for cyclic garbage seldom, and never at what was there from the start.

    Rows, entries and answers come and go by the thousand and are in no cycle: looking through
    them again and again took an eighth of a worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS, 20, 100)
