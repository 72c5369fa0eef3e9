"""The guards of the rules 1 to 5 of the design, and the tests that fail without each."""

from dataclasses import dataclass

SCHEMA = "migrations/0001_schema.sql"
FUNCTIONS = "migrations/0002_functions.sql"
MAINTENANCE = "migrations/0004_maintenance.sql"
SQL = "dispatcher/db/sql"
AGAIN = "tests/worker/test_written_again.py"
ONE = "tests/worker/test_one_transaction.py"
RESTORED = "tests/worker/test_restored_backup.py"
RETENTION = "tests/db/test_retention.py"
LOST = "tests/worker/test_lost_commits.py"
CLOCK = "tests/worker/test_wrong_clock.py"
SILENCE = "tests/worker/test_silence.py"
LATE = "tests/receiver/test_late_answer.py"
RESENT = "tests/worker/test_answer_after_resend.py"
MATCHING = "tests/receiver/test_matching.py"
FENCE = "tests/worker/test_token_fence.py"
SPOOLS = "tests/worker/test_resend_and_spools.py"
WITHHELD = "tests/worker/test_withheld.py"
BULK = "tests/db/test_bulk_rows.py"
OUTCOME = "tests/core/test_outcome.py"
TAKEOVER = "tests/e2e/test_takeover.py"
RACES = "tests/worker/test_resume_races.py"

RULES = {
    1: "A message has at most one outcome.",
    2: "At most one accepted request for each message.",
    3: "Every write-back is fenced by its batch; a late answer is evidence.",
    4: "A message leaves the queue with its batch, and returns as that is closed.",
    5: "Times that decide anything are the database's; signatures take the worker's.",
}


@dataclass(frozen=True)
class Edit:
    """A text of one file, and the replacement that removes the guard."""

    file: str  # "path#name" limits the edit to one named SQL statement
    old: str
    new: str

    @property
    def path(self) -> str:
        """Return the path of the file in the project."""
        return self.file.partition("#")[0]

    def scope(self, text: str) -> tuple[int, int]:
        """Return where in *text*, the whole file, the edit applies: start and end."""
        name = self.file.partition("#")[2]
        if not name:
            return 0, len(text)
        start = text.index(f"-- name: {name}\n")
        end = text.find("\n-- name: ", start)
        return start, len(text) if end < 0 else end

    def apply(self, text: str) -> str:
        """Return *text* without the guard."""
        start, end = self.scope(text)
        return text[:start] + text[start:end].replace(self.old, self.new) + text[end:]


@dataclass(frozen=True)
class Guard:
    """A clause that a rule depends on."""

    rule: int
    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]  # each must fail without it


