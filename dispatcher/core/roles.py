"""Roles of operators in the console."""

from typing import Literal, get_args

Role = Literal["see", "act", "rules"]
ROLES: tuple[Role, ...] = get_args(Role)  # each may do what those before it may

# Who logs in with CONSOLE_TOKEN gives any name: the audit shows it with this, which the name of no
# other token has.
SHARED_TOKEN_SUFFIX = " (shared token)"  # noqa: S105 - a word of names


def permits(role: Role, wanted: Role) -> bool:
    """Return whether an operator with *role* may do what takes the role *wanted*."""
    return ROLES.index(role) >= ROLES.index(wanted)
