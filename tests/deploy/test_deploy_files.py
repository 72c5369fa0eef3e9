"""Every file under deploy/ passes its check, and a broken copy of it fails."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dispatcher.db.pool import connect
from dispatcher.settings import Settings, SettingsError, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROGRAMS = Path(sys.executable).parent
OWN_TESTS = ("grafana", "prometheus")  # what lies there is checked beside the figures it shows
SHUTDOWN = Settings.model_fields["shutdown_timeout"].default
FINISH = 10  # seconds to write down what was answered last, and to sign off


def passes(*command: object) -> bool:
    ended = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    if ended.returncode:
        print(ended.stdout.decode(), ended.stderr.decode())  # noqa: T201 - shown if it failed
    return ended.returncode == 0


def dockerfile(file: Path) -> bool:
    return passes(PROGRAMS / "hadolint", "--failure-threshold", "info", file)


def compose(file: Path) -> bool:
    check = (PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    return passes(*check, file)


def manifest(file: Path) -> bool:
    return passes(PROGRAMS / "kubernetes-validate", "--strict", "--quiet", file)


def unit(file: Path) -> bool:
    """The unit is understood, and what it may do is little: 0 is nothing, 10 is everything."""
    if shutil.which("systemd-analyze") is None:
        assert "CI" not in os.environ, ".ci/run installs systemd"
        pytest.skip("systemd-analyze is missing: apt install systemd")
    file.write_text(file.read_text().replace("/opt/dispatcher/bin/dispatcher", "/bin/true"))
    verify = ["systemd-analyze", "verify", "--man=no", str(file)]
    said = subprocess.run(verify, capture_output=True, text=True, check=False)
    # What systemd would overlook it only warns of; other units of this machine are not ours.
    if said.returncode or str(file) in said.stderr:
        return False
    check = ("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager")
    return passes(*check, file)


def settings_file(file: Path) -> bool:
    """What the example sets is a setting, and what it leaves empty is all that is missing."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    given = dict(line.split("=", 1) for line in lines)
    secret = {"DISPATCHER_APPS__DEFAULT__APP_SECRET": "secret"}
    try:
        load_settings({name: value or "x" for name, value in given.items()} | secret)
    except SettingsError as error:
        print(error)  # noqa: T201 - shown if it failed
        return False
    return True


CHECKS: dict[str, Callable[[Path], bool]] = {
    "Dockerfile": dockerfile,
    "compose/compose.yaml": compose,
    "systemd/dispatcher.service": unit,
    "systemd/dispatcher-reports.service": unit,
    "kubernetes/namespace.yaml": manifest,
    "kubernetes/settings.yaml": manifest,
    "kubernetes/secrets.example.yaml": manifest,
    "kubernetes/migrate.yaml": manifest,
    "kubernetes/workers.yaml": manifest,
    "kubernetes/reports.yaml": manifest,
    "kubernetes/network.yaml": manifest,
}
BROKEN = [
    ("Dockerfile", "WORKDIR /src", "WORKDIR src"),
    ("Dockerfile", "USER 10001:10001", "USER 10001:10001\nRUN cd /tmp"),
    ("compose/compose.yaml", "stop_grace_period: 60s", "stop_grace_time: 60s"),
    ("compose/compose.yaml", "cap_drop: [ALL]", "cap_drop: ALL"),
    ("systemd/dispatcher.service", "Type=exec", "Type=exotic"),
    ("systemd/dispatcher.service", "[Install]", "[Instal]"),
    ("systemd/dispatcher.service", "CapabilityBoundingSet=\n", ""),
    ("systemd/dispatcher-reports.service", "User=dispatcher\n", "User=root\n"),
    ("systemd/dispatcher-reports.service", "ExecStart=", "ExecStrat="),
    ("kubernetes/namespace.yaml", "metadata:", "metadata: x\nmeta:"),
    ("kubernetes/settings.yaml", "data:", "date:"),
    ("kubernetes/secrets.example.yaml", "stringData:", "stringDatum:"),
    ("kubernetes/migrate.yaml", "backoffLimit: 10", "backoffLimit: ten"),
    ("kubernetes/workers.yaml", "terminationGracePeriodSeconds", "terminationGraceSeconds"),
    ("kubernetes/workers.yaml", "maxUnavailable: 1\n", "maxUnavailable: [1]\n"),
    ("kubernetes/reports.yaml", "serviceName", "serviceNames"),
    ("kubernetes/network.yaml", "podSelector: {}", "podSelectors: {}"),
]


@pytest.fixture
def copy_of(tmp_path):
    """Copies a file, changed on the way."""

    def copied(name: str, before: str = "", after: str = "") -> Path:
        text = (DEPLOY / name).read_text()
        assert before in text
        file = tmp_path / Path(name).name
        file.write_text(text.replace(before, after, 1) if before else text)
        return file

    return copied


@pytest.mark.parametrize("name", CHECKS)
def test_it_passes_its_check(name, copy_of):
    assert CHECKS[name](copy_of(name))


@pytest.mark.parametrize(("name", "before", "after"), BROKEN)
def test_a_broken_copy_fails(name, before, after, copy_of):
    assert not CHECKS[name](copy_of(name, before, after))


