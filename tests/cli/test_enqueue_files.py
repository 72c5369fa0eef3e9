"""The files that people bring: each gives exactly what it must, in and told."""

import csv
import os
from pathlib import Path
from typing import NamedTuple

import pytest

FILES = Path(__file__).parent / "files"
TEMPLATE = "5f3e9a1c7b2d4e6f8091a2b3c4d5e6f7"


class Given(NamedTuple):
    """What a file must give: messages in, refused lines by number with words of their reason."""

    messages: int
    refused: dict[int, str] = {}  # noqa: RUF012 - never changed
    options: tuple[str, ...] = ()
    words: tuple[str, ...] = ()  # on stdout
    code: int | None = None  # 0 or 1 by the refused lines


SHANGHAI = ("--zone", "Asia/Shanghai")
WHOLE = ("--template", TEMPLATE, "--param", "4", "--param", "东门", "--param", "100001")
QUOTE = "a quote opened in line 2 is never closed: 7 lines were read as one cell"
TOO_LONG = "it has 6 cells, and the header has 5"
MISSING_PLUS = "the + is missing"

GIVEN = {
    "f01-utf8-bom-crlf.csv": Given(3),
    "f03-utf16le-comma.csv": Given(3),
    "f04-gbk-crlf.csv": Given(3, words=("gb18030, such as “滨江公园便利店",)),
    "f05-semicolon.csv": Given(3),
    "f07-sep-line.csv": Given(3),
    "f08-cr-only.csv": Given(3),
    "f09-quoted-newline.csv": Given(3, words=("5 lines of data",)),
    "f10-scientific.csv": Given(3, dict.fromkeys((2, 3, 4), "a spreadsheet has rounded it")),
    "f11-apostrophe.csv": Given(9, words=("7 numbers without + taken as mainland China",)),
    "f13-invisible.csv": Given(11, words=("5 numbers without +",)),
    "f14-punctuated.csv": Given(12),
    "f15-prefixes.csv": Given(
        8,
        {
            5: "with a 0 in front",
            6: "it has a 0 after +86",
            9: "it has both + and 00",
            11: "it has 10 digits",
            12: "it has 12 digits",
            13: "a service number",
            14: "a service number",
            15: "it looks like a fixed line",
            16: "it looks like a fixed line",
            17: "it is too short",
            18: "it has no digits",
            19: "it has 8 digits",
            21: MISSING_PLUS,
        },
    ),
    "f16-several.csv": Given(
        0,
        {
            2: "two numbers",
            3: "two numbers",
            4: "two numbers",
            5: "two numbers",
            6: "two numbers",
            7: "two numbers",
            9: "22 digits",
        },
    ),
    "f17-trailing-empty.csv": Given(2, words=("4 blank",)),
    "f18-chinese-header.csv": Given(2),
    "f18b-chinese-header-utf8.csv": Given(2),
    "f19-duplicates.csv": Given(5, words=("line 3 as line 2, line 4 as line 2, line 6 as line 2",)),
    "f20-header-case-space.csv": Given(2),
    "f20b-header-words.csv": Given(2),
    "f20e-header-quoted-newline.csv": Given(2),
    "f21-empty.csv": Given(0, words=("is empty",), code=2),
    "f21b-only-header.csv": Given(0, words=("is empty: it has a header and no lines",), code=2),
    "f21c-only-bom.csv": Given(0, words=("is empty",), code=2),
    "f21d-blank-lines.csv": Given(0, words=("is empty",), code=2),
    "f21e-blank-line-first.csv": Given(2),
    "f23-nul.csv": Given(1, dict.fromkeys((2, 3, 5), "it holds NUL bytes")),
    "f24-wrong-count.csv": Given(
        2,
        {2: "it has 4 cells", 3: TOO_LONG, 5: "it has 1 cells", 6: TOO_LONG},
    ),
    "f25-formula.csv": Given(0, dict.fromkeys((2, 3, 4), "recipient: ")),
    "f26-padded.csv": Given(1),
    "f27-extra-columns.csv": Given(0, words=("unknown columns 'name', 'note'",), code=2),
    "f28-unbalanced-quote.csv": Given(0, dict.fromkeys(range(2, 9), QUOTE)),
    "f28b-quote-inside.csv": Given(3),
    "f29-cp1252.csv": Given(0, words=("is not UTF-8", "cp1252 would read “Jérôme”"), code=2),
    "f29d-gbk-no-chinese-lines-first.csv": Given(4),
    "f29e-mixed.csv": Given(2, {4: "it is not UTF-8 text"}),
    # These two are zip files of 265 bytes without any sheet: no reader finds a row in them.
    "f30-real-xlsx.csv": Given(0, words=("not an Excel workbook that can be read",), code=2),
    "f30b.xlsx": Given(0, words=("not an Excel workbook that can be read",), code=2),
    "f31-title-row.csv": Given(2, words=("Skipped before the header: line 1.",)),
    "f32-times.csv": Given(
        5,
        {
            5: "expires_at is not after send_at",
            7: "send_at may be one of two days",
            8: "expires_at is past",
            9: "send_at is no time",
            10: "send_at has no time of day",
        },
        SHANGHAI,
    ),
    "f33-params.csv": Given(
        1,
        {
            2: "param_2 is empty",
            3: "it has 0 variables, and the template takes 3",
            4: "variable 2 is no TXT_20",
            5: "variable 3 is no NUM_6",
            6: "param_3: a spreadsheet has rounded it",
            7: "template_id is missing",
            8: "recipient is missing",
            10: TOO_LONG,
        },
        words=("Templates that are not defined here, so their variables were not checked: NOPE.",),
    ),
    "f34-numbers-only.csv": Given(3, {5: "it has 8 digits"}, WHOLE),
    "f35-english-header-ragged.csv": Given(
        2, {3: "it has 3 cells, and the header has 2"}, WHOLE, ("Not used: Name.",)
    ),
    "f36-no-last-newline.csv": Given(2),
    "f37-ctrl-z.csv": Given(2),
    "f38-template-literal.csv": Given(1),
    "f40-txt-numbers-only.txt": Given(2, {}, (*WHOLE, "--recipients-only")),
    "g01-unbalanced-quote-6000.csv": Given(
        10,
        dict.fromkeys(
            range(12, 6_002),
            "a quote opened in line 12 is never closed: 5,990 lines were read as one cell",
        ),
    ),
    "g03-plus-lost-us-sg-cn.csv": Given(
        3, {5: MISSING_PLUS}, words=("2 numbers without + taken as mainland China (+86)",)
    ),
    "g04-gbk-one-bad.csv": Given(1),
    "g06-unbalanced-quote-in-header.csv": Given(
        0,
        dict.fromkeys(
            range(2, 3_002),
            "a quote opened in line 1 is never closed: 3,001 lines were read as one cell",
        ),
    ),
}
OTHERS = {  # the same files with other options
    "f19-duplicates.csv": Given(2, {}, ("--unique",), ("3 left out",)),
    "f27-extra-columns.csv": Given(2, {}, ("--ignore-others",), ("Not used: name, note.",)),
    "f29-cp1252.csv": Given(2, {}, ("--encoding", "cp1252")),
    "f32-times.csv": Given(
        2,
        {
            2: "send_at has no zone",
            3: "send_at has no zone",
            5: "expires_at is not after send_at",
            6: "send_at has no zone",
            7: "send_at may be one of two days",
            8: "expires_at is past",
            9: "send_at is no time",
            10: "send_at has no time of day",
        },
    ),
}


