"""Scenes: one app for each fault, all served by one worker."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack

import pytest
from scenes import NUMBERS, PARAMS, Play, Scene, quiet
from world.messages import TEMPLATE
from world.provider import app_at, provider
from world.waiting import until


@pytest.fixture
async def play(db, workers) -> AsyncIterator[Play]:
    """Play scenes by their names, each with its faults, until each has come to rest."""
    async with AsyncExitStack() as stack:

        async def run(faults: Mapping[str, Sequence[object]], **app: object) -> Mapping[str, Scene]:
            scenes = {}
            for name, rules in faults.items():
                sim = await stack.enter_async_context(provider(faults=rules))
                scenes[name] = Scene(name, sim, db)
            await db.executemany(
                "INSERT INTO dispatcher.message (app, recipient, template_id, params)"
                " SELECT $1, n, $2, ARRAY[p] FROM unnest($3::text[], $4::text[]) AS u (n, p)",
                [(name, TEMPLATE, list(NUMBERS), list(PARAMS)) for name in scenes],
            )
            apps = {name: app_at(scene.sim.url, **app) for name, scene in scenes.items()}
            await workers.start(apps)
            await until(lambda: quiet(db), deadline=60, what="the scenes come to rest")
            return scenes

        yield run
