"""A model of the whole dispatch that runs the real core, searched state by state.

::

    ./dev model                      search every state: over a million, some minutes
    ./dev model --guards             take out one guard after the other: each shows what it is for

`promises` states what each SQL statement promises, in memory; test_promises compares it with
PostgreSQL. `world` says what may happen next; its decisions are those of `dispatcher.core`
(`evaluate`, `is_retryable`, `match_report`) and of the worker's `Lease`. `rules` are the rules 1 to
4 of the design as invariants. `search` goes through all states, breadth first, and prints the
shortest story to one that breaks a rule. `guards` lists what can be taken out.
"""
