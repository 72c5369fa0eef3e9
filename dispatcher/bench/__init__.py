"""Benchmarks that users run to size a machine: `dispatcher bench`.

Method of all benchmarks: each round runs each variant once, on its own freshly filled database.
Each round begins with a different variant, so that other load on the machine affects all variants
alike. A ratio compares two values of the same round; results show the median of all rounds with
the lowest and the highest. Workers, simulator and PostgreSQL run as separate processes, and the
simulator's ledger proves that every message arrived.

Benchmarks that compare designs are in tests/bench.
"""
