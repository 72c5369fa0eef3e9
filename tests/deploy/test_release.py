"""A release: its wheel is complete, and its SBOM names every part."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("mypy", "pytest", "ruff", "hypothesis", "cyclonedx-bom", "pip")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel as a release builds it, with what is installed and no network."""
    pytest.importorskip("hatchling", reason="./dev sbom brings what a release takes")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        yield archive


def kept(folder: str) -> set[str]:
    """Return the files of a folder that belong to the project."""
    command = ["git", "-C", ROOT, "ls-files", folder]
    if (ROOT / ".git").exists():
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {name for name in listed.splitlines() if (ROOT / name).exists()}
    found = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_every_statement_migration_and_page(wheel):
    inside = set(wheel.namelist())
    assert kept("dispatcher") <= inside
    assert {f"dispatcher/{name}" for name in kept("migrations")} <= inside
    for must in ("db/sql/queue.sql", "console/static/console.css", "cli/demo/sample.csv"):
        assert f"dispatcher/{must}" in inside
    assert not [name for name in inside if not name.startswith("dispatcher")]


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict:
    """The list of parts, as `./dev sbom` writes it."""
    pytest.importorskip("cyclonedx_py", reason="./dev sbom brings what a release takes")
    file = tmp_path_factory.mktemp("sbom") / "sbom.json"
    subprocess.run([sys.executable, ROOT / "tests/deploy/sbom.py", file], check=True)
    return json.loads(file.read_text())


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_sbom_names_every_locked_package_of_a_release(parts):
    lines = (ROOT / "requirements.lock").read_text(encoding="ascii").splitlines()
    locked = {tuple(line.partition(" ;")[0].split("==")) for line in lines}
    named = {(plain(part["name"]), part["version"]) for part in parts["components"]}
    assert named <= locked
    assert parts["bomFormat"] == "CycloneDX"
    assert parts["metadata"]["component"]["name"] == "dispatcher"
    assert all(part["purl"].startswith("pkg:pypi/") for part in parts["components"])
    # pip confirms that every requirement of the release is there, and theirs too.
    listed = [sys.executable, "-m", "pip", "show", "dispatcher", *(name for name, _ in named)]
    said = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"^Requires: (.*)$", said, re.MULTILINE)
    wanted = {plain(name) for line in needed for name in line.split(", ") if name}
    assert wanted <= {name for name, _ in named}


def test_it_names_nothing_that_only_tests_use(parts):
    assert not {plain(part["name"]) for part in parts["components"]} & set(TOOLS)
    edges = {each["ref"] for each in parts["dependencies"]}
    assert len(edges) >= len(parts["components"])


def test_an_environment_that_is_not_as_locked_is_not_described(tmp_path):
    pytest.importorskip("cyclonedx_py", reason="./dev sbom brings what a release takes")
    for name in ("pyproject.toml", "requirements.lock"):
        text = (ROOT / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(
            re.sub(r"^msgspec==.*$", "msgspec==0.1", text, flags=re.MULTILINE)
        )
    script = tmp_path / "tests/deploy/sbom.py"
    script.parent.mkdir(parents=True)
    script.write_bytes((ROOT / "tests/deploy/sbom.py").read_bytes())
    ended = subprocess.run(
        [sys.executable, script, tmp_path / "sbom.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "msgspec" in ended.stderr
    assert not (tmp_path / "sbom.json").exists()
