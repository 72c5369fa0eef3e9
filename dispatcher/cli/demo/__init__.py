"""``dispatcher demo``: everything at once on this machine, and gone again.

The PostgreSQL, the simulated provider and the worker are what the real commands start; the demo
only starts them, loads ``sample.csv`` and looks. ``provider.json`` has the simulator's options: the
templates of the sample, and which of its numbers to refuse.
"""
