"""dispatcher: sends SMS from PostgreSQL rows through the provider's batch API.

One package per journey, over shared packages. Imports go downwards only::

    cli/         one file a command: reads settings, prints, exits
    bench/       measures this machine: send, latency, retention, reports
    service/     starts and stops everything that `dispatcher run` needs
    worker/      a message out: claim, send, record, recovery, maintenance
    receiver/    a status report in: verify, store, match
    console/     the web pages for operators
    lists/       lists of messages from CSV, text and Excel files
    db/          the only package that knows SQL (db/sql/, by subject)
    provider/    the only package that calls out
    postgres/    runs the embedded PostgreSQL
    settings/    reads and checks the environment
    telemetry/   metrics, logs and traces
    core/        decides: packing, wire format, signing, codes, outcomes; no I/O, clock or chance
    simulator/   the provider, written from its documents; imports nothing of the rest

worker, receiver and console never import each other: they meet in the tables.

Where does a change belong? A limit or a code of the provider: `core`. A column: `migrations/`
and `db/sql`. A retry: `provider` if it takes seconds, `core.outcome` if minutes. A page:
`console`. deploy/docs/architecture.md draws tables, states and journeys.
"""

__version__ = "0.1.0"
