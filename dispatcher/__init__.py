"""dispatcher: SMS from PostgreSQL rows through the provider's batch API.

The map of the house. Data goes one way, and each room may use only what is below it::

    cli/        one file a command: reads settings, prints, exits
    service     composition: starts and stops everything, hands functions to the pipeline
    pipeline/   claim -> send -> record, as coroutines over bounded queues
    rescue      the open batches of dead workers become unsure; what is unsure is settled
    keeping     partitions ahead of need; what is old and over leaves in bounded steps
    db/         the only room that knows SQL (one statement a file, under db/sql/)
    postgres/   runs the embedded PostgreSQL; knows no SQL of ours
    provider/   the only room that calls out
    web/        the only room that listens
    settings, metrics, logs    what every room is told, counts and says
    core/       decides: packing, wire format, signing, codes, outcomes; no I/O, no clock, no chance
    simulator/  the provider, written from its documents; shares nothing with the rooms above

Where does a change belong? A limit or a code of the provider: ``core``. A column: ``migrations/``
and ``db/sql``. A retry: ``provider`` if seconds, ``core.outcome`` if minutes. A page: ``web``.
"""

__version__ = "0.1.0"
