"""Support for tests from outside.

Worker processes that can be killed and frozen (`worker`), one service (`service`), the provider and
its ledger (`provider`), messages and how they ended (`messages`, `exactness`), the passing of time
(`fast_forward`, `waiting`), a proxy to a database (`cuttable_proxy`) and a PostgreSQL on TCP
(`tcp_postgres`).
"""
