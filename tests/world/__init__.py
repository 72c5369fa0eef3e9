"""What is around the dispatcher, for tests from outside.

Worker processes that can be killed and frozen (`worker`), the provider and its ledger (`provider`),
messages and their outcomes (`messages`, `books`), the passing of time (`haste`, `waiting`).
"""
