"""Checks of each kind of file under deploy/: they return whether it is valid, print why not."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dispatcher.cli.commands import app
from dispatcher.settings import ALL_PARTS, AppSettings, Settings, SettingsError, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROGRAMS = Path(sys.executable).parent


def passes(*command: object) -> bool:
    ended = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    if ended.returncode:
        print(ended.stdout.decode(), ended.stderr.decode())  # noqa: T201 - shown if it failed
    return ended.returncode == 0


def true_of(file: Path, *claims: tuple[bool, str]) -> bool:
    wrong = [words for holds, words in claims if not holds]
    if wrong:
        print(file.name, wrong)  # noqa: T201 - shown if it failed
    return not wrong


def needed(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        assert "CI" not in os.environ, f".ci/run installs {package}"
        pytest.skip(f"{program} is missing: apt install {package}")
    return found


def dockerfile(file: Path) -> bool:
    return passes(PROGRAMS / "hadolint", "--failure-threshold", "info", file)


def compose(file: Path) -> bool:
    """The file is one, and what it mounts and reads is there."""
    # Here and in `manifest`: every run of tests collects this file, and these are slow to import.
    from check_jsonschema import main  # noqa: PLC0415 - see above
    from click.testing import CliRunner  # noqa: PLC0415 - see above

    words = ["--builtin-schema", "vendor.compose-spec", str(file)]
    checked = CliRunner().invoke(main, words, catch_exceptions=False)
    if checked.exit_code != 0:
        return true_of(file, (False, checked.output))
    whole = yaml.safe_load(file.read_text())
    services = whole["services"].values()
    mounted = [volume.split(":")[0] for each in services for volume in each.get("volumes", [])]
    return true_of(
        file,
        *(
            ((DEPLOY / "compose" / source).exists(), f"{source} is mounted")
            for source in mounted
            if source.startswith(".")
        ),
        *(
            (source in whole["volumes"], f"volume {source}")
            for source in mounted
            if not source.startswith(".")
        ),
        *(
            (name in whole["secrets"], name)
            for each in services
            for name in each.get("secrets", [])
        ),
    )


def manifest(file: Path) -> bool:
    """Each of its documents is of a kind that Kubernetes knows, and has only fields of that."""
    import kubernetes_validate as kubernetes  # noqa: PLC0415 - see `compose`

    for document in filter(None, yaml.safe_load_all(file.read_text())):
        try:
            kubernetes.validate(document, kubernetes.latest_version(), strict=True)
        except (kubernetes.ValidationError, kubernetes.SchemaNotFoundError) as error:
            return true_of(file, (False, error.message))
    return True


def manifests(name: str) -> list[dict]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))


def kustomization(file: Path) -> bool:
    """It has only fields that kustomize knows, and names what is there."""
    whole = yaml.safe_load(file.read_text())
    known = {"apiVersion", "kind", "namespace", "labels", "resources", "images"}
    there = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    left_out = {"kustomization.yaml", "secrets.example.yaml", "keda.yaml"}
    used = set(re.findall(r"^ +image: (\S+)$", "".join(map(_text, there)), re.MULTILINE))
    images = whole.get("images", [])
    return true_of(
        file,
        (set(whole) == known, "its fields"),
        (whole.get("apiVersion") == "kustomize.config.k8s.io/v1beta1", "apiVersion"),
        (whole.get("kind") == "Kustomization", "kind"),
        (set(whole.get("resources", ())) == there - left_out, "resources"),
        (whole.get("namespace") == manifests("namespace.yaml")[0]["metadata"]["name"], "namespace"),
        ({image.get("name") for image in images} == used, "the image that the manifests name"),
        (all(set(image) == {"name", "newName", "newTag"} for image in images), "fields of images"),
        (all(set(label) == {"pairs"} for label in whole.get("labels", ())), "fields of labels"),
    )


def _text(name: str) -> str:
    return (DEPLOY / "kubernetes" / name).read_text()


def keda(file: Path) -> bool:
    """A scaler of the workers, by one query, with an address that is a secret."""
    documents = {each["kind"]: each for each in yaml.safe_load_all(file.read_text())}
    if set(documents) != {"TriggerAuthentication", "ScaledObject"}:
        return true_of(file, (False, "kinds"))
    secret, scaled = documents["TriggerAuthentication"], documents["ScaledObject"]
    spec, (trigger,) = scaled["spec"], scaled["spec"].get("triggers") or [{}]
    times = ("pollingInterval", "cooldownPeriod", "minReplicaCount", "maxReplicaCount")
    given = trigger.get("metadata", {})
    (target,) = secret["spec"].get("secretTargetRef") or [{}]
    examples = manifests("secrets.example.yaml")
    secrets = {each["metadata"]["name"]: each["stringData"] for each in examples}
    return true_of(
        file,
        *((each["apiVersion"] == "keda.sh/v1alpha1", "apiVersion") for each in documents.values()),
        (set(spec) == {"scaleTargetRef", "triggers", *times}, "fields of the scaler"),
        (all(isinstance(spec.get(name), int) for name in times), "numbers"),
        (set(trigger) == {"type", "metricType", "metadata", "authenticationRef"}, "trigger"),
        (trigger.get("type") == "postgresql", "type of the trigger"),
        (set(given) == {"query", "targetQueryValue", "activationTargetQueryValue"}, "metadata"),
        (all(isinstance(value, str) for value in given.values()), "metadata are texts"),
        (
            spec.get("scaleTargetRef", {}).get("name")
            == manifests("workers.yaml")[0]["metadata"]["name"],
            "what is scaled",
        ),
        (
            trigger.get("authenticationRef", {}).get("name") == secret["metadata"]["name"],
            "authentication",
        ),
        (set(target) == {"parameter", "name", "key"}, "where the address is"),
        (target.get("parameter") == "connection", "the address is the connection"),
        (target.get("key") in secrets.get(target.get("name"), {}), "the example has the secret"),
    )


def unit(file: Path) -> bool:
    """The unit is understood, and what it may do is little: 0 is nothing, 10 is everything."""
    analyze = needed("systemd-analyze", "systemd")
    file.write_text(file.read_text().replace("/opt/dispatcher/bin/dispatcher", "/bin/true"))
    verify = [analyze, "verify", "--man=no", str(file)]
    said = subprocess.run(verify, capture_output=True, text=True, check=False)
    # What systemd would overlook it only warns of; other units of this machine are not ours.
    if said.returncode or str(file) in said.stderr:
        return False
    return passes(analyze, "security", "--offline=true", "--threshold=15", "--no-pager", file)


def settings_file(file: Path) -> bool:
    """What the example sets is a setting, and what it leaves empty is all that is missing."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    given = dict(line.split("=", 1) for line in lines)
    secret = {"DISPATCHER_APPS__DEFAULT__APP_SECRET": "secret"}
    try:
        load_settings({name: value or "x" for name, value in given.items()} | secret, ALL_PARTS)
    except SettingsError as error:
        print(error)  # noqa: T201 - shown if it failed
        return False
    return True