@pytest.fixture
async def enqueue(operate, db, tmp_path):
    """Loads a file, and holds it to what it must give."""
    await db.execute(
        "INSERT INTO dispatcher.template (template_id, kinds) VALUES ($1, $2)",
        TEMPLATE,
        ["NUM_2", "TXT_20", "NUM_6"],
    )

    async def load(file: Path, given: Given) -> None:
        rejects = tmp_path / "rejects.csv"
        ended = await operate("enqueue", file, "--rejects", rejects, *given.options)
        expected = given.code if given.code is not None else int(bool(given.refused))
        assert ended.code == expected, ended
        for words in given.words:
            assert words in ended.out + ended.err
        waiting = "SELECT count(*) FROM dispatcher.message_status WHERE state = 'queued'"
        assert await db.fetchval(waiting) == given.messages
        told = refused(rejects) if rejects.exists() else {}
        assert told.keys() == given.refused.keys()
        for line, words in given.refused.items():
            assert words in told[line]

    return load


def refused(path: Path) -> dict[int, str]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        return {
            int(row["line"]): row["reason"]
            for row in csv.DictReader(stream, delimiter=delimiter(path))
        }


def delimiter(path: Path) -> str:
    return path.read_bytes()[len("\ufeffline".encode()) :][:1].decode()


