-- No ids are used up by a dry run.
ALTER TABLE pg_temp.dry_run ALTER id DROP NOT NULL, ALTER queued_at DROP NOT NULL
