"""Writes what a release consists of, as CycloneDX JSON: `./dev sbom [FILE]`.

Named is what `pip install dispatcher` brings, with the versions of requirements.lock, and nothing
of what only tests and checks use. cyclonedx-py describes a Python environment, so it gets one that
has just these: their descriptions, by links, and no code.
"""

import subprocess
import sys
import tempfile
import tomllib
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


class DifferentError(Exception):
    """What is installed is not what is locked."""


def required() -> dict[str, Distribution]:
    """Return all that the release needs, by name, itself left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    open_ones = [(Requirement(line), "") for line in project["project"]["dependencies"]]
    found: dict[str, Distribution] = {}
    seen = set()
    while open_ones:
        wanted, extra = open_ones.pop()
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(wanted.name)
        found[name] = distribution(name)
        for more in ("", *wanted.extras):
            if (name, more) not in seen:
                seen.add((name, more))
                needs = found[name].requires or []
                open_ones += [(Requirement(line), more) for line in needs]
    return found


def locked() -> dict[str, set[str]]:
    """Return the versions that the lock holds, by name: several if platforms differ."""
    versions: dict[str, set[str]] = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="ascii").splitlines():
        name, _, version = line.partition(";")[0].strip().partition("==")
        versions.setdefault(name, set()).add(version)
    return versions


def described(file: Path) -> None:
    """Write the description to *file*. Raises DifferentError."""
    there = required()
    known = locked()
    other = [
        f"{name} {each.version}"
        for name, each in sorted(there.items())
        if each.version not in known.get(name, set())
    ]
    if other:
        raise DifferentError(f"not as locked: {', '.join(other)}; run ./dev in a fresh clone")
    with tempfile.TemporaryDirectory(prefix="dispatcher-sbom-") as folder:
        venv.create(folder, with_pip=False, symlinks=True)
        (packages,) = Path(folder).glob("lib/python3*/site-packages")
        for each in there.values():
            found = Path(str(each._path))
            (packages / found.name).symlink_to(found)
        subprocess.run(
            [
                *(Path(sys.executable).parent / "cyclonedx-py", "environment"),
                *("--pyproject", ROOT / "pyproject.toml", "--mc-type", "application"),
                *("--output-format", "JSON", "--output-reproducible", "--output-file", file),
                Path(folder) / "bin" / "python",
            ],
            check=True,
        )


if __name__ == "__main__":
    target = Path(sys.argv[1] if sys.argv[1:] else "sbom.json")
    try:
        described(target)
    except DifferentError as error:
        sys.exit(f"sbom: {error}")
    sys.stdout.write(f"{target}\n")
