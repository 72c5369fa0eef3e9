"""Settings: what is read, and what is refused with which words."""

import contextvars
from pathlib import Path

import pytest

from dispatcher.core.language import use_language
from dispatcher.db.dsn import read_address
from dispatcher.settings import ALL_PARTS, AppSettings, Settings, SettingsError, load_settings

APP = {
    "DISPATCHER_APPS__DEFAULT__ENDPOINT": "https://sms.example.com:443",
    "DISPATCHER_APPS__DEFAULT__APP_KEY": "key",
    "DISPATCHER_APPS__DEFAULT__APP_SECRET": "hunter2-secret",
}


def app_of(**variables: str) -> AppSettings:
    named = {f"DISPATCHER_APPS__DEFAULT__{name}": value for name, value in variables.items()}
    return load_settings(APP | named).apps["default"]


def mistakes_of(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, ALL_PARTS)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return caught.value.mistakes


def test_an_empty_environment_is_a_whole_set_of_settings():
    settings = load_settings({})
    assert settings.apps == {}
    assert settings.database_url is None
    assert settings.data_dir.is_absolute()


def test_an_app_needs_three_settings_and_defaults_the_others():
    app = app_of()
    assert app.endpoint == "https://sms.example.com:443"
    assert app.app_secret.get_secret_value() == "hunter2-secret"
    assert (app.auth, app.wsse_digest, app.on_unsure) == ("aksk", "hex", "hold")
    assert (app.numbers_per_second, app.concurrency, app.timeout) == (500, 8, 30)


def test_names_of_apps_are_lower_cased():
    shouted = {name.replace("DEFAULT", "SHOP_2"): value for name, value in APP.items()}
    assert list(load_settings(APP | shouted).apps) == ["default", "shop_2"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("500ms", 0.5), ("15m", 900), ("2h", 7200), ("7d", 604_800),
     ("0.5", 0.5), (" 1.5H ", 5400)],
)  # fmt: skip
def test_durations_are_seconds_or_carry_a_unit(text, seconds):
    assert app_of(RESEND_AFTER=text).resend_after == seconds


def test_settings_of_a_file_with_windows_line_ends_are_the_same(tmp_path):
    (tmp_path / "secret").write_bytes(b"hunter2\r\n")
    app = app_of(
        SENDER="\r", AUTH="wsse\r", APP_SECRET="\r", APP_SECRET_FILE=f"{tmp_path}/secret\r"
    )
    assert (app.sender, app.auth, app.app_secret.get_secret_value()) == (None, "wsse", "hunter2")


def test_a_flag_may_have_blanks_around_it():
    assert app_of(PROMOTIONAL=" TRUE ").promotional is True


@pytest.mark.parametrize("text", ["", "none", "None"])
def test_no_pace_and_no_retention_mean_no_limit(text):
    expected = 500 if text == "" else None  # an empty variable is an unset one
    assert app_of(NUMBERS_PER_SECOND=text).numbers_per_second == expected
    assert load_settings({"DISPATCHER_RETENTION": text}).retention is None


def test_words_are_taken_in_any_case():
    assert app_of(AUTH="WSSE", WSSE_DIGEST="Raw").auth == "wsse"
    assert load_settings({"DISPATCHER_LOG_LEVEL": "INFO"}).log_level == "info"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("R,T,TD", ("R", "T", "TD")),
        ("R\uff0c退订\u3001T; TD", ("R", "退订", "T", "TD")),
        ("R\r\nT\nTD", ("R", "T", "TD")),
        ('R,"STOP ALL",“no more”', ("R", "STOP ALL", "no more")),
        ("none", ()),
    ],
)
def test_words_of_replies_divide_at_commas_and_lines(text, words):
    assert load_settings({"DISPATCHER_UNSUBSCRIBE_WORDS": text}).unsubscribe_words == words


