"""Faults on request: each type is one small class, a script is a list of them.

See `table` for all types and `trigger` for when they strike.
"""
