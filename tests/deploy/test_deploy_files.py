"""Every file under deploy/ passes its check, and a broken copy of it fails."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import run

import checks
import pytest
import yaml
from checks import DEPLOY, ROOT, manifests
from lint.codes import codes_page

from dispatcher.db.database import connect
from dispatcher.settings import Settings, load_settings

SHUTDOWN = Settings.model_fields["shutdown_timeout"].default
FINISH = 10  # seconds to write down what was answered last, and to sign off

Change = tuple[str, str]  # what stands there, and what stands there in a broken copy


def codes_in_step(path: Path) -> bool:
    """Return whether the page of codes is what `./dev codes` writes."""
    return path.read_text(encoding="utf-8") == codes_page()


# Every file: how it is checked, and broken copies that its check must refuse.
FILES: dict[str, tuple[Callable[[Path], bool], list[Change]]] = {
    "Dockerfile": (
        checks.dockerfile,
        [
            ("WORKDIR /src", "WORKDIR src"),
            ("USER 10001:10001", "USER 10001:10001\nRUN cd /tmp"),
        ],
    ),
    "compose/compose.yaml": (
        checks.compose,
        [
            ("stop_grace_period: 60s", "stop_grace_time: 60s"),
            ("cap_drop: [ALL]", "cap_drop: ALL"),
            ("./prometheus.yml:", "./prometheus.yaml:"),
            ("secrets: [grafana_password]", "secrets: [grafana_passwort]"),
        ],
    ),
    "compose/dispatcher.env.example": (checks.settings_file, [("RETENTION", "RETENTOIN")]),
    "compose/prometheus.yml": (
        checks.prometheus,
        [("type: A", "type: AA"), ("  - alerts.yml", "  - alert.yml"), ("global:", "globl:")],
    ),
    "compose/grafana/datasources/prometheus.yml": (
        checks.grafana_source,
        [("prometheus:9090", "prometheus:9091"), ("type: prometheus", "type: promethius")],
    ),
    "compose/grafana/dashboards/dispatcher.yml": (
        checks.grafana_provider,
        [("grafana/dashboards\n", "grafana/dashboard\n"), ("apiVersion: 1", "apiVersion: one")],
    ),
    "grafana/dashboard.json": (
        checks.dashboard,
        [("sum by", "sum buy"), ('"title"', "title"), ("${datasource}", "prometheus")],
    ),
    "prometheus/alerts.yml": (
        checks.rules,
        [("max by (app)", "max buy (app)"), ("        for: 2m", "        fro: 2m")],
    ),
    "prometheus/alerts_test.yml": (
        checks.rule_tests,
        [
            ("summary: A worker fell silent", "summary: A worker"),
            ("values: '3x60'", "values: '600x60'"),
        ],
    ),
    "prometheus/prometheus.yml": (
        checks.prometheus,
        [("scrape_interval: 15s", "scrape_interval: 15"), ("alerts.yml", "alert.yml")],
    ),
    "systemd/dispatcher.service": (
        checks.unit,
        [
            ("Type=exec", "Type=exotic"),
            ("[Install]", "[Instal]"),
            ("CapabilityBoundingSet=\n", ""),
        ],
    ),
    "systemd/dispatcher-reports.service": (
        checks.unit,
        [("User=dispatcher\n", "User=root\n"), ("ExecStart=", "ExecStrat=")],
    ),
    "systemd/dispatcher.env.example": (checks.settings_file, [("RETENTION", "RETENTOIN")]),
    "kubernetes/namespace.yaml": (checks.manifest, [("metadata:", "metadata: x\nmeta:")]),
    "kubernetes/settings.yaml": (checks.manifest, [("data:", "date:")]),
    "kubernetes/secrets.example.yaml": (checks.manifest, [("stringData:", "stringDatum:")]),
    "kubernetes/migrate.yaml": (checks.manifest, [("backoffLimit: 10", "backoffLimit: ten")]),
    "kubernetes/workers.yaml": (
        checks.manifest,
        [
            ("terminationGracePeriodSeconds", "terminationGraceSeconds"),
            ("maxUnavailable: 1\n", "maxUnavailable: [1]\n"),
        ],
    ),
    "kubernetes/reports.yaml": (checks.manifest, [("serviceName", "serviceNames")]),
    "kubernetes/network.yaml": (checks.manifest, [("podSelector:", "podSelectors:")]),
    "kubernetes/kustomization.yaml": (
        checks.kustomization,
        [
            ("  - workers.yaml\n", ""),
            ("  - workers.yaml\n", "  - worker.yaml\n"),
            ("resources:", "resource:"),
            ("- name: dispatcher\n", "- name: dispatch\n"),
            ("kind: Kustomization", "kind: Customization"),
        ],
    ),
    "kubernetes/keda.yaml": (
        checks.keda,
        [
            ("name: dispatcher-workers\n  pollingInterval", "name: workers\n  pollingInterval"),
            ("targetQueryValue:", "targetValue:"),
            ('targetQueryValue: "20"', "targetQueryValue: 20"),
            ("parameter: connection", "parameter: conection"),
            ("key: reader_url", "key: reader"),
            ("minReplicaCount", "minReplicas"),
            ("type: postgresql", "type: postgres"),
        ],
    ),
    "README.md": (checks.page, [("systemd/README.md", "systemd/readme.md")]),
    "docs/architecture.md": (checks.page, [("(provider.md)", "(providers.md)")]),
    "docs/provider.md": (checks.page, [("(codes.md)", "(code.md)")]),
    "docs/codes.md": (codes_in_step, [("E200015", "E200016")]),
    "docs/applications.md": (checks.page, [("dispatcher enqueue", "dispatcher enqeue")]),
    "docs/operations.md": (checks.page, [("`dispatcher show ID", "`dispatcher shew ID")]),
    "docs/settings.md": (checks.page, [("personal-data.md", "personal_data.md")]),
    "docs/capacity.md": (checks.page, [("dispatcher bench", "dispatcher bensh")]),
    "docs/lists.md": (checks.page, [("(settings.md)", "(setings.md)")]),
    "docs/exactness.md": (checks.page, [("(replication.md)", "(replica.md)")]),
    "docs/everystep.md": (checks.page, [("(exactness.md)", "(exact.md)")]),
    "docs/index.md": (checks.page, [("(settings.md)", "(setings.md)")]),
    "docs/performance.md": (checks.page, [("results/peers.json", "results/peer.json")]),
    "docs/database.md": (
        checks.page,
        [("DISPATCHER_STATEMENT_CACHE", "DISPATCHER_STATEMENTS_CACHE")],
    ),
    "docs/machines.md": (checks.page, [("DISPATCHER_LEASE", "DISPATCHER_LEASES")]),
    "docs/replication.md": (checks.page, [("test_patroni.py", "test_patronis.py")]),
    "docs/personal-data.md": (checks.page, [("dispatcher forget", "dispatcher forgets")]),
    "compose/README.md": (checks.page, [("random() {", "random() {{")]),
    "kubernetes/README.md": (checks.page, [("../docs/database.md", "../docs/databases.md")]),
    "systemd/README.md": (checks.page, [("DISPATCHER_DATABASE_URL", "DISPATCHER_DATABSE_URL")]),
}


def test_every_file_is_checked_and_has_a_broken_copy():
    found = {str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*") if path.is_file()}
    linked = {f"docs/{link}" for link in re.findall(r"\]\((results/[^)]+)", performance_pages())}
    readmes = "".join(path.read_text() for path in DEPLOY.parent.glob("README*.md"))
    pictures = {*re.findall(r'"deploy/(docs/images/[^"]+)"', readmes), "docs/images/peers.png"}
    assert found == set(FILES) | linked | pictures
    assert [name for name, (_, broken) in FILES.items() if not broken] == []


def performance_pages() -> str:
    pages = ("docs/performance.md", "docs/capacity.md")
    return "".join((DEPLOY / page).read_text() for page in pages)


def test_each_results_file_holds_benchmarks():
    for file in (DEPLOY / "docs/results").glob("*.json"):
        assert json.loads(file.read_text())["benchmarks"], file


@pytest.fixture
def copy_of(tmp_path):
    """Copies a file, changed on the way."""

    def copied(name: str, before: str = "", after: str = "") -> Path:
        text = (DEPLOY / name).read_text()
        assert before in text
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace(before, after, 1) if before else text)
        return file

    return copied


@pytest.mark.parametrize("name", FILES)
def test_a_file_passes_its_check_and_its_broken_copies_fail(name, copy_of):
    check, broken = FILES[name]
    assert check(copy_of(name))
    for before, after in broken:
        assert not check(copy_of(name, before, after)), f"{before} -> {after}"


def test_the_settings_of_the_manifests_are_settings(tmp_path):
    data = yaml.safe_load((DEPLOY / "kubernetes/settings.yaml").read_text())["data"]
    for name in [name for name in data if name.endswith("_FILE")]:
        file = tmp_path / name
        file.write_text(
            "postgresql://user@host/sms" if "URL" in name else "a-secret-of-24-characters"
        )
        assert data[name].startswith("/run/secrets/dispatcher/")
        data[name] = str(file)
    assert load_settings(data).retention == 180 * 86_400


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


@pytest.mark.parametrize("name", ["dispatcher", "dispatcher-reports"])
def test_a_unit_passes_secrets_as_credentials(name):
    lines = (DEPLOY / f"systemd/{name}.service").read_text().splitlines()
    assert "LimitCORE=0" in lines
    handed = {line.partition(":")[0] for line in lines if line.startswith("LoadCredential=")}
    for line in lines:
        if line.startswith("Environment=") and (
            "SECRET" in line or "URL" in line or "TOKEN" in line
        ):
            _, _, source = line.partition("_FILE=%d/")
            assert f"LoadCredential={source}" in handed


def test_an_operators_command_does_not_run_as_root(tmp_path):
    """The function of the README, with a `runuser` that prints what it would start."""
    page = (DEPLOY / "systemd/README.md").read_text()
    function = re.search(r"^operate\(\) \(\n.*?^\)\n", page, re.MULTILINE | re.DOTALL)[0]
    files = {
        "dispatcher.env": "DISPATCHER_RETENTION=7d",
        "database_url": "postgresql://a@b/c",
        "app_secret": "s3 cret",
        "report_path_token": "r" * 16,
        "console_token": "c" * 16,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    runuser = tmp_path / "runuser"
    runuser.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nenv | grep ^DISPATCHER_ | sort\n')
    runuser.chmod(0o755)
    script = function.replace("/etc/dispatcher", str(tmp_path)) + "operate enqueue 'my list.csv'\n"
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    ran = run(["bash", "-euc", script], env=path, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        *("-u", "dispatcher", "--", "/opt/dispatcher/bin/dispatcher", "enqueue", "my list.csv"),
        "DISPATCHER_APPS__DEFAULT__APP_SECRET=s3 cret",
        "DISPATCHER_CONSOLE_TOKEN=cccccccccccccccc",
        "DISPATCHER_DATABASE_URL=postgresql://a@b/c",
        "DISPATCHER_DATA_DIR=/var/lib/dispatcher",
        "DISPATCHER_REPORT_PATH_TOKEN=rrrrrrrrrrrrrrrr",
        "DISPATCHER_RETENTION=7d",
    ]
    assert page.count("/bin/dispatcher ") == page.count("runuser -u dispatcher -- ") == 2


def test_every_grace_period_is_longer_than_the_shutdown():
    graces = {}
    for name in ("workers.yaml", "reports.yaml"):
        pod = manifests(name)[0]["spec"]["template"]["spec"]
        hook = pod["containers"][0].get("lifecycle")
        sleep = int(hook["preStop"]["exec"]["command"][1]) if hook else 0
        graces[name] = pod["terminationGracePeriodSeconds"] - sleep
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    for name in ("worker", "reports"):
        graces[name] = int(services[name]["stop_grace_period"].removesuffix("s"))
    for name in ("dispatcher", "dispatcher-reports"):
        text = (DEPLOY / f"systemd/{name}.service").read_text()
        graces[f"{name}.service"] = int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1])
    assert {name for name, grace in graces.items() if grace < SHUTDOWN + FINISH} == set()


def test_compose_writes_to_volumes_and_passes_secrets_as_files():
    whole = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
    for name in ("migrate", "worker", "reports"):
        service = whole["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["ulimits"] == {"core": 0}
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
        message = await db.fetchval("SELECT dispatcher.enqueue('13100000131', 't', app => $1)", app)
        await db.execute(
            "UPDATE dispatcher.queue SET due_at = now() - $2::text::interval WHERE id = $1",
            message,
            age,
        )
    assert 90 <= await reader.fetchval(query) < 120
    await db.execute("SELECT dispatcher.pause('a', 'test')")
    assert 7 <= await reader.fetchval(query) < 60
    await reader.close()