def test_a_secret_file_loses_its_trailing_newline(tmp_path):
    file = tmp_path / "secret"
    file.write_bytes(b"of three words\r\n\n")
    variables = {**APP, "DISPATCHER_APPS__DEFAULT__APP_SECRET_FILE": str(file)}
    del variables["DISPATCHER_APPS__DEFAULT__APP_SECRET"]
    secret = load_settings(variables).apps["default"].app_secret
    assert secret.get_secret_value() == "of three words"


def test_a_secret_variable_loses_its_trailing_newline():
    assert app_of(APP_SECRET="hunter2-secret\n").app_secret.get_secret_value() == "hunter2-secret"


@pytest.mark.parametrize(
    "content",
    [b"hunter2\n# the key of the shop\n", b"h\0u\0n\0", b"hunter2\tshop", b"hunter2 \n", b" \n"],
)
def test_a_secret_with_more_than_itself_is_a_mistake(tmp_path, content):
    (tmp_path / "secret").write_bytes(content)
    variables = APP | {"DISPATCHER_APPS__DEFAULT__APP_SECRET": ""}
    variables["DISPATCHER_APPS__DEFAULT__APP_SECRET_FILE"] = str(tmp_path / "secret")
    (mistake,) = mistakes_of(variables)
    assert mistake == (
        "DISPATCHER_APPS__DEFAULT__APP_SECRET_FILE must be the secret alone: one line of text, no"
        " blanks around it"
    )


def test_the_endpoint_loses_a_slash_at_its_end():
    assert app_of(ENDPOINT="http://127.0.0.1:8000/").endpoint == "http://127.0.0.1:8000"


def test_kubernetes_service_variables_are_no_settings():
    load_settings(
        {
            "DISPATCHER_SERVICE_HOST": "10.0.0.1",
            "DISPATCHER_SERVICE_PORT_HTTP": "8080",
            "DISPATCHER_PORT": "tcp://10.0.0.1:8080",
            "DISPATCHER_PORT_8080_TCP_ADDR": "10.0.0.1",
            "DISPATCHER_REPORTS_SERVICE_PORT": "8080",
        }
    )


