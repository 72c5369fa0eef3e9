"""Checks of names and prose that `./dev check` runs beside the linters."""
