"""A real Prometheus loads the configuration and the rules, and scrapes a worker."""

import os
import shutil
import subprocess

import aiohttp
import pytest
import yaml
from checks import DEPLOY, needed
from support.waiting import until

from dispatcher.bench.ports import free_port


@pytest.fixture
def prometheus(tmp_path):
    """Starts Prometheus as compose does, with a worker at *address*; gives its own address."""
    program = needed("prometheus", "prometheus")
    started = []

    def run(address: str) -> str:
        config = yaml.safe_load((DEPLOY / "compose/prometheus.yml").read_text())
        (job,) = config["scrape_configs"]
        # Names of services are known inside of compose alone.
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [address]}]
        config["global"] = dict.fromkeys(config["global"], "1s")
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        shutil.copy(DEPLOY / "prometheus/alerts.yml", tmp_path)
        own = f"127.0.0.1:{free_port()}"
        with (tmp_path / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    program,
                    f"--config.file={tmp_path}/prometheus.yml",
                    f"--storage.tsdb.path={tmp_path}/data",
                    f"--web.listen-address={own}",
                ],
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
            )
        started.append(process)
        return f"http://{own}/api/v1"

    yield run
    for process in started:
        process.terminate()
        process.wait(60)


async def test_it_scrapes_a_worker_and_watches_by_all_rules(prometheus, workers, sim):
    address = f"127.0.0.1:{free_port()}"
    await workers.start(sim.url, listen=address)
    api = prometheus(address)
    async with aiohttp.ClientSession() as session:

        async def asked(path: str) -> dict:
            async with session.get(f"{api}/{path}") as answer:
                return (await answer.json())["data"]

        async def scraped() -> bool:
            try:
                targets = (await asked("targets"))["activeTargets"]
            except (aiohttp.ClientConnectionError, aiohttp.ContentTypeError):
                return False  # it is still starting
            return [target["health"] for target in targets] == ["up"]

        await until(scraped, deadline=90, what="the worker is scraped")

        async def stored() -> list[dict]:
            # A target is up before the samples of its scrape can be read.
            return (await asked("query?query=dispatcher_build_info"))["result"]

        (found,) = await until(stored, deadline=90, what="the sample is stored")
        assert found["metric"]["job"] == "dispatcher"

        async def watched() -> list[dict]:
            (group,) = (await asked("rules"))["groups"]
            # The health is read before the time, and may be that of before the first evaluation.
            evaluated = all(
                rule["lastEvaluation"] > "1" and rule["health"] == "ok" for rule in group["rules"]
            )
            return group["rules"] if evaluated else []

        rules = await until(watched, deadline=90, what="every rule is evaluated well")
    shipped = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
    assert [rule["name"] for rule in rules] == [rule["alert"] for rule in shipped]
    assert {rule["health"] for rule in rules} == {"ok"}
