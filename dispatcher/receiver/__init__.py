"""A status report in: verify, store, match."""