@pytest.mark.parametrize("name", GIVEN)
async def test_a_file_gives_exactly_what_it_must(enqueue, name):
    await enqueue(FILES / name, GIVEN[name])


@pytest.mark.slow
@pytest.mark.usefixtures("enqueue")
async def test_a_dry_run_gives_what_each_load_gives(operate, db, tmp_path):
    for at, (name, given) in enumerate((*GIVEN.items(), *OTHERS.items())):
        rejects = tmp_path / f"{at}.csv"
        ended = await operate(
            "enqueue", FILES / name, "--dry-run", "--rejects", rejects, *given.options
        )
        expected = given.code if given.code is not None else int(bool(given.refused))
        assert (name, ended.code) == (name, expected), ended
        if expected != 2:  # the file as a whole is none
            noun = "message" if given.messages == 1 else "messages"
            assert ended.out.startswith(f"{given.messages} {noun} would be enqueued."), name
        told = refused(rejects) if rejects.exists() else {}
        assert told.keys() == given.refused.keys(), name
        assert all(words in told[line] for line, words in given.refused.items()), name
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 0


@pytest.mark.parametrize("name", OTHERS)
async def test_a_file_gives_what_the_options_say(enqueue, name):
    await enqueue(FILES / name, OTHERS[name])


def test_no_file_is_forgotten():
    lists = {path.name for path in FILES.iterdir() if not path.name.startswith("opt")}
    assert lists == GIVEN.keys()


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("optout.csv", ["+8613100053012"]),
        ("optout3.csv", ["+8613100053014"]),
        ("opt5.csv", ["+8613100054001", "+8613100054002", "+8613100054003"]),
        ("f18-chinese-header.csv", ["+8613100010090", "+8613100010091"]),
    ],
)
async def test_everyone_of_an_opt_out_list_is_suppressed(operate, db, name, numbers):
    ended = await operate("suppress", "--file", FILES / name)
    assert (ended.code, ended.err) == (0, "")
    rows = await db.fetch("SELECT recipient FROM dispatcher.suppression ORDER BY 1")
    assert [row[0] for row in rows] == numbers


async def test_bad_lines_of_an_opt_out_list_are_named(operate, db, tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("13100000001\n1310000\n+8613100000002\n", encoding="utf-8")
    ended = await operate("suppress", "--file", file)
    assert (ended.code, ended.out.split(",")[0]) == (1, "2 numbers suppressed")
    assert "dispatcher: line 2: it has 7 digits" in ended.err
    assert await db.fetchval("SELECT count(*) FROM dispatcher.suppression") == 2
    file.write_text("a letter\nto nobody\n", encoding="utf-8")
    assert (await operate("suppress", "--file", file)).code == 2


async def test_half_a_character_refuses_its_own_line(operate, db, tmp_path):
    lines = ["\\ud83d", "x\\u0000", "\\ude00\\ud83d", "\\ud83d\\ude00", "\\\\u0000"]
    cells = [f'+861310000000{at},t1,"[""{text}""]"' for at, text in enumerate(lines)]
    file = tmp_path / "x.csv"
    file.write_text("\n".join(("recipient,template_id,params", *cells)) + "\n", encoding="utf-8")
    ended = await operate("enqueue", file)
    assert (ended.code, ended.out.splitlines()[0]) == (1, "2 messages enqueued."), ended
    loaded = await db.fetch("SELECT params[1] FROM dispatcher.message ORDER BY id")
    assert [row[0] for row in loaded] == ["\U0001f600", "\\u0000"]
    told = (tmp_path / "x.rejects.csv").read_text("utf-8-sig").splitlines()[1:]
    assert [line[:1] for line in told] == ["2", "3", "4"]
    assert all("params: an item has \\u0000, or half of a character" in line for line in told)
    file.write_bytes(b"recipient,template_id,param_1\n13112345678,t1,+2D0-\n13112345678,t1,b\n")
    ended = await operate("enqueue", file, "--encoding", "utf-7")
    assert ended.out.startswith("1 message enqueued."), ended


@pytest.mark.parametrize("option", ["template", "param", "sender", "signature", "reference"])
async def test_an_option_that_is_no_text_is_refused(operate, tmp_path, option):
    (tmp_path / "x.csv").write_text("recipient\n13112345678\n", encoding="utf-8")
    options = ("--template", "t1", f"--{option}", os.fsdecode(b"x\xff"))
    ended = await operate("enqueue", tmp_path / "x.csv", *options)
    assert (ended.code, ended.line.endswith(" is not UTF-8 text.")) == (2, True), ended
