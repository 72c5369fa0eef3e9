"""The project's own files: what they promise holds."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from dispatcher import __version__
from dispatcher.cli.commands import app
from dispatcher.settings import AppSettings, Settings, load_settings

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "deploy/docs/applications.md", "deploy/docs/operations.md"]
README = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
SETTINGS = (ROOT / "deploy/docs/settings.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SAMPLE = ROOT / "dispatcher/cli/demo/sample.csv"


def blocks(language: str) -> list[str]:
    """Return the code blocks in a language, of the README and the pages that it begins with."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9_.-]+", line)[0] for line in requirements)
    return {name.lower().replace("_", "-").replace(".", "-") for name in found}


def test_the_lock_holds_versions_and_no_address():
    lines = (ROOT / "requirements.lock").read_text(encoding="ascii").splitlines()
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.!+]+( ; [\w .'=!<>()]+)?", line), line


def test_the_lock_knows_every_requirement():
    locked = names((ROOT / "requirements.lock").read_text(encoding="ascii").splitlines())
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = names(
        PROJECT["project"]["dependencies"] + [each for extra in extras for each in extra]
    )
    assert wanted - {"dispatcher"} <= locked


def test_dev_installs_only_extras_that_exist():
    script = (ROOT / "dev").read_text(encoding="utf-8")
    needed = re.findall(r"\bneed ((?:[a-z]+ ?)+)", script)
    extras = {name for line in needed for name in line.split()}
    assert {"embedded", "test", "check", "release"} <= extras
    assert extras <= set(PROJECT["project"]["optional-dependencies"])


def test_dev_hides_no_command_but_the_one_that_it_names():
    script = (ROOT / "dev").read_text(encoding="utf-8")
    labels = re.findall(r"^([a-z |]+)\)$", script.rpartition("case $1 in")[2], re.MULTILINE)
    own = {name for label in labels for name in label.split(" | ")}
    assert {"test", "check", "codes"} <= own
    groups = [group.name for group in app.registered_groups]
    commands = {*groups, *(command.name for command in app.registered_commands)}
    assert own & commands == {"check"}


@pytest.mark.parametrize("script", ["dev", ".ci/run"])
def test_the_scripts_can_be_run(script):
    path = ROOT / script
    assert path.stat().st_mode & 0o111 == 0o111
    shell = "sh" if script == "dev" else "bash"
    assert subprocess.run([shell, "-n", path], check=False).returncode == 0


def test_dev_explains_itself_without_an_environment(tmp_path):
    copy = tmp_path / "dev"
    copy.write_bytes((ROOT / "dev").read_bytes())
    ended = subprocess.run(["sh", copy], capture_output=True, text=True, check=True)
    assert "./dev demo" in ended.stdout
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    ("programs", "words"),
    [
        ({}, "python3 is missing"),
        ({"python3": "exit 1"}, "Python 3.11 or newer is needed"),
        ({"python3": "case $2 in *ensurepip*) exit 1;; esac"}, "apt install python3-venv"),
    ],
)  # fmt: skip
def test_dev_says_what_is_missing(tmp_path, programs, words):
    for name in ("dev", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    path = tmp_path / "bin"
    path.mkdir()
    for tool in ("cat", "cksum", "dirname"):
        (path / tool).symlink_to(f"/usr/bin/{tool}")
    for name, body in programs.items():
        (path / name).write_text(f"#!/bin/sh\n{body}\n", encoding="ascii")
        (path / name).chmod(0o755)
    ended = subprocess.run(
        ["/bin/sh", tmp_path / "dev", "status"],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert words in ended.stderr.splitlines()[-1]


def test_the_page_of_settings_lists_every_one_and_no_other():
    cells = re.findall(r"^\| ((?:`[A-Z_0-9]+`(?:, )?)+) \|", SETTINGS, re.MULTILINE)
    listed = {name for cell in cells for name in re.findall(r"`([A-Z_0-9]+)`", cell)}
    fields = [*Settings.model_fields, *AppSettings.model_fields]
    files = {"DATABASE_URL_FILE", "DATABASE_DIRECT_URL_FILE"}  # as any name, see the page
    assert listed == {name.upper() for name in fields} - {"APPS", "TRACES"} - files


def test_the_page_of_settings_has_the_real_defaults():
    whole, app = SETTINGS.split("| for each app")
    documented = re.compile(r"^\| `([A-Z_0-9]+)` \| `([^`]+)` \|", re.MULTILINE)
    needed = {
        "DISPATCHER_APPS__A__ENDPOINT": "http://host",
        "DISPATCHER_APPS__A__APP_KEY": "key",
        "DISPATCHER_APPS__A__APP_SECRET": "secret",
    }
    written = {f"DISPATCHER_{name}": value for name, value in documented.findall(whole)}
    written |= {f"DISPATCHER_APPS__A__{name}": value for name, value in documented.findall(app)}
    assert len(written) > 12
    assert load_settings(needed | written) == load_settings(needed)


def test_the_pages_list_every_command():
    for command in app.registered_commands:
        assert f"dispatcher {command.name}" in README or f"`{command.name} " in README, command.name


async def test_the_sql_of_the_pages_runs(db):
    assert len(blocks("sql")) == 6
    for statement in blocks("sql"):
        await db.execute(statement)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 3


async def test_the_python_of_the_pages_runs(db):
    (source,) = blocks("python")
    code = compile(source, "applications.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(code, {"connection": db})
    assert await db.fetchval("SELECT params FROM dispatcher.message") == ["062569"]


def test_the_pages_name_every_column_an_application_may_set():
    table = README.partition("| column | what it is |")[2].partition("\n\n")[0]
    columns = set(re.findall(r"^\| `(\w+)", table, re.MULTILINE))
    migration = (ROOT / "migrations/0001_schema.sql").read_text(encoding="utf-8")
    message = migration.partition("CREATE TABLE dispatcher.message (")[2].partition("PRIMARY KEY")[
        0
    ]
    assert columns == set(re.findall(r"^    (\w+)", message, re.MULTILINE)) - {
        "id",
        "queued_at",
        "wiped_at",
    }


def test_the_sample_is_small_and_its_numbers_are_samples():
    assert SAMPLE.stat().st_size < 300_000
    with SAMPLE.open(encoding="utf-8") as lines:
        next(lines)
        recipients = [line.partition(",")[0] for line in lines]
    # Invented mainland numbers, 555 numbers, Ofcom's for drama, the provider's own example.
    sample = re.compile(
        r"(\+86)?1310000\d{4}|1310001\d{4}|\+1\d{3}55501\d\d|\+44 ?7700 ?900 ?\d{3}|\+24120000\d\d"
    )
    assert [number for number in recipients if not sample.fullmatch(number)] == []


def test_the_version_is_one():
    assert PROJECT["project"]["version"] == __version__


def test_the_links_of_the_first_pages_lead_somewhere():
    pages = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
    for page in pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


def parts_of_page(text: str) -> dict[str, list]:
    """Return what two languages of one page have in common."""
    fence = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    return {
        "headings": [len(found) for found in re.findall(r"^(#+) ", text, re.MULTILINE)],
        "blocks": fence.findall(text),
        "code": sorted(re.findall(r"`[^`\n]+`", fence.sub("", text))),
        "links": re.findall(r"\]\((?!README)([^)]+)\)", text),
        "rows": [line.count("|") for line in text.splitlines() if line.startswith("|")],
        "steps": re.findall(r"^\*\*\d\.", text, re.MULTILINE),
    }


def test_the_chinese_readme_keeps_step_with_the_english_one():
    english, chinese = (
        parts_of_page((ROOT / name).read_text(encoding="utf-8"))
        for name in ("README.md", "README.zh-CN.md")
    )
    assert chinese == english
