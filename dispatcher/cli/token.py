"""``dispatcher token``: who may do what in the console."""

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import MAX_NAME_LENGTH, As, operator_name
from dispatcher.core.language import _, with_stop
from dispatcher.core.roles import ROLES, SHARED_TOKEN_SUFFIX

if TYPE_CHECKING:
    from dispatcher.db.database import OwnConnection as Connection

token = typer.Typer(
    help="Give operators tokens of their own for the console.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Of the operator, as the audit log has it.")
]


@token.command("add")
def add_token(
    name: Name,
    *,
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="see, act (also on messages), or rules (all).")
    ] = "see",
    as_: As = None,
) -> None:
    """Make a token and print it. It is not stored, and not shown again.

    see: looks at everything, with masked numbers. act: also acts on
    messages, campaigns and apps, and sees whole numbers, which the audit
    log records. rules: also sets templates, limits, suppression and prices.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.db import console_tokens

    name = " ".join(name.split())
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise CommandError(
            _("NAME takes a name of 1 to {max_name_length} characters.").format(
                max_name_length=MAX_NAME_LENGTH
            ),
            code=USED_WRONGLY,
        )
    if SHARED_TOKEN_SUFFIX.strip(" ()") in name.casefold():
        raise CommandError(
            _(
                'NAME must not say "shared token": the audit log marks logins with'
                " DISPATCHER_CONSOLE_TOKEN so."
            ),
            code=USED_WRONGLY,
        )
    if role not in ROLES:
        raise CommandError(
            _("--role takes one of {names}.").format(names=", ".join(ROLES)), code=USED_WRONGLY
        )
    who = operator_name(as_)
    try:
        made = with_database(lambda connection: console_tokens.add(connection, who, name, role))
    except console_tokens.TokenError as error:
        raise CommandError(with_stop(error)) from None
    typer.echo(made)


@token.command("list")
def list_tokens(
    *, json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False
) -> None:
    """Show the tokens, with their roles and last logins."""
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import moment, print_json, screen, table_of
    from dispatcher.db import console_tokens

    known = with_database(console_tokens.tokens)
    if json:
        print_json(known)
        return
    table = table_of(_("Name"), _("Role"), _("Made"), _("By"), _("Last login"), _("Revoked"))
    for one in known:
        revoked = (
            _("{revoked_at} by {revoked_by}").format(
                revoked_at=moment(one.revoked_at), revoked_by=one.revoked_by
            )
            if one.revoked_at
            else ""
        )
        used = moment(one.used_at) if one.used_at else _("not yet")
        table.add_row(one.name, one.role, moment(one.created_at), one.created_by, used, revoked)
    screen().print(table if table.rows else _("There is no token but DISPATCHER_CONSOLE_TOKEN."))


@token.command("revoke")
def revoke_token(name: Name, *, as_: As = None) -> None:
    """End a token and all logins with it, within seconds."""
    from dispatcher.cli.connection import with_database
    from dispatcher.db import console_tokens

    who = operator_name(as_)

    async def work(connection: "Connection") -> bool:
        return await console_tokens.revoke(connection, who, " ".join(name.split()))

    if not with_database(work):
        raise CommandError(
            _("there is no token {name}: see `dispatcher token list`.").format(name=name)
        )
    typer.echo(_("{name} is revoked.").format(name=name))