@pytest.mark.parametrize("name", ["PORT", "LISTEN_PORT", "APPS__DEFAULT__PORT"])
def test_a_port_that_a_person_wrote_is_a_mistake(name):
    (mistake,) = mistakes_of({f"DISPATCHER_{name}": "8080"})
    assert mistake.startswith(f"DISPATCHER_{name} is not a setting")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("APPS__DEFAULT__ENDPOINT", "smsapi.example.com", "must be the address of the provider"),
        ("APPS__DEFAULT__ENDPOINT", "https://host/sms/batchSendDiffSms/v1", "without a path"),
        ("APPS__DEFAULT__ENDPOINT", "https://user:pw@host", "must be the address"),
        ("APPS__DEFAULT__ENDPOINT", "https://host:99999", "must be the address"),
        *(
            ("APPS__DEFAULT__ENDPOINT", f"https://sms.example.com{end}", "must be the address")
            for end in ("?", "#", "\\", ":443#", "/?a")
        ),
        ("APPS__DEFAULT__ENDPOINT", "https://@sms.example.com", "must be the address"),
        ("APPS__DEFAULT__APP_KEY", 'two "words"', "must be one word"),
        *(
            (name, quotes[0] + value + quotes[1], "must stand without the quotes around it")
            for name, value in (
                ("APPS__DEFAULT__APP_SECRET", "hunter2"),
                ("APPS__DEFAULT__APP_KEY", "key"),
                ("APPS__DEFAULT__SENDER", "isms100000001"),
                ("APPS__DEFAULT__TIMEOUT", "30"),
                ("APPS__DEFAULT__NUMBERS_PER_SECOND", "none"),
                ("APPS__DEFAULT__ON_UNSURE", "hold"),
                ("DATA_DIR", "/var/lib/dispatcher"),
                ("DATABASE_URL", "postgresql://u:hunter2@h/d"),
            )
            for quotes in ('""', "''", "“”")
        ),
        ("APPS__DEFAULT__AUTH", "basic", "must be 'aksk' or 'wsse'"),
        ("APPS__DEFAULT__WSSE_DIGEST", "md5", "must be 'hex' or 'raw'"),
        ("APPS__DEFAULT__SENDER", "x" * 22, "must have at most 21 characters"),
        ("APPS__DEFAULT__ENDPOINT", "https://sms.example.com ", "a path and blanks"),
        ("APPS__DEFAULT__ENDPOINT", "https://sms.example.com:", "must be the address"),
        ("APPS__DEFAULT__ENDPOINT", "https://sms.exam\nple.com", "must be the address"),
        ("APPS__DEFAULT__PROXY", "http://proxy.example.com ", "of a proxy without blanks"),
        ("APPS__DEFAULT__SENDER", "isms1 ", "alone, without blanks"),
        ("APPS__DEFAULT__SENDER", "isms 1", "alone, without blanks"),
        ("APPS__DEFAULT__SENDER", "isms\t1", "must be the channel number alone"),
        ("APPS__DEFAULT__NUMBERS_PER_SECOND", "-1", "must be greater than or equal to 0.00001"),
        ("APPS__DEFAULT__NUMBERS_PER_SECOND", "1e-300", "must be greater than"),
        ("APPS__DEFAULT__NUMBERS_PER_SECOND", "1e308", "must be less than or equal to"),
        ("APPS__DEFAULT__SPIKE_FACTOR", "1e308", "must be less than or equal to"),
        ("APPS__DEFAULT__RESEND_AFTER", "9" * 400, "must be at most 36500 days"),
        ("RETENTION", "10000000d", "must be at most 36500 days"),
        ("STATEMENT_CACHE", "9" * 30, "must be less than or equal to"),
        ("APPS__DEFAULT__NUMBERS_PER_SECOND", "inf", "must be a finite number"),
        ("APPS__DEFAULT__CONCURRENCY", "many", "must be a valid integer"),
        ("APPS__DEFAULT__TIMEOUT", "2 minutes", "must be a duration such as"),
        ("APPS__DEFAULT__TIMEOUT", "0", "must be greater than 0"),
        ("APPS__DEFAULT__TIMEOUT", "301s", "must be less than or equal to 300 s"),
        ("WIPE_PARAMS_AFTER", "30s", "must be greater than or equal to 60 s"),
        *(
            (name, zero, "must be more than 0; none stands for no limit")
            for name in (
                *("WIPE_PARAMS_AFTER", "RETENTION"),
                *("APPS__DEFAULT__NUMBERS_PER_SECOND", "APPS__DEFAULT__SPIKE_FACTOR"),
            )
            for zero in ("0", " 0")
        ),
        ("WIPE_PARAMS_AFTER", "0s", "must be greater than 0"),
        ("APPS__DEFAULT__MAX_ATTEMPTS", "0", "must be greater than or equal to 1"),
        ("APPS__DEFAULT__ON_UNSURE", "retry", "must be 'hold' or 'resend'"),
        ("APPS__DEFAULT__CA_BUNDLE", "/nowhere.pem", "names a file that cannot be read: No such"),
        ("DATABASE_URL", "mysql://u:hunter2@h/d", "must be a PostgreSQL address"),
        ("DATABASE_URL", "postgresql://u:hunter2@h/d ", "must be a PostgreSQL address"),
        ("DATABASE_URL", "postgresql://h/d\npostgresql://h/e", "must be a PostgreSQL address"),
        ("DATABASE_URL", "postgresql://u:hunter2@h/d?sslmode", "must be a PostgreSQL address"),
        ("DATABASE_URL", "postgresql://u:hunter2@h:99999/d", "must have a port from 1 to 65535"),
        ("DATABASE_URL", "postgresql://u:hunter2@a:1,b:0/d", "must have a port from 1 to 65535"),
        ("DATABASE_URL", "postgresql:///d?host=h&port=x", "must have a port from 1 to 65535"),
        *(
            ("DATABASE_URL", f"postgresql://u:hunter2@{hosts}", "must name hosts that can be")
            for hosts in (
                *("db..x/d", ".x/d", "db%2E%2Ex/d", "a" * 64 + "/d", "a:1,b..c:2/d", "a,/d", ",/d"),
                *("[zz]/d", "[]/d", "[127.0.0.1]:5432/d", "a,[zz]/d", "/d?host=a,b..c"),
                *("/d?host=a%00b", "/d?host=fe80::1", "/d?host=a,"),
            )
        ),
        ("CALLBACK_URL", "ftp://host/reports/hunter2", "must be the public address"),
        ("CALLBACK_URL", "https://host/" + "x" * 1024, "at most 1024 characters"),
        ("CALLBACK_URL", "https://host/hunter2 ", "of ASCII without blanks"),
        ("CALLBACK_URL", "https://host/hun\tter2", "of ASCII without blanks"),
        ("CALLBACK_URL", "https://host/报告", "of ASCII without blanks"),
        *(
            (name, value, "must be networks such as")
            for name in ("REPORT_NETWORKS", "TRUSTED_PROXIES", "CONSOLE_PROXIES")
            for value in (" ", ", ,", "\n", "10.0.0.0/40")
        ),
        ("APPS__DEFAULT__ONLY_TO", ", ", "must be numbers with +"),
        ("APPS__DEFAULT__COUNTRIES", ", ", "must be countries by their two letters"),
        ("CONSOLE_ROLES", ", ", "must be groups with a role each"),
        ("UNSUBSCRIBE_WORDS", ", ", "must be words such as"),
        *(
            ("UNSUBSCRIBE_WORDS", words, "what has blanks within stands in quotes")
            for words in ("R T TD", "R,T TD", "STOP ALL", 'R,""', "R,\u3000T TD", '"STOP ALL",a b')
        ),
        ("CONSOLE_ROLES", "admins=see,admins=act", "must be groups with a role each"),
        ("CONSOLE_ROLES", "admins=see ops=act", "must be groups with a role each"),
        ("APPS__DEFAULT__COUNTRIES", "+999", "or by their calling codes, such as +852"),
        ("APPS__DEFAULT__COUNTRIES", "CN,UK", "the United Kingdom is GB"),
        ("APPS__DEFAULT__COUNTRIES", "China", "must be countries by their two letters"),
        ("NOTIFY_EVENTS", "maybe", "must be true or false"),
        ("APPS__DEFAULT__MAX_ATTEMPTS", "2.5", "must be a valid integer"),
        ("APPS__DEFAULT__CONCURRENCY", "9" * 5000, "must be a valid integer"),
        ("APPS__DEFAULT__SENDER", "\udce4", "must be text in UTF-8"),  # as os.environ has bytes
        ("APPS__DEFAULT__CA_BUNDLE", "~/ca.pem", "must be a whole path: only a shell replaces ~"),
        ("APPS__DEFAULT__CA_BUNDLE", "-----BEGIN CERTIFICATE-----\nMII\n", "must be one path"),
        ("DATA_DIR", "~/dispatcher", "must be a whole path: only a shell replaces ~"),
        ("DATA_DIR", " ", "must be one path"),
        ("CONSOLE_USER_HEADER", "X-Email:", "must be the name of a header alone"),
        ("LISTEN", "8080", "must be HOST:PORT"),
        ("LISTEN", "127.0.0.1:99999", "must be HOST:PORT"),
        *(
            ("LISTEN", f"{host}:80", "must be HOST:PORT")
            for host in ("a..b", "127.0.0.1：80", "主机")
        ),
        ("APPS__DEFAULT__ENDPOINT", "https://sms..example.com", "must be the address"),
        ("APPS__DEFAULT__PROXY", "http://" + "a" * 64 + ".com:1", "must be the address of a proxy"),
        ("LISTEN", "http://127.0.0.1:80", "must be HOST:PORT"),
        ("LISTEN", "[::1:80", "must be HOST:PORT"),
        ("LISTEN", "::1:" + "9" * 5000, "must be HOST:PORT"),
        ("CONSOLE_ROLES", "admins=owner", "must be groups with a role each"),
        ("CONSOLE_ROLES", "see", "must be groups with a role each"),
        ("CONSOLE_TOKEN", "hunter2", "must be at least 16 letters"),
        ("REPORT_PATH_TOKEN", "hunter2/../../../../x", "must be at least 16 letters"),
        ("LOG_LEVEL", "loud", "must be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_bad_value_is_one_line_without_the_value(name, value, words):
    (mistake,) = mistakes_of(APP | {f"DISPATCHER_{name}": value})
    assert mistake.startswith(f"DISPATCHER_{name} ")
    assert words in mistake
    assert "\n" not in mistake
    assert "hunter2" not in mistake
    assert "pw@" not in mistake


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("POLL_INTERVL", "POLL_INTERVAL"),
        ("APP_KEY", "APPS__DEFAULT__APP_KEY"),
        ("APPS__SHOP__APP_SECRT", "APPS__SHOP__APP_SECRET"),
        ("APP__DEFAULT__SENDER", "APPS__DEFAULT__SENDER"),
        ("APPS__SHOP__APP_SECRT_FILE", "APPS__SHOP__APP_SECRET_FILE"),
    ],
)
def test_an_unknown_variable_is_a_mistake_with_a_suggestion(name, meant):
    (mistake,) = mistakes_of({f"DISPATCHER_{name}": "x"})
    assert mistake == f"DISPATCHER_{name} is not a setting: did you mean DISPATCHER_{meant}?"


