"""The settings: names, types and defaults. deploy/docs/settings.md describes each."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from dispatcher.core.reply import UNSUBSCRIBE_WORDS
from dispatcher.settings.types import (
    Callback,
    ConsoleRoles,
    Countries,
    Database,
    Endpoint,
    Flag,
    HeaderName,
    HeaderWord,
    Listen,
    Networks,
    OnePath,
    OnlyTo,
    Proxy,
    Seconds,
    Secret,
    Sender,
    Token,
    Unlimited,
    Word,
    Words,
    refuse_quotes,
)

_WITH_QUOTES = {"only_to", "unsubscribe_words"}  # these read quotes themselves


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_quotes(cls, value: object, info: ValidationInfo) -> object:
        return value if info.field_name in _WITH_QUOTES else refuse_quotes(value)


class AppSettings(_Model):
    """One application of the provider: address, key and rate limit.

    The descriptions complete the sentence "DISPATCHER_SOMETHING is missing: ...".
    """

    endpoint: Endpoint = Field(
        description="the address of the provider, from the application's page in its console"
    )
    app_key: HeaderWord = Field(description="the application's APP_Key, from the same page")
    app_secret: Secret = Field(description="the application's APP_Secret, from the same page")
    auth: Annotated[Literal["aksk", "wsse"], Word] = "aksk"
    wsse_digest: Annotated[Literal["hex", "raw"], Word] = "hex"
    sender: Sender | None = None
    # From one in a day to more than any provider takes: what lies beyond would overflow a time.
    numbers_per_second: Annotated[
        Annotated[float, Field(ge=0.00001, le=1_000_000, allow_inf_nan=False)] | None, Unlimited
    ] = 500.0
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    # So far ahead a paused app's next probe may lie: see is_probe_due in the migrations.
    timeout: Annotated[Seconds, Field(le=300)] = 30.0
    connect_timeout: Seconds = 5.0
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 20
    circuit_unknown: Annotated[int, Field(ge=1, le=1000)] = 3
    circuit_refused: Annotated[int, Field(ge=1, le=1000)] = 5
    on_unsure: Annotated[Literal["hold", "resend"], Word] = "hold"
    resend_after: Seconds = 72 * 3600.0  # the provider sends no report later
    ca_bundle: OnePath | None = None
    proxy: Proxy | None = None  # between this machine and the provider
    only_to: OnlyTo | None = None  # numbers and prefixes; None: any number
    countries: Countries | None = None  # as core.country names them; None: all
    # Times the busiest hour of its last 30 days; None: an hour is never too much.
    spike_factor: Annotated[
        Annotated[float, Field(gt=1, le=1_000_000, allow_inf_nan=False)] | None, Unlimited
    ] = 10.0
    promotional: Flag = False  # its messages are promotional, unless their template says otherwise
    # None: delivered in mainland China, sent elsewhere, as accounts are charged by default.
    billing: Annotated[Literal["delivered", "sent"], Word] | None = None
    push_key: HeaderWord | None = None
    push_secret: Secret | None = None
    push_key_2: HeaderWord | None = None
    push_secret_2: Secret | None = None


class Settings(_Model):
    """All settings. Secrets do not appear in its repr."""

    database_url: Database | None = None  # None: the embedded PostgreSQL in data_dir
    database_direct_url: Database | None = None  # without PgBouncer: for LISTEN and migrations
    database_url_file: Path | None = None  # the file that the address was read from
    database_direct_url_file: Path | None = None
    statement_cache: Annotated[int, Field(ge=0, le=100_000)] = 100  # 0: for PgBouncer before 1.21
    data_dir: OnePath
    apps: dict[str, AppSettings] = Field(default_factory=dict)
    callback_url: Callback | None = Field(default=None, repr=False)  # its path is a secret
    listen: Listen = "127.0.0.1:8080"
    report_path_token: Token | None = None
    report_networks: Networks = Field(default_factory=list)  # empty: any
    trusted_proxies: Networks = Field(default_factory=list)  # whose X-Forwarded-For is trusted
    push_host: HeaderWord | None = None  # the signed Host, if a proxy changes it
    push_connection: HeaderWord | None = None  # the signed Connection, likewise
    # Which numbers of mainland China may be written without +86 by operators and in files.
    mainland_without_plus: Annotated[Literal["mobile", "all"], Word] = "mobile"
    suppress_blocked: Flag = True  # no promotional messages to a number on a block list
    unsubscribe_words: Words = UNSUBSCRIBE_WORDS  # replies that stop promotional messages
    notify_events: Flag = False  # NOTIFY dispatcher_events_<app> when there are new events
    console_token: Token | None = None
    # A reverse proxy signs operators in, and names them in a header.
    console_proxies: Networks = Field(default_factory=list)  # whose header is trusted
    console_user_header: HeaderName | None = None
    console_groups_header: HeaderName | None = None
    console_roles: ConsoleRoles = Field(default_factory=dict)  # by group; *: of every operator
    poll_interval: Seconds = 0.5
    lease: Seconds = 60.0  # a worker with an older heartbeat counts as dead
    shutdown_timeout: Seconds = 45.0
    # None: everything is kept. The minimums are those of the database's functions.
    retention: Annotated[Annotated[Seconds, Field(ge=3600)] | None, Unlimited] = None
    wipe_params_after: Annotated[Annotated[Seconds, Field(ge=60)] | None, Unlimited] = None
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Word] = "info"
    log_format: Annotated[Literal["auto", "json", "console"], Word] = "auto"
    traces: Flag = False  # whether an OpenTelemetry variable sets a destination
