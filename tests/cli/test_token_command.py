"""`dispatcher token`: who may do what in the console."""

import json


async def test_a_token_is_made_listed_and_revoked(operate, db):
    made = await operate("token", "add", "Ben  Li", "--role", "act", "--as", "ana")
    assert (made.code, len(made.out.strip()) >= 43) == (0, True)
    again = await operate("token", "add", "Ben Li")
    assert (again.code, "revoke it first" in again.line) == (1, True)
    listed = json.loads((await operate("token", "list", "--json")).out)
    assert [(one["name"], one["role"], one["created_by"]) for one in listed] == [
        ("Ben Li", "act", "ana")
    ]
    assert made.out.strip() not in str(listed)
    assert (await operate("token", "revoke", "Ben Li", "--as", "ana")).out == "Ben Li is revoked.\n"
    assert "by ana" in (await operate("token", "list")).out
    assert (await operate("token", "revoke", "Ben Li")).code == 1
    rows = await db.fetch("SELECT action, target, detail, result FROM dispatcher.audit ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("token", "Ben Li", "act", "added"),
        ("token", "Ben Li", "", "revoked"),
        ("token", "Ben Li", "", "there is no such token"),
    ]


async def test_a_token_takes_a_known_role_and_a_name(operate):
    shared = ("Ben (shared token)", "ben (Shared  Token)")  # as the audit marks the shared one
    for arguments in (
        ("Ben", "--role", "admin"),
        ("  ",),
        ("x" * 81,),
        *((each,) for each in shared),
    ):
        assert (await operate("token", "add", *arguments)).code == 2
