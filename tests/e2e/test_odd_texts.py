"""Variables and signatures as people write them: what is inserted is what the provider reads."""

import pytest
from support.messages import finished
from support.provider import app_at
from support.waiting import until

from dispatcher.bench.ports import free_port
from dispatcher.simulator import Options, ReportOptions
from dispatcher.simulator.ledger import fingerprint

TOKEN = "a-token-that-nobody-guesses"
INSERT = """
    INSERT INTO dispatcher.message (recipient, template_id, params, signature)
    VALUES ('+86138' || lpad($1::text, 8, '0'), $2, $3, $4) RETURNING id
"""
ODD = [
    '"', "'", "\\", "\\\\n", "a\nb", "a\r\nb", "a\tb", "\x01", "\x1b", "\x7f", "\x85",
    "\U0001f600", "\U0001f1e8\U0001f1f3", "\u2028\u2029", "\U0010ffff", "\ufeff1", "\ufffe",
    "007", "062569", "0", "-0", "1e3", "null", "true", " ", " a ", "\xa0", "", "【】", "】【",
    "{}", "${TXT_20}", "\\u0041", "e\u0301", "\u202eabc", "<a&b>", "a/b", "%00", "您的验证码",
]  # fmt: skip


async def test_each_variable_arrives_byte_for_byte(db, workers, sim):
    written = {}
    for n, odd in enumerate(ODD):
        params = [odd, f"{odd}{odd}", "plain"]
        written[f"+86138{n:08d}"] = fingerprint("tpl", params)
        await db.fetchval(INSERT, str(n), "tpl", params, "【签】名" if n % 2 else None)
    await workers.start(sim.url)
    await until(lambda: finished(db), what="all outcomes")
    assert {row.number: row.fingerprint for row in sim.ledger.rows()} == written


@pytest.mark.parametrize("auth", ["aksk", "wsse"])
async def test_a_chinese_text_with_its_signature_is_delivered(db, workers, provide, auth):
    # The provider checks the signature of the request, which covers the bytes of the body.
    text = {"tpl": "尊敬的${TXT_20}，您的验证码是${NUM_6}，请勿泄露。"}
    sim = await provide(options=Options(templates=text), reports=ReportOptions(delay=(0.0, 0.1)))
    await db.fetchval(INSERT, "1", "tpl", ["张三先生", "062569"], "华为云")
    listen = f"127.0.0.1:{free_port()}"
    await workers.start(
        {"default": app_at(sim.url, auth=auth)},
        listen=listen,
        report_path_token=TOKEN,
        callback_url=f"http://{listen}/reports/{TOKEN}",
    )
    delivered = "SELECT state = 'delivered' FROM dispatcher.message_status"
    await until(lambda: db.fetchval(delivered), what="it is delivered")
    assert [row.total for row in sim.ledger.rows()] == [1]


async def test_a_template_without_variables_is_sent_without_any(db, workers, provide):
    sim = await provide(options=Options(templates={"plain": "Your order is on its way."}))
    sound = await db.fetchval(INSERT, "1", "plain", [], None)
    one_empty = await db.fetchval(INSERT, "2", "plain", [""], None)
    await workers.start(sim.url)
    await until(lambda: finished(db), what="all outcomes")
    rows = await db.fetch("SELECT id, state, code FROM dispatcher.message_status ORDER BY id")
    assert [tuple(row) for row in rows] == [
        (sound, "accepted", "000000"),
        (one_empty, "rejected", "E200028"),
    ]


async def test_a_text_too_long_for_a_request_is_rejected_alone(db, workers, sim):
    # What the table takes at most does not fit into a request with what stands around it.
    longest = await db.fetchval(INSERT, "1", "tpl", ["x" * 65_536], None)
    escaped = await db.fetchval(INSERT, "2", "tpl", ["\x01" * 20_000], None)  # six bytes each
    fits = await db.fetchval(INSERT, "3", "tpl", ["x" * 65_000], None)
    short = await db.fetchval(INSERT, "4", "tpl", ["x"], None)
    await workers.start(sim.url)
    await until(lambda: finished(db), what="all outcomes")
    rows = await db.fetch("SELECT id, state, code FROM dispatcher.message_status ORDER BY id")
    assert [tuple(row) for row in rows] == [
        (longest, "rejected", "too-long"),
        (escaped, "rejected", "too-long"),
        (fits, "accepted", "000000"),
        (short, "accepted", "000000"),
    ]
    reason = await db.fetchval(
        "SELECT reason FROM dispatcher.outcome WHERE message_id = $1", longest
    )
    assert reason
