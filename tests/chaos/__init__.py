"""Everything goes wrong at once, by chance with a seed, and nothing is lost or sent twice.

::

    ./dev chaos --minutes 10 --seed 7

`storm` runs it: `application` inserts and cancels, `workers` kills and freezes workers, `server`
is a PostgreSQL that crashes, `restore` sets it back to a backup, `clocks` gives processes wrong
clocks, `fault_schedule` sets the provider's faults, `report_sender` runs the receiver of status
reports if they are asked for (--reports), `verdict` compares the database with the ledger, and
`leaks` searches all output for numbers, texts and secrets. `branches` lists rare branches of the
code, and `matrix` counts under which faults storms reached them.
"""
