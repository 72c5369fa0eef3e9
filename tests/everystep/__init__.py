"""Every step of a fixed scene was the last one once: nothing is lost and nothing is sent twice.

::

    ./dev everystep                        all steps, all faults: an hour on two processors
    ./dev everystep --continue FILE        the same, with its results in FILE: what it lacks is done
    ./dev everystep --slice 7              eight minutes of them, drawn by a seed
    ./dev everystep --slice 7 --runs 24    the first 24 runs of that slice
    ./dev everystep --step LABEL --fault kill      one of them again, with its logs

A step is one message of PostgreSQL's protocol between a process of the service and its database,
or one cut through a request to the provider, its answer, a posted report, or its answer. Proxies
count them (`postgres_proxy`, `http_proxy`) and name them (`steps`). `scene` plays the scene, `run`
strikes one step of it and asks for the verdict (`verdict`), `lane` does many runs in one process,
`results` keeps what was done, `page` writes deploy/docs/exactness.md and everystep.md. Processes
are forked from a warm one (`fork_server`).
"""
