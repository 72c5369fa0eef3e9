"""Checks of names and prose and the generated page of codes."""