GUARDS = (
    Guard(
        1,
        "the primary key of outcome",
        (
            Edit(
                SCHEMA,
                "    PRIMARY KEY (message_id),\n    CONSTRAINT outcome",
                "    CONSTRAINT outcome",
            ),
        ),
        (f"{ONE}::test_a_second_outcome_is_refused_by_the_database",),
    ),
    Guard(
        1,
        "an answer leaves alone what has an outcome",
        (
            Edit(
                "dispatcher/db/record.py",
                "except asyncpg.UniqueViolationError:",
                "except asyncpg.DiskFullError:",
            ),
        ),
        (f"{AGAIN}::test_an_answer_in_time_leaves_alone_what_has_an_outcome",),
    ),
    Guard(
        1,
        "settling by hand leaves alone what has an outcome",
        (
            Edit(
                FUNCTIONS,
                "            ON CONFLICT (message_id) DO NOTHING\n            RETURNING message_id",
                "            RETURNING message_id",
            ),
        ),
        (
            (
                "tests/db/test_operator.py"
                "::test_settled_as_sent_a_batch_is_accepted_where_nothing_is_known_yet"
            ),
        ),
    ),
    Guard(
        2,
        "no answer after the body was sent is unsure",
        (Edit("dispatcher/core/outcome.py", "    if answer.sent:\n", "    if not answer:\n"),),
        ("tests/core/test_outcome.py::test_a_request_that_may_have_been_sent_is_unsure",),
    ),
    Guard(
        2,
        "what was begun may have been sent, whatever broke",
        (Edit("dispatcher/provider/client.py", "self.begun = _is_writable(writer)", "pass"),),
        (f"{WITHHELD}::test_a_body_written_before_the_break_may_have_been_sent",),
    ),
    Guard(
        2,
        "no try after one that may have been sent",
        (
            Edit(
                "dispatcher/core/outcome.py",
                "        return not answer.sent\n",
                "        return True\n",
            ),
        ),
        ("tests/core/test_outcome.py::test_only_requests_that_were_not_sent_are_retryable",),
    ),
    Guard(
        2,
        "what a dead worker had open is unsure",
        (
            Edit(
                f"{SQL}/batch.sql#rescue",
                "SET state = 'unsure', unsure_at = clock_timestamp(), code",
                "SET state = 'closed', code",
            ),
            Edit(
                f"{SQL}/batch.sql#rescue",
                "cardinality(b.message_ids) AS messages\n)",
                "cardinality(b.message_ids) AS messages, b.message_ids\n), back AS (\n"
                "    INSERT INTO dispatcher.queue (id, app, priority, due_at)\n"
                "    SELECT unnest(message_ids), app, 5, clock_timestamp() FROM marked\n)",
            ),
        ),
        (f"{TAKEOVER}::test_a_killed_worker_costs_at_most_what_was_on_its_way",),
    ),
    Guard(
        2,
        "a worker that was silent for its lease sends nothing of before",
        (
            Edit(
                "dispatcher/worker/sender.py",
                "            and self._lease.covers(batch.claimed_at)\n",
                "",
            ),
        ),
        (f"{TAKEOVER}::test_a_worker_frozen_past_its_lease_sends_no_old_claim",),
    ),
    Guard(
        2,
        "a silence counts by the database's clock too",
        (
            Edit(
                "dispatcher/worker/in_flight.py",
                "max(asked_at - self._renewed, silence)",
                "asked_at - self._renewed",
            ),
        ),
        (f"{SILENCE}::test_the_lease_does_not_cover_claims_before_a_silence",),
    ),
    Guard(
        2,
        "only the policy resend sends again",
        tuple(
            Edit(f"{SQL}/batch.sql#{name}", "a.on_unsure = 'resend'", "true")
            for name in ("lock_silent", "resend_unsure")
        ),
        (
            (
                "tests/worker/test_settling.py::test_only_the_policy_resend_sends_unsure_messages_again"
            ),
        ),
    ),
    Guard(
        2,
        "a report ends the policy resend",
        tuple(
            Edit(
                f"{SQL}/batch.sql#{name}",
                "AND NOT EXISTS (SELECT FROM dispatcher.report r WHERE r.token = b.token)",
                "",
            )
            for name in ("lock_silent", "resend_unsure")
        ),
        (
            (
                "tests/receiver/test_matching.py::test_one_report_stops_the_policy_resend_for_its_batch"
            ),
        ),
    ),
    Guard(
        2,
        "a report that cannot be read ends the policy resend",
        tuple(
            Edit(
                f"{SQL}/batch.sql#{name}",
                "AND NOT EXISTS (SELECT FROM dispatcher.unreadable_push p"
                " WHERE p.tokens @> ARRAY[b.token])",
                "",
            )
            for name in ("lock_silent", "resend_unsure")
        ),
        (
            (
                "tests/receiver/test_matching.py::test_a_push_that_cannot_be_read_stops_the_policy_resend_for_its_batch"
            ),
        ),
    ),
    Guard(
        2,
        "what was sent again may be meant by a late report without a number",
        (
            Edit(
                "dispatcher/core/report_matching.py",
                "return self.is_open or resent",
                "return self.is_open",
            ),
        ),
        (
            "tests/receiver/test_matching.py::test_a_late_report_without_a_number_may_be_of_what_was_sent_again",
        ),
    ),
    Guard(
        2,
        "a load that a dead process left waits for a worker",
        (
            Edit(
                FUNCTIONS,
                "RETURN asked_at < clock_timestamp() - interval '10 seconds' AND NOT EXISTS (",
                "RETURN false AND NOT EXISTS (",
            ),
        ),
        ("tests/console/test_list_pages.py::test_a_load_whose_process_died_is_taken_up",),
    ),
    Guard(
        2,
        "a worker that came after a restore does not hide it",
        (
            Edit(
                f"{SQL}/workers.sql#newest_heartbeat",
                " FILTER (WHERE w.started_at <= to_timestamp($3))",
                "",
            ),
        ),
        (f"{RESTORED}::test_a_worker_that_came_after_a_restore_does_not_hide_it",),
    ),
    Guard(
        2,
        "the policy resend leaves requests of before a restore alone",
        tuple(
            Edit(f"{SQL}/batch.sql#{name}", f"AND b.opened_at > coalesce({at}, '-infinity')", "")
            for name, at in (
                ("lock_silent", "i.restored_at"),
                ("resend_unsure", "(SELECT restored_at FROM dispatcher.installation)"),
            )
        ),
        (
            (
                "tests/worker/test_restored_backup.py::test_after_a_restore_no_policy_resends_older_requests"
            ),
        ),
    ),
    Guard(
        2,
        "the policy resend leaves answers alone that the database refused",
        tuple(
            Edit(f"{SQL}/batch.sql#{name}", "'not-recorded', 'record-lost'", "''")
            for name in ("lock_silent", "resend_unsure")
        ),
        ("tests/worker/test_damaged_rows.py::test_a_refused_answer_is_not_sent_again_by_policy",),
    ),
    Guard(
        2,
        "the policy resend waits after a start and an outage",
        (
            Edit(
                "dispatcher/worker/recovery.py",
                "if self._reached is None or self._clock() - self._reached[0] < self._margin:",
                "if False:",
            ),
        ),
        (f"{SPOOLS}::test_a_report_kept_in_an_outage_stops_the_resend",),
    ),
    Guard(
        2,
        "the policy resend waits for reports on this disk",
        (
            Edit(
                "dispatcher/worker/recovery.py",
                "if not size(self._spool, REPORTS_KIND)[0]:",
                "if True:",
            ),
        ),
        (f"{SPOOLS}::test_reports_on_this_disk_are_waited_for",),
    ),
    Guard(
        2,
        "the policy resend gives the last report time to be stored",
        (
            Edit(
                f"{SQL}/batch.sql#lock_silent",
                " - a.resend_after - make_interval(secs => $1)",
                " - a.resend_after - 0 * make_interval(secs => $1)",
            ),
        ),
        (f"{SPOOLS}::test_a_report_of_the_last_moment_has_time_too",),
    ),
    Guard(
        2,
        "the policy resend waits for a running settlement",
        (Edit(f"{SQL}/batch.sql#lock_silent", "FOR UPDATE OF b SKIP LOCKED", ""),),
        (
            "tests/worker/test_resend_and_reports.py::test_what_a_report_is_just_settling_is_not_sent_again",
        ),
    ),
    Guard(
        2,
        "only what was never sent is put back",
        (
            Edit(
                "dispatcher/db/workers.py",
                'for row in unknown if row["token"] in unconfirmed}',
                "for row in unknown}",
            ),
            Edit(
                "dispatcher/db/workers.py",
                'for row in unknown if row["token"] not in unconfirmed]',
                "for row in ()]",
            ),
        ),
        (f"{LOST}::test_a_batch_whose_record_was_lost_becomes_unsure",),
    ),
    Guard(
        2,
        "a claim is on disk before it is sent",
        (Edit(f"{SQL}/app.sql#app_state", "= 'off'\n", "= 'none'\n"),),
        ((f"{LOST}::test_a_claim_is_on_disk_before_its_requests_are_sent"),),
    ),
    Guard(
        2,
        "nothing is claimed in a database that has gone back in time",
        (Edit(f"{SQL}/app.sql#app_state", "date_part('epoch', w.heartbeat_at) >= $6", "true"),),
        (f"{RESTORED}::test_a_restore_under_a_running_worker_pauses_what_waited",),
    ),
    Guard(
        2,
        "what waits in a backup that was restored under workers is paused",
        (
            Edit(
                "dispatcher/db/workers.py",
                'row["before"] < last_at - WENT_BACK_SECONDS',
                'row["before"] < 0.0',
            ),
        ),
        (f"{RESTORED}::test_a_restore_under_a_running_worker_pauses_what_waited",),
    ),
    Guard(
        2,
        "what waits in a backup that was restored without workers is paused",
        (
            Edit(
                "dispatcher/db/workers.py",
                "return before is None or before < last_at - WENT_BACK_SECONDS",
                "return before is None",
            ),
        ),
        (f"{RESTORED}::test_a_start_on_a_young_backup_is_paused",),
    ),
    Guard(
        2,
        "what is loaded from a dump waits only where it has no other place",
        (Edit(FUNCTIONS, "min(queued_at) < now() AS loaded", "false AS loaded"),),
        (f"{BULK}::test_a_dump_that_is_loaded_leaves_each_message_in_one_place",),
    ),
    Guard(
        2,
        "a worker whose id was given to another one claims nothing",
        (
            Edit(
                f"{SQL}/app.sql#app_state",
                "date_part('epoch', w.started_at) = $7",
                "true",
            ),
        ),
        (f"{RESTORED}::test_a_worker_whose_id_was_given_again_claims_nothing",),
    ),
    Guard(
        2,
        "a restore before the first heartbeat is noticed",
        (
            Edit(
                "dispatcher/worker/worker.py",
                "Lease(settings.lease, monotonic, registration.started)",
                "Lease(settings.lease, monotonic)",
            ),
        ),
        (f"{RESTORED}::test_a_restore_before_the_first_heartbeat_is_noticed",),
    ),
    Guard(
        2,
        "an app that the backup does not know is paused",
        (
            Edit(
                f"{SQL}/workers.sql#apps_of_old_queue",
                "LEFT JOIN dispatcher.app",
                "JOIN dispatcher.app",
            ),
        ),
        (f"{RESTORED}::test_an_app_that_the_backup_does_not_know_is_paused",),
    ),
    Guard(
        2,
        "a resend under way is found when a restore is noticed",
        (Edit(f"{SQL}/batch.sql#lock_silent", " FOR SHARE", ""),),
        (f"{RESTORED}::test_a_resend_under_way_is_found_in_the_queue",),
    ),
    Guard(
        2,
        "results that cannot be read may have been accepted",
        (
            Edit(
                "dispatcher/core/wire.py",
                "_FIRST_ERROR_STATUS and not names_results",
                "_FIRST_ERROR_STATUS",
            ),
        ),
        ("tests/core/test_wire.py::test_results_that_cannot_be_read_may_have_accepted",),
    ),
    Guard(
        2,
        "what came within the lease of a backup's last worker is paused",
        (Edit(f"{SQL}/workers.sql#last_seen", "heartbeat_at + lease", "heartbeat_at"),),
        (f"{RESTORED}::test_a_backup_of_a_healthy_system_is_paused",),
    ),
    Guard(
        2,
        "a heartbeat of a clock ahead hides no old backup",
        (
            Edit(
                f"{SQL}/workers.sql#last_seen",
                " WHERE heartbeat_at <= clock_timestamp()",
                "",
            ),
        ),
        (f"{RESTORED}::test_a_heartbeat_ahead_hides_no_old_backup",),
    ),
    Guard(
        2,
        "the policy resend leaves what a clock ahead opened alone after a restore",
        tuple(
            Edit(f"{SQL}/batch.sql#{name}", "AND (b.opened_at <= clock_timestamp()", "AND (true")
            for name in ("lock_silent", "resend_unsure")
        ),
        (f"{RESTORED}::test_a_restore_holds_what_a_clock_ahead_opened",),
    ),
    Guard(
        2,
        "retention keeps a request that was given up while its messages wait",
        (
            Edit(
                MAINTENANCE,
                "AND (b.settled_by IN ('policy: resend', 'operator: resend')",
                "AND (false",
            ),
        ),
        (
            f"{RETENTION}::test_a_given_up_request_stays_while_its_messages_wait",
            f"{RETENTION}::test_a_given_up_request_stays_as_long_as_reports_come",
            f"{RESENT}::test_what_waits_beyond_the_retention_is_taken_back",
        ),
    ),
    Guard(
        2,
        "a jump of the clock deletes no worker that lives",
        (
            Edit(
                MAINTENANCE,
                "w.stopped_at IS NULL AND EXISTS (",
                "w.stopped_at IS NULL OR EXISTS (",
            ),
        ),
        (f"{RETENTION}::test_a_jump_of_the_clock_deletes_no_worker_that_lives",),
    ),
    Guard(
        5,
        "what a clock ahead returned is due once it is right",
        (Edit(FUNCTIONS, "ELSE q.waits_since > at END", "ELSE false END"),),
        (
            "tests/worker/test_clock_jumps.py::test_what_a_clock_ahead_returned_is_due_once_it_is_right",
        ),
    ),
    Guard(
        2,
        "a worker looks for lost claims by its row, and not by its id alone",
        (Edit(f"{SQL}/batch.sql#open_of_worker", "date_part('epoch', w.started_at) = $2", "true"),),
        (f"{RESTORED}::test_a_worker_whose_id_was_given_again_leaves_alone",),
    ),
    Guard(
        2,
        "what waits for a later time in a restored backup is paused",
        (
            Edit(f"{SQL}/workers.sql#apps_of_old_queue", "$2::timestamptz IS NOT NULL OR q.", "q."),
            Edit(f"{SQL}/workers.sql#apps_of_old_queue", "$2::timestamptz IS NOT NULL OR b.", "b."),
        ),
        (f"{RESTORED}::test_what_waits_for_later_in_a_backup_is_paused",),
    ),
    Guard(
        2,
        "retention keeps the report that keeps an unsure request from the policy",
        (
            Edit(
                MAINTENANCE,
                ") AS r\n                WHERE b.state = 'unsure')",
                ") AS r\n WHERE false)",
            ),
            Edit(
                MAINTENANCE,
                "dispatcher.batch b WHERE b.state = 'unsure')",
                "dispatcher.batch b WHERE false)",
            ),
        ),
        (f"{RETENTION}::test_a_report_of_an_unsure_request_stays",),
    ),
    Guard(
        2,
        "what cannot be read and keeps a request from the policy stays",
        (
            Edit(
                MAINTENANCE,
                "p.last_at < before AND NOT EXISTS (",
                "p.last_at < before OR EXISTS (",
            ),
        ),
        (f"{RETENTION}::test_an_unreadable_push_of_an_unsure_request_stays",),
    ),
    Guard(
        2,
        "an erased push keeps its request from the policy",
        (
            Edit(
                MAINTENANCE,
                "WHERE encode(p.body, 'escape') ~ named AND EXISTS (",
                "WHERE false AND EXISTS (",
            ),
        ),
        (f"{RETENTION}::test_an_unreadable_push_of_an_unsure_request_stays",),
    ),
    Guard(
        2,
        "what is not ours any more is withheld in the moment it would leave",
        (Edit("dispatcher/provider/client.py", "if not self._may_leave():", "if False:"),),
        (f"{WITHHELD}::test_a_batch_lost_while_connecting_is_never_written",),
    ),
    Guard(
        3,
        "a closed batch takes no answer",
        (
            Edit(
                f"{SQL}/batch.sql#close_batches",
                "  AND (b.state = 'open' OR b.state = 'unsure' AND u.evidence\n"
                "    AND (b.unsure_ids IS NULL OR b.http_status IS NULL))\n",
                "",
            ),
        ),
        (f"{AGAIN}::test_an_answer_is_written_once",),
    ),
    Guard(
        3,
        "an answer is fenced by the token too",
        (
            Edit(
                f"{SQL}/batch.sql#close_batches",
                " AND b.token = u.token",
                "",
            ),
        ),
        (f"{FENCE}::test_an_answer_of_another_database_changes_nothing",),
    ),
    Guard(
        3,
        "an answer is fenced by the token where the own one comes beside it",
        (
            Edit(
                "dispatcher/db/record.py",
                "            if result.batch.token in closed:\n                _gather(",
                "            if result.batch.id in {r.batch.id for r in results"
                " if r.batch.token in closed}:\n                _gather(",
            ),
        ),
        (f"{FENCE}::test_a_foreign_answer_beside_the_own_one_is_not_written",),
    ),
    Guard(
        3,
        "a split is fenced by the token too",
        (
            Edit(
                f"{SQL}/batch.sql#close_for_split",
                " AND token = $6",
                " AND $6::text IS NOT NULL",
            ),
        ),
        (f"{FENCE}::test_a_request_of_another_database_is_not_split",),
    ),
    Guard(
        3,
        "a recall is fenced by the token too",
        (
            Edit(
                FUNCTIONS,
                " AND b.token = u.token",
                "",
            ),
        ),
        (f"{FENCE}::test_an_answer_of_another_database_takes_nothing_back",),
    ),
    Guard(
        4,
        "a report settles only what is still in question",
        (
            Edit(
                "dispatcher/db/report_matching.py", "unsure is None\n", "place.batch_id in locked\n"
            ),
        ),
        (f"{MATCHING}::test_a_requeue_during_a_step_is_left_waiting",),
    ),
    Guard(
        2,
        "what was given up is settled while it is unsure again",
        (Edit(FUNCTIONS, "JOIN unsure u ON g.id = ANY (u.ids)", "JOIN unsure u ON false"),),
        (
            f"{RESENT}::test_a_late_answer_settles_what_is_unsure_again",
            f"{RESENT}::test_a_report_settles_what_is_unsure_again",
        ),
    ),
    Guard(
        2,
        "the policy resend ends with the attempts",
        (
            Edit(
                f"{SQL}/batch.sql#lock_silent",
                "  AND (a.max_attempts IS NULL OR a.max_attempts > ALL (b.attempts))\n",
                "",
            ),
        ),
        (f"{FENCE}::test_the_policy_resend_ends_with_the_attempts",),
    ),
    Guard(
        3,
        "an answer that lacks numbers is written once",
        (
            Edit(
                f"{SQL}/batch.sql#close_batches",
                "\n    AND (b.unsure_ids IS NULL OR b.http_status IS NULL)",
                "",
            ),
        ),
        (
            f"{AGAIN}::test_an_answer_that_lacks_numbers_returns_messages_once",
            f"{AGAIN}::test_an_answer_that_lacks_numbers_respects_a_requeue",
        ),
    ),
    Guard(
        2,
        "the end of a pause returns only a counted attempt",
        (
            Edit(
                FUNCTIONS,
                "(b.attempts[array_position(b.message_ids, w.id)] = w.attempt)::integer",
                "1",
            ),
        ),
        ("tests/db/test_slow_start.py::test_the_end_of_a_pause_returns_only_a_counted_attempt",),
    ),
    Guard(
        2,
        "a pause that a message ends returns no attempt",
        (
            Edit(
                f"{SQL}/app.sql#resume_app",
                "dispatcher.end_refusal_waits(name, by_message => true)",
                "dispatcher.end_refusal_waits(name)",
            ),
        ),
        (f"{RACES}::test_a_message_refused_for_itself_runs_out_of_attempts",),
    ),
    Guard(
        2,
        "what is requeued is no part of an unsure request",
        (
            Edit(
                FUNCTIONS,
                "AND b.id = ANY (ARRAY(SELECT batch_id FROM taken WHERE state = 'accepted'))",
                "AND false",
            ),
        ),
        (
            f"{MATCHING}::test_what_is_requeued_is_no_part_of_an_unsure_request",
            f"{RESENT}::test_no_late_answer_takes_back_what_was_requeued",
        ),
    ),
    Guard(
        2,
        "a late answer leaves alone what was requeued",
        (
            Edit(
                "dispatcher/db/record.py",
                "settled | _requeued(result, in_question)",
                "settled",
            ),
        ),
        (f"{RESENT}::test_a_late_answer_settles_the_others_of_a_requeued_message",),
    ),
    Guard(
        2,
        "a late answer waits for what another session holds",
        (
            Edit(
                "dispatcher/db/record.py",
                "    return bool(left)\n",
                "    return False\n",
            ),
        ),
        (f"{RESENT}::test_what_another_session_holds_is_taken_back_later",),
    ),
    Guard(
        3,
        "a late answer is evidence",
        (
            Edit(
                f"{SQL}/batch.sql#close_batches",
                " OR b.state = 'unsure' AND u.evidence\n"
                "    AND (b.unsure_ids IS NULL OR b.http_status IS NULL)",
                "",
            ),
        ),
        (f"{LATE}::test_it_settles_the_rest_and_counts_nothing_twice",),
    ),
    Guard(
        3,
        "only what was closed here is written",
        (
            Edit(
                "dispatcher/db/record.py",
                "            if result.batch.token in closed:\n                _gather(",
                "            if result.batch.token:\n                _gather(",
            ),
        ),
        (f"{AGAIN}::test_an_answer_that_lacks_numbers_returns_messages_once",),
    ),
    Guard(
        3,
        "only an open batch is divided",
        (
            Edit(
                f"{SQL}/batch.sql#close_for_split",
                "WHERE id = $1 AND token = $6 AND state = 'open'",
                "WHERE id = $1 AND token = $6",
            ),
        ),
        (
            f"{AGAIN}::test_a_batch_that_was_taken_over_is_not_divided",
            f"{AGAIN}::test_a_batch_is_divided_once",
        ),
    ),
    Guard(
        4,
        "a claim and its batches are one transaction",
        (
            Edit(
                "dispatcher/db/claim.py",
                "        batches = await open_batches(\n",
                '        await connection.execute("COMMIT; BEGIN")\n'
                "        batches = await open_batches(\n",
            ),
        ),
        (f"{ONE}::test_what_cannot_be_written_as_a_batch_stays_in_the_queue",),
    ),
    Guard(
        4,
        "closing a batch and its returns are one transaction",
        (
            Edit(
                "dispatcher/db/record.py",
                "        if rows.returns:\n",
                '        await connection.execute("COMMIT; BEGIN")\n        if rows.returns:\n',
            ),
        ),
        (f"{ONE}::test_what_cannot_return_to_the_queue_stays_in_its_batch",),
    ),
    Guard(
        4,
        "a cancel takes only what it finds waiting",
        (
            Edit(
                FUNCTIONS,
                "        DELETE FROM dispatcher.queue WHERE id = ANY (ids)"
                " RETURNING id, app, attempt, last_batch\n",
                "        SELECT m.id, m.app, 0::smallint AS attempt, NULL::bigint AS last_batch\n"
                "        FROM dispatcher.message m WHERE m.id = ANY (ids)\n",
            ),
        ),
        (
            "tests/db/test_operator.py::test_a_message_that_is_being_claimed_is_too_late_to_cancel",
            "tests/db/test_operator.py::test_cancel_takes_only_what_waits_and_counts_it",
        ),
    ),
    Guard(
        4,
        "a claim takes the bulk rows that it deletes",
        (
            Edit(
                f"{SQL}/queue.sql#claim_bulk",
                "    DELETE FROM dispatcher.bulk WHERE",
                "    SELECT first_id FROM dispatcher.bulk WHERE",
            ),
            Edit(f"{SQL}/queue.sql#claim_bulk", "    RETURNING first_id\n", ""),
        ),
        (f"{BULK}::test_bulk_rows_are_claimed_in_order",),
    ),
    Guard(
        2,
        "a claim takes no bulk row that a trigger keeps",
        (
            Edit(
                f"{SQL}/queue.sql#claim_bulk",
                "SELECT * FROM part WHERE first_id = ANY (ARRAY(SELECT first_id FROM gone))",
                "SELECT * FROM part",
            ),
        ),
        (f"{BULK}::test_bulk_rows_that_a_trigger_keeps_are_not_claimed",),
    ),
    Guard(
        4,
        "what a claim leaves of a bulk row waits on",
        (
            Edit(
                f"{SQL}/queue.sql#claim_bulk", "FROM taken WHERE room < 0", "FROM taken WHERE false"
            ),
        ),
        (f"{BULK}::test_a_claim_for_fewer_leaves_the_rest_in_a_row",),
    ),
    Guard(
        2,
        "a bulk row's message that has an outcome is not claimed",
        (
            Edit(
                f"{SQL}/queue.sql#claim_bulk",
                "AND m.id <> ALL (ARRAY(SELECT message_id FROM finished))",
                "",
            ),
        ),
        (f"{BULK}::test_messages_loaded_again_after_they_were_sent_stay_finished",),
    ),
    Guard(
        4,
        "what is taken out of a bulk row leaves the others waiting",
        (Edit(FUNCTIONS, "FROM message m WHERE NOT m.wanted", "FROM message m WHERE false"),),
        (
            f"{BULK}::test_a_cancel_leaves_the_others_of_a_row_together",
            f"{BULK}::test_messages_of_a_bulk_row_expire_without_the_others",
        ),
    ),
    Guard(
        4,
        "a cancel finds what a claim has left of a bulk row",
        (
            Edit(
                FUNCTIONS,
                "    END LOOP;\n    held := false;\n    LOOP\n",
                "        EXIT;\n    END LOOP;\n    held := false;\n    LOOP\n",
            ),
        ),
        (f"{BULK}::test_a_cancel_waits_for_a_claim_and_takes_what_it_left",),
    ),
    Guard(
        4,
        "no message is deleted whose requeue is open",
        (Edit(MAINTENANCE, "        FOR UPDATE OF m, o SKIP LOCKED\n", ""),),
        (
            f"{RETENTION}::test_a_message_that_is_being_requeued_is_not_pruned",
            f"{RETENTION}::test_a_requeue_during_a_prune_finds_nothing",
        ),
    ),
    Guard(
        4,
        "a drop deletes nothing while an older requeue is open",
        (
            Edit(
                MAINTENANCE,
                "EXIT WHEN NOT pg_try_advisory_xact_lock(hashtext('dispatcher.requeue'));",
                "",
            ),
        ),
        (f"{RETENTION}::test_a_requeue_that_saw_no_drop_begin_ends_it",),
    ),
    Guard(
        4,
        "a drop looks again once older requeues have committed",
        (
            Edit(
                MAINTENANCE,
                "IF NOT dispatcher.all_finished_before(old.first, old.past, now() - retention)"
                " THEN\n",
                "IF false THEN\n",
            ),
        ),
        (f"{RETENTION}::test_a_requeue_that_saw_no_drop_begin_ends_it",),
    ),
    Guard(
        4,
        "a partition with a bulk row is not dropped",
        (
            Edit(
                MAINTENANCE,
                "            WHERE first_id > first - 500 AND first_id < past"
                " AND ids && int8range(first, past))\n        OR EXISTS (\n",
                "            WHERE false)\n        OR EXISTS (\n",
            ),
        ),
        (f"{BULK}::test_a_partition_with_a_bulk_row_is_open",),
    ),
    Guard(
        5,
        "a bulk row is due by the database's clock",
        (
            Edit(f"{SQL}/queue.sql#lock_bulk", "b.due_at <= (SELECT clock_timestamp())", "true"),
            Edit(
                f"{SQL}/queue.sql#claim_bulk",
                "due_at <= (SELECT least(clock_timestamp(),",
                "due_at <= (SELECT least('infinity',",
            ),
            Edit(f"{SQL}/app.sql#app_state", "b.due_at <= (SELECT clock_timestamp())", "true"),
        ),
        (f"{BULK}::test_what_is_not_due_yet_is_not_claimed",),
    ),
    Guard(
        2,
        "a server error without results is an unknown result",
        (
            Edit(
                "dispatcher/core/outcome.py",
                "if answer.http_status >= FIRST_FAILURE_STATUS:",
                "if False:",
            ),
        ),
        (f"{OUTCOME}::test_a_server_error_without_results_is_unknown_whatever_its_code",),
    ),
    Guard(
        2,
        "HTTP 503 may have been sent",
        (
            Edit(
                "dispatcher/core/codes.py",
                '"HTTP 503", Kind.UNKNOWN_RESULT',
                '"HTTP 503", Kind.NOT_SENT',
            ),
        ),
        ("tests/core/test_codes.py::test_a_request_code_has_the_kind_of_its_row_or_class",),
    ),
    Guard(
        2,
        "unknown results in a row open the circuit",
        (
            Edit(
                "dispatcher/core/circuit.py",
                "opens = state.unknown >= limits.unknown or unknown_share_is_high",
                "opens = False",
            ),
        ),
        (
            "tests/core/test_circuit.py::test_unknown_results_in_a_row_open_the_circuit",
            "tests/worker/test_sick_provider.py::test_two_workers_share_the_circuit",
        ),
    ),
    Guard(
        5,
        "what is left of a message's time is the database's word",
        (
            Edit(
                f"{SQL}/queue.sql#claim",
                "date_part('epoch', m.expires_at - clock_timestamp())",
                "date_part('epoch', m.expires_at) - $10",
            ),
            Edit(
                "dispatcher/db/due_messages.py",
                "                untried,\n            )\n",
                "                untried,\n"
                '                __import__("time").time(),\n            )\n',
            ),
        ),
        (f"{CLOCK}::test_wrong_clocks_change_no_times_and_no_lease",),
    ),
    Guard(
        5,
        "what is due is the database's word",
        (
            Edit(
                f"{SQL}/queue.sql#claim",
                "q.due_at <= least((SELECT clock_timestamp()),",
                "q.due_at <= least(to_timestamp($10),",
            ),
            Edit(
                "dispatcher/db/due_messages.py",
                "                untried,\n            )\n",
                "                untried,\n"
                '                __import__("time").time(),\n            )\n',
            ),
        ),
        (f"{CLOCK}::test_wrong_clocks_change_no_times_and_no_lease",),
    ),
    Guard(
        5,
        "a heartbeat has the database's time",
        (
            Edit(f"{SQL}/workers.sql#heartbeat", "clock_timestamp()", "to_timestamp($5)"),
            Edit(
                "dispatcher/db/workers.py",
                'sql("heartbeat"), worker, cut_off, failing, started)\n',
                'sql("heartbeat"), worker, cut_off, failing, started, __import__("time").time())\n',
            ),
        ),
        (f"{CLOCK}::test_wrong_clocks_change_no_times_and_no_lease",),
    ),
    Guard(
        5,
        "quiet hours go by the database's clock",
        (
            Edit(
                "dispatcher/db/rules.py",
                "now = datetime.fromtimestamp(asked_at, UTC)",
                "now = datetime.now(UTC)",
            ),
        ),
        (f"{CLOCK}::test_wrong_clocks_change_no_times_and_no_lease",),
    ),
    Guard(
        5,
        "the worker's clock is compared with the answer's Date",
        (
            Edit(
                "dispatcher/provider/client.py",
                '_clock_skew(response.headers.get("Date"), self._clock())',
                "None",
            ),
        ),
        (
            "tests/worker/test_lost_answers.py::test_a_wrong_clock_pauses_the_app_and_says_by_how_much",
        ),
    ),
)