@pytest.mark.parametrize(
    "name", ["XYZZY", "APPS", "APPS__DEFAULT", "APPS__A__B__C", "APPS__-__SENDER"]
)
def test_a_variable_that_resembles_no_setting_is_a_mistake(name):
    (mistake,) = mistakes_of({f"DISPATCHER_{name}": "x"})
    assert mistake.startswith(f"DISPATCHER_{name} is not a setting")


@pytest.mark.parametrize("name", ["APPS__MY__SHOP__SENDER", "APPS__大__SENDER"])
def test_a_name_that_no_app_can_have_is_explained(name):
    (mistake,) = mistakes_of({f"DISPATCHER_{name}": "x"})
    assert mistake.startswith(f"DISPATCHER_{name} is not a setting: the name of an app has")


def test_every_mistake_is_told_in_chinese():
    wrong = {
        "APPS__DEFAULT__CONCURRENCY": ("0", "必须大于或等于 1"),
        "APPS__DEFAULT__MAX_ATTEMPTS": ("many", "必须是整数"),
        "APPS__DEFAULT__SPIKE_FACTOR": ("x", "必须是数字"),
        "APPS__DEFAULT__NUMBERS_PER_SECOND": ("inf", "必须是有限的数字"),
        "APPS__DEFAULT__TIMEOUT": ("0", "必须大于 0"),
        "APPS__DEFAULT__SENDER": ("x" * 22, "最多 21 个字符"),
        "APPS__DEFAULT__AUTH": ("x", "必须是 'aksk' 或 'wsse'"),
        "LOG_LEVEL": ("warn", "必须是 'debug', 'info', 'warning' 或 'error'"),
        "NOTIFY_EVENTS": ("maybe", "必须是 true 或 false"),
        "STATEMENT_CACHE": ("9" * 30, "必须小于或等于 100000"),
        "APPS__MY__SHOP__SENDER": ("x", "不是设置项：应用名称"),
    }
    environ = APP | {f"DISPATCHER_{name}": value for name, (value, _) in wrong.items()}

    def chinese() -> list[str]:
        use_language("zh-CN")
        return mistakes_of(environ)

    mistakes = contextvars.copy_context().run(chinese)
    told = {line.partition(" ")[0].removeprefix("DISPATCHER_"): line for line in mistakes}
    assert told.keys() == wrong.keys()
    for name, (_value, words) in wrong.items():
        assert words in told[name]


