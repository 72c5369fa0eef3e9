"""Roles of operators in the console."""

from typing import Literal, get_args

from dispatcher.core.language import N_, _, in_all_languages

Role = Literal["see", "act", "rules"]
ROLES: tuple[Role, ...] = get_args(Role)  # each may do what those before it may

# Who logs in with CONSOLE_TOKEN gives any name: the audit shows it with this, which the name of no
# other token has.
SHARED_TOKEN_SUFFIX = " (shared token)"  # noqa: S105 - a word of names
_WITH_SHARED_TOKEN = N_("{name} (shared token)")


def shown_name(actor: str) -> str:
    """Return the name of an operator as the audit has it, in the reader's language."""
    name = actor.removesuffix(SHARED_TOKEN_SUFFIX)
    return actor if name == actor else _(_WITH_SHARED_TOKEN).format(name=name)


def stored_names(written: str) -> list[str]:
    """Return the names that the audit may have for one that a reader writes.

    As it is shown with the shared token, in any language, it is that one; a name alone is the
    name of a token too.
    """
    for form in in_all_languages(_WITH_SHARED_TOKEN):
        suffix = form.removeprefix("{name}")
        if written.endswith(suffix):
            return [written.removesuffix(suffix) + SHARED_TOKEN_SUFFIX]
    return [written, written + SHARED_TOKEN_SUFFIX]


def permits(role: Role, wanted: Role) -> bool:
    """Return whether an operator with *role* may do what takes the role *wanted*."""
    return ROLES.index(role) >= ROLES.index(wanted)
