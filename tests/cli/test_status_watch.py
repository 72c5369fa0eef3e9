"""`dispatcher status --watch` runs until Ctrl-C, also while the database is unavailable."""

import asyncio
import json
import signal
import sys

from support.cuttable_proxy import Wire

DEADLINE = 60.0


async def test_watch_shows_changes_and_reconnects(db, dsn, environment):
    async with Wire(dsn) as wire:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dispatcher", "status"),
            *("--watch", "--every", "0.1", "--json"),
            env=environment(DATABASE_URL=wire.dsn),
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )

        async def until(word: str) -> None:
            """Read one line after the other, until a headline has *word* in it."""
            async with asyncio.timeout(DEADLINE):
                async for line in process.stdout:
                    seen = json.loads(line)
                    if word in seen["headline"] + seen["findings"][0]["title"]:
                        return
            raise AssertionError(f"it ended before it said {word!r}")

        await until("No worker is running")
        await db.execute(
            "INSERT INTO dispatcher.app (name, paused_at, paused_by, pause_reason)"
            " VALUES ('shop', now(), 'operator', 'odd'), ('other', NULL, NULL, NULL)"
        )
        await db.execute(
            "INSERT INTO dispatcher.worker (host, pid, version, apps, lease, heartbeat_at)"
            " VALUES ('h', 1, '0', '{shop,other}', '1 h', now())"
        )
        await until("but not those of shop")
        await wire.cut()
        await until("The database is unavailable")
        await wire.mend()
        await until("but not those of shop")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE):
            await process.communicate()
        assert process.returncode == 0


async def test_unsure_batches_are_listed_with_their_tokens(operate, db):
    await db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes,"
        " unsure_at, code) VALUES ('the-token', 'default', 1, '{1}', '{1}', 'unsure', 200, now(),"
        " 'timeout')"
    )
    assert "the-token" in (await operate("status")).out