def test_all_mistakes_are_told_at_once():
    mistakes = mistakes_of(
        {
            "DISPATCHER_APPS__SHOP__ENDPOINT": "nowhere",
            "DISPATCHER_APPS__SHOP__PUSH_KEY": "key",
            "DISPATCHER_APPS__SHOP__APP_SECRET_FILE": "/nowhere",
            "DISPATCHER_LEASE": "long",
            "DISPATCHER_LISTENN": "127.0.0.1:80",
        }
    )
    assert [line.split()[0].removeprefix("DISPATCHER_") for line in mistakes] == [
        "APPS__SHOP__APP_SECRET_FILE",
        "LISTENN",
        "APPS__SHOP__PUSH_SECRET",
        "APPS__SHOP__ENDPOINT",
        "APPS__SHOP__APP_KEY",
        "LEASE",
    ]
    assert "is missing: the application's APP_Key" in mistakes[4]


def test_the_same_setting_as_value_and_as_file_is_a_mistake(tmp_path):
    (tmp_path / "secret").write_text("hunter2")
    file = {"DISPATCHER_APPS__DEFAULT__APP_SECRET_FILE": str(tmp_path / "secret")}
    (mistake,) = mistakes_of(APP | file)
    assert "are both set: keep one of them" in mistake


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "which cannot be read: No such file or directory"), (b"\n", "which is empty"),
     (b"\xff\xfe", "which is not UTF-8 text")],
)  # fmt: skip
def test_a_file_without_a_secret_is_one_mistake(tmp_path, content, words):
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    variables = {**APP, "DISPATCHER_APPS__DEFAULT__APP_SECRET_FILE": str(file)}
    del variables["DISPATCHER_APPS__DEFAULT__APP_SECRET"]
    (mistake,) = mistakes_of(variables)
    assert mistake == f"DISPATCHER_APPS__DEFAULT__APP_SECRET_FILE names the file {file}, {words}"