@pytest.mark.parametrize("name", ["compose", "systemd"])
def test_the_example_settings_are_settings(name, tmp_path):
    example = DEPLOY / name / "dispatcher.env.example"
    assert settings_file(example)
    broken = tmp_path / "broken.env"
    broken.write_text(example.read_text().replace("RETENTION", "RETENTOIN"))
    assert not settings_file(broken)


def test_the_settings_of_the_manifests_are_settings(tmp_path):
    data = yaml.safe_load((DEPLOY / "kubernetes/settings.yaml").read_text())["data"]
    for name in [name for name in data if name.endswith("_FILE")]:
        file = tmp_path / name
        file.write_text("postgresql://user@host/sms" if "URL" in name else "secret")
        assert data[name].startswith("/run/secrets/dispatcher/")
        data[name] = str(file)
    assert load_settings(data).retention == 180 * 86_400


def test_no_file_is_without_a_check():
    checked = {*CHECKS, "kubernetes/kustomization.yaml", "kubernetes/keda.yaml"}
    found = {
        str(path.relative_to(DEPLOY))
        for path in DEPLOY.rglob("*")
        if path.is_file()
        and path.suffix != ".md"
        and path.name != "dispatcher.env.example"
        and path.relative_to(DEPLOY).parts[0] not in OWN_TESTS
    }
    assert found == checked


def manifests(name: str) -> list[dict]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))


def test_the_kustomization_names_every_manifest_but_secrets_and_what_needs_keda():
    (kustomization,) = manifests("kustomization.yaml")
    there = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    left_out = {"kustomization.yaml", "secrets.example.yaml", "keda.yaml"}
    assert set(kustomization["resources"]) == there - left_out


@pytest.mark.parametrize("name", ["migrate.yaml", "workers.yaml", "reports.yaml"])
def test_a_pod_may_do_little_and_its_secrets_are_files(name):
    workload = manifests(name)[0]
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for variable in container.get("env", []):
        assert variable["name"].endswith("_FILE")
        assert "valueFrom" not in variable
    assert [volume for volume in pod["volumes"] if "secret" in volume]
    assert "secretRef" not in str(container)
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    claimed = {
        claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])
    }
    assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed


@pytest.mark.parametrize("name", ["workers.yaml", "reports.yaml"])
def test_selectors_budgets_and_services_find_the_pods(name):
    workload, *others = manifests(name)
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == labels
    kinds = {other["kind"] for other in others}
    assert "PodDisruptionBudget" in kinds
    for other in others:
        selector = other["spec"]["selector"]
        assert selector.get("matchLabels", selector) == labels


def test_everybody_waits_longer_than_the_shutdown_takes():
    graces = {}
    for name in ("workers.yaml", "reports.yaml"):
        pod = manifests(name)[0]["spec"]["template"]["spec"]
        sleep = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
        graces[name] = pod["terminationGracePeriodSeconds"] - sleep
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    for name in ("worker", "reports"):
        graces[name] = int(services[name]["stop_grace_period"].removesuffix("s"))
    for name in ("dispatcher", "dispatcher-reports"):
        text = (DEPLOY / f"systemd/{name}.service").read_text()
        graces[f"{name}.service"] = int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1])
    assert {name for name, grace in graces.items() if grace < SHUTDOWN + FINISH} == set()


def test_compose_writes_nowhere_but_into_volumes_and_hands_secrets_over_as_files():
    whole = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
    for name in ("migrate", "worker", "reports"):
        service = whole["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        for variable, value in service["environment"].items():
            if variable.endswith("_FILE"):
                assert value.removeprefix("/run/secrets/") in service["secrets"]
        assert set(service["secrets"]) <= set(whole["secrets"])


def test_the_image_is_not_root_and_says_whether_it_lives():
    text = (DEPLOY / "Dockerfile").read_text()
    last = text.rpartition("FROM ")[2]
    assert "\nUSER 10001:10001\n" in last
    assert "/healthz" in last.partition("HEALTHCHECK")[2]
    assert text.count("${BASE}") == 2
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in (ROOT / ".dockerignore").read_text().split()


async def test_the_scaler_asks_for_the_age_of_the_oldest_due_message(dsn, db):
    authentication, scaled = manifests("keda.yaml")
    (trigger,) = scaled["spec"]["triggers"]
    workers = manifests("workers.yaml")[0]
    assert scaled["spec"]["scaleTargetRef"]["name"] == workers["metadata"]["name"]
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    query = trigger["metadata"]["query"]
    reader = await connect(f"{dsn}&role=dispatcher_reader")
    assert await reader.fetchval(query) == 0

    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('a'), ('b')")
    for app, age in (("a", "90 s"), ("b", "7 s"), ("a", "-1 h")):
        message = await db.fetchval("SELECT dispatcher.enqueue('131', 't', app => $1)", app)
        await db.execute(
            "UPDATE dispatcher.queue SET due_at = now() - $2::text::interval WHERE id = $1",
            message,
            age,
        )
    assert 90 <= await reader.fetchval(query) < 120
    await db.execute("SELECT dispatcher.pause('a', 'test')")
    assert 7 <= await reader.fetchval(query) < 60
    await reader.close()
