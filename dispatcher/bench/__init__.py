"""Measures the whole on this machine: `dispatcher bench`.

The method, for all of it: every round runs each variant once, on a database of its own that is
filled anew; rounds follow each other, and each begins with another variant, so that what else the
machine does falls on all of them alike. A ratio is taken within a round, and of all rounds the
median is told with the lowest and the highest. Worker, simulator and PostgreSQL are processes of
their own, and the simulator's ledger is the witness that everything arrived.
"""