def test_a_lease_that_a_slow_answer_outlasts_is_a_mistake():
    slow = APP | {"DISPATCHER_APPS__DEFAULT__TIMEOUT": "51"}
    (mistake,) = mistakes_of(slow)
    assert mistake.startswith(
        "DISPATCHER_LEASE is 60 s, and DISPATCHER_APPS__DEFAULT__TIMEOUT is 51 s"
    )
    load_settings(slow | {"DISPATCHER_LEASE": "61"}, ALL_PARTS)


def test_a_push_secret_without_its_key_is_a_mistake():
    (mistake,) = mistakes_of(APP | {"DISPATCHER_APPS__DEFAULT__PUSH_SECRET_2": "hunter2"})
    assert mistake.startswith("DISPATCHER_APPS__DEFAULT__PUSH_KEY_2 is missing")


def test_a_direct_address_alone_is_a_mistake(tmp_path):
    direct, through = "DISPATCHER_DATABASE_DIRECT_URL", "DISPATCHER_DATABASE_URL"
    file = tmp_path / "address"
    file.write_text("postgresql://u:hunter2@h/d")
    for name, value in ((direct, "postgresql://u:hunter2@h/d"), (f"{direct}_FILE", str(file))):
        with pytest.raises(SettingsError) as caught:
            load_settings({name: value} | APP, {"sending"})
        assert caught.value.mistakes == [f"{through} is missing: {name} needs it"]
        load_settings({name: value})  # of a migration, or a command
        load_settings({name: value, through: "postgresql://h/d"})
        load_settings({name: value, f"{through}_FILE": str(file)})
    (mistake,) = mistakes_of({direct: "postgresql://h/d", f"{through}_FILE": "/nowhere"})
    assert "cannot be read" in mistake


def test_no_secret_shows_in_a_repr_or_a_dump():
    settings = load_settings(
        APP
        | {
            "DISPATCHER_DATABASE_URL": "postgresql://user:hunter2-db@host/name",
            "DISPATCHER_CALLBACK_URL": "https://host/reports/hunter2-callback",
            "DISPATCHER_CONSOLE_TOKEN": "hunter2-console-token",
            "DISPATCHER_REPORT_PATH_TOKEN": "hunter2-report-token",
            "DISPATCHER_APPS__DEFAULT__PUSH_KEY": "push",
            "DISPATCHER_APPS__DEFAULT__PUSH_SECRET": "hunter2-push",
        }
    )
    assert "hunter2" not in repr(settings) + str(settings) + repr(settings.apps)


