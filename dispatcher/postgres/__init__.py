"""Runs the embedded PostgreSQL: its programs, its data and its server process.

It knows no SQL of dispatcher and opens no connection; `dispatcher.db` does both.
"""
