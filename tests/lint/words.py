"""Finds words that the house style refuses, in every text file that git tracks."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Riddles, personifications and figures of speech; the plain word is in CONTRIBUTING.md.
REFUSED = (
    *("deed", "desk", "door", "bell", "glance", "knock", "onlooker", "whoever", "somebody"),
    *("nobody knows", "in vain", "in earnest", "what became", "is told", "tells", "hears"),
    *("goes away", "the way back"),
)
# The word may be a part of an identifier: `made_desk` and `DeskConnections` are found too.
_WORDS = "|".join(REFUSED).replace(" ", r"[\s#]+")
_TITLED = "|".join(word.title() for word in REFUSED if " " not in word)
_PATTERN = re.compile(rf"(?<![A-Za-z])(?i:{_WORDS})s?(?![a-z])|(?<=[a-z])(?:{_TITLED})s?(?![a-z])")
_TEXT = {".py", ".sql", ".md", ".html", ".css", ".js", ".toml", ".yaml", ".yml", ".service", ""}
_FOREIGN = ("LICENSE", "tests/console/axe/", "uPlot", "tests/lint/words.py")


def refused_words() -> Iterator[str]:
    """Yield a line for each refused word: file, line number and word."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix not in _TEXT or any(part in name for part in _FOREIGN) or not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        for match in _PATTERN.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{name}:{line}: refused word {' '.join(match[0].split())!r}"