def rules(file: Path) -> bool:
    return passes(needed("promtool", "prometheus"), "check", "rules", file)


def rule_tests(file: Path) -> bool:
    shutil.copy(DEPLOY / "prometheus/alerts.yml", file.parent)
    return passes(needed("promtool", "prometheus"), "test", "rules", file)


def prometheus(file: Path) -> bool:
    """It is a configuration, with the rules of the release beside it."""
    shutil.copy(DEPLOY / "prometheus/alerts.yml", file.parent)
    found = yaml.safe_load(file.read_text()).get("rule_files")
    return passes(needed("promtool", "prometheus"), "check", "config", file) and true_of(
        file, (found == ["alerts.yml"], "the rules are loaded")
    )


def dashboard(file: Path) -> bool:
    """It is one of Prometheus, and every line of it is an expression."""
    promtool = needed("promtool", "prometheus")
    try:
        whole = json.loads(file.read_text())
    except ValueError:
        return False
    lines = [target["expr"] for panel in whole["panels"] for target in panel["targets"]]
    fixed = [line.replace("$__rate_interval", "1m").replace("$app", ".*") for line in lines]
    named = [{"record": f"line:{n}", "expr": line} for n, line in enumerate(fixed)]
    written = file.with_name("lines.yml")
    written.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": named}]}))
    asks = r'"datasource": \{[^}]*"uid": "([^"]+)"'
    sources = set(re.findall(asks, json.dumps(whole)))
    return passes(promtool, "check", "rules", written) and true_of(
        file, (sources == {"${datasource}"}, "where it asks can be chosen")
    )


def grafana_source(file: Path) -> bool:
    """Grafana asks where compose runs Prometheus."""
    whole = yaml.safe_load(file.read_text())
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    (source,) = whole.get("datasources") or [{}]
    host, _, port = source.get("url", "").removeprefix("http://").partition(":")
    ports = services.get(host, {}).get("ports", [""])
    return true_of(
        file,
        (whole.get("apiVersion") == 1, "apiVersion"),
        (source.get("type") == "prometheus", "type"),
        (ports[0].endswith(f":{port}") and port != "", "url"),
        (source.get("isDefault") is True, "isDefault"),
    )


def grafana_provider(file: Path) -> bool:
    """Grafana reads dashboards from where compose mounts them."""
    whole = yaml.safe_load(file.read_text())
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    (provider,) = whole.get("providers") or [{}]
    mounts = [volume.split(":") for volume in services["grafana"]["volumes"]]
    target = {to: source for source, to, *_ in mounts}.get(provider.get("options", {}).get("path"))
    return true_of(
        file,
        (whole.get("apiVersion") == 1, "apiVersion"),
        (provider.get("type") == "file", "type"),
        (target is not None and bool([*(DEPLOY / "compose" / target).glob("*.json")]), "path"),
    )


def page(file: Path) -> bool:
    """Its links lead somewhere, its shell is shell, its commands and settings exist."""
    text = file.read_text()
    home = DEPLOY / file.parent.name if file.parent.name in _folders() else DEPLOY
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    shell = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    fields = {name.upper() for name in (*Settings.model_fields, *AppSettings.model_fields)}
    settings = set(re.findall(r"DISPATCHER_(?:APPS__[A-Z]+__)?([A-Z_]+?)(?:_FILE)?\b", text))
    commands = {each.name for each in (*app.registered_commands, *app.registered_groups)}
    said = re.findall(r"(?:`|^|bin/)(?:\./dev )?dispatcher ([a-z]+)\b", text, re.MULTILINE)
    paths = re.findall(r"(?<![\w/])((?:deploy|tests|dispatcher|migrations)/[\w./-]*\w)", text)
    checked = subprocess.run(["sh", "-n"], input=shell.encode(), capture_output=True, check=False)
    return true_of(
        file,
        (checked.returncode == 0, f"shell: {checked.stderr.decode()}"),
        *(((home / link).exists(), f"link to {link}") for link in links),
        *((name in fields, f"setting {name}") for name in settings),
        *((name in commands, f"command {name}") for name in said),
        *(((ROOT / path).exists() or "*" in path, f"path {path}") for path in paths),
    )


def _folders() -> set[str]:
    return {path.name for path in DEPLOY.iterdir() if path.is_dir()}