@pytest.mark.parametrize(
    ("root", "environ", "place"),
    [
        (True, {"HOME": "/root"}, "/var/lib/dispatcher"),
        (False, {"HOME": "/home/amy"}, "/home/amy/.local/share/dispatcher"),
        (False, {"HOME": "/home/amy", "XDG_DATA_HOME": "/data"}, "/data/dispatcher"),
        (False, {}, "/var/lib/dispatcher"),
        (True, {"DISPATCHER_DATA_DIR": "/srv/sms"}, "/srv/sms"),
    ],
)
def test_the_data_directory_is_where_its_server_may_go(monkeypatch, root, environ, place):
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    assert load_settings(environ).data_dir == Path(place)


def test_every_required_setting_says_what_it_is():
    for model in (Settings, AppSettings):
        for name, field in model.model_fields.items():
            assert not field.is_required() or name == "data_dir" or field.description


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://sender:P@ss/w0rd@127.0.0.1/sms",
        "postgresql://sender:7/k3yBase64==@127.0.0.1/sms",
        "postgresql://sender:k3y#w0rd@127.0.0.1/sms",
        "postgresql://sender:k3y?w0rd@127.0.0.1/sms",
        "postgresql://sender:k3y?a=w0rd@127.0.0.1/sms",
        "postgresql://sender:k3y@w0rd@127.0.0.1/sms",
        "postgresql://sender:k3yw0rd/sms",
        "postgresql://sender:k3y@host:w0rd/sms",
    ],
)
def test_a_password_that_cuts_the_address_is_a_mistake(address):
    [mistake] = mistakes_of({"DISPATCHER_DATABASE_URL": address})
    assert "%-codes" in mistake
    assert not [piece for piece in ("k3y", "w0rd", "P@ss") if piece in mistake]
    assert str(read_address(address)) == "the default host/"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://sender:P%40ss%2Fw0rd@127.0.0.1:5432/sms",
        "postgresql://u@one:1,two:2/d",
        "postgresql://u@[::1]:6/d?sslmode=require",
        "postgresql://u@h/d?&sslmode=require&",
        "postgresql://u@%2Frun%2Fpg:5433/d",
        "postgresql:///d?user=me%40corp&host=/run/pg",
        "postgresql:///d?user=me@corp&host=/run/pg",
        "postgresql:///d?host=/run/pg,[::1],fe80::1,db",
        "postgresql:///d?host=/run/pg..",
        "postgresql:///d?host=[::1]:5432",
        "postgresql://u@%2Frun%2Fpg/d?host=db..x",
        "postgresql://u@postgres_db:5432/d",
        "postgresql://u@db.example.com./d",
        "postgresql://u@[fe80::1%25eth0]:5432/d",
        "postgresql://u@a:1,,b:2/d",
        "postgresql://u@:5432/d",
        "postgresql:///d?host=",
        "postgresql://u@数据库.example.com/d",
        "postgres://",
    ],
)
def test_an_address_with_codes_sockets_and_hosts_is_none(address):
    assert load_settings({"DISPATCHER_DATABASE_URL": address}).database_url is not None


