"""Pages are in the language that the reader chose, else in the one that the browser asks for."""

CHINESE = {"Accept_Language": "zh-CN,zh;q=0.9"}


async def test_a_page_is_in_the_language_of_the_browser(client):
    chinese = await client.get("/console/login", **CHINESE)
    assert '<html lang="zh-CN">' in chinese.text
    assert "<h1>登录</h1>" in chinese.text
    assert chinese.headers["Content-Language"] == "zh-CN"
    # the same connection: the next request starts anew
    english = await client.get("/console/login")
    assert '<html lang="en">' in english.text
    assert "<h1>Log in</h1>" in english.text


async def test_a_chosen_language_stays_and_keeps_the_page(operator):
    page = "/console/messages?state=queued"
    choice = await operator.get("/console/language/zh-CN", Referer=operator.url + page)
    assert (choice.status, choice.headers["Location"]) == (303, page)
    assert '<html lang="zh-CN">' in (await operator.get(page, Accept_Language="en")).text
    await operator.get("/console/language/en")
    assert '<html lang="en">' in (await operator.get(page, **CHINESE)).text


async def test_a_choice_leads_to_pages_of_the_console_only(client):
    for referer in ("https://example.org/", "https://example.org//evil", "//console", "", "x:/"):
        choice = await client.get("/console/language/zh-CN", Referer=referer)
        assert choice.headers["Location"] == "/console", referer


async def test_an_unknown_language_changes_nothing(client):
    choice = await client.get("/console/language/tlh")
    assert "Set-Cookie" not in choice.headers
    page = await client.get("/console/login", Cookie="dispatcher_language=../../etc")
    assert '<html lang="en">' in page.text


async def test_a_code_is_found_by_words_of_both_languages(operator):
    for words in ("变量与模板不符", "variables%20do%20not%20fit"):
        found = await operator.get(f"/console/codes?q={words}", **CHINESE)
        assert "E200028" in found.text, words


async def test_what_an_action_stores_is_english(operator, db):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    form = {"form_token": (await operator.get("/console/search")).form_token}
    await operator.post("/console/message-action", {**form, "action": "cancel"}, **CHINESE)
    assert await db.fetchval("SELECT filter FROM dispatcher.message_action") == "all messages"
    page = await operator.get(
        f"/console/message-action/{await db.fetchval('SELECT id FROM dispatcher.message_action')}",
        **CHINESE,
    )
    assert "全部短信。" in page.text