def test_a_bundle_without_a_certificate_is_a_mistake(tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    app = {f"DISPATCHER_APPS__A__{name}": "https://h" for name in ("ENDPOINT", "APP_SECRET")}
    app |= {"DISPATCHER_APPS__A__APP_KEY": "k", "DISPATCHER_APPS__A__CA_BUNDLE": str(file)}
    assert mistakes_of(app) == [
        "DISPATCHER_APPS__A__CA_BUNDLE names a file without a certificate (PEM)"
    ]


def test_sign_in_by_a_header_needs_the_proxies_that_send_it():
    (mistake,) = mistakes_of({"DISPATCHER_CONSOLE_USER_HEADER": "X-User"})
    needed = "DISPATCHER_CONSOLE_PROXIES, DISPATCHER_CONSOLE_ROLES, DISPATCHER_CONSOLE_TOKEN too"
    assert needed in mistake
    settings = load_settings(
        {
            "DISPATCHER_CONSOLE_USER_HEADER": "X-User",
            "DISPATCHER_CONSOLE_GROUPS_HEADER": "X-Groups",
            "DISPATCHER_CONSOLE_PROXIES": "10.0.0.0/8",
            "DISPATCHER_CONSOLE_ROLES": "sms admins=Rules; *=see",
            "DISPATCHER_CONSOLE_TOKEN": "a-token-of-the-console",
        },
        ALL_PARTS,
    )
    assert settings.console_roles == {"sms admins": "rules", "*": "see"}


SIGN_IN = {
    "USER_HEADER": "X-User",
    "PROXIES": "10.0.0.0/8",
    "ROLES": "*=see",
    "TOKEN": "a-token-of-the-console",
}


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"PROXIES": "10.0.0.0/8"}, "USER_HEADER, ROLES, TOKEN"),
        ({"ROLES": "*=see"}, "PROXIES, USER_HEADER, TOKEN"),
        ({"ROLES": "ops=act,*=see"}, "PROXIES, USER_HEADER, TOKEN, GROUPS_HEADER"),
        (SIGN_IN | {"ROLES": "ops=act,*=see"}, "GROUPS_HEADER"),
        (SIGN_IN | {"ROLES": "ops=act", "GROUPS_HEADER": "X-Groups"}, None),
        (SIGN_IN | {"GROUPS_HEADER": "X-Groups"}, None),
        (SIGN_IN, None),
        ({"TOKEN": SIGN_IN["TOKEN"]}, None),
    ],
)
def test_no_half_of_the_sign_in_by_a_proxy_is_ignored(given, missing):
    environ = {f"DISPATCHER_CONSOLE_{name}": value for name, value in given.items()}
    load_settings(environ, ["sending", "reports"])
    if missing is None:
        load_settings(environ, ["console"])
        return
    names = ", ".join(f"DISPATCHER_CONSOLE_{name}" for name in missing.split(", "))
    assert mistakes_of(environ) == [f"sign-in by a proxy's header needs {names} too"]


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("console", "CONSOLE_USER_HEADER", "X-User"),
        ("console", "CONSOLE_PROXIES", "10.0.0.0/8"),
        ("sending", "APPS__DEFAULT__ON_UNSURE", "resend"),
        ("sending", "APPS__DEFAULT__TIMEOUT", "51"),
        ("sending", "APPS__DEFAULT__CA_BUNDLE", "/nowhere.pem"),
        ("reports", "APPS__DEFAULT__PUSH_KEY", "key"),
    ],
)
def test_a_mistake_stops_only_what_uses_the_setting(part, name, value):
    environ = APP | {f"DISPATCHER_{name}": value}
    load_settings(environ)  # of a command
    load_settings(environ, [each for each in ALL_PARTS if each != part])
    with pytest.raises(SettingsError):
        load_settings(environ, [part])


@pytest.mark.parametrize("left_out", ["CALLBACK_URL", "REPORT_PATH_TOKEN"])
def test_to_send_again_what_is_unsure_needs_reports(left_out):
    environ = APP | {
        "DISPATCHER_APPS__DEFAULT__ON_UNSURE": "resend",
        "DISPATCHER_CALLBACK_URL": "https://sms.example.com/reports/a-token-that-nobody-guesses",
        "DISPATCHER_REPORT_PATH_TOKEN": "a-token-that-nobody-guesses",
    }
    load_settings(environ, ALL_PARTS)
    del environ[f"DISPATCHER_{left_out}"]
    [mistake] = mistakes_of(environ)
    assert mistake.startswith("DISPATCHER_APPS__DEFAULT__ON_UNSURE is resend")
    assert "needs status reports" in mistake
