-- A table with the limits of a message and nothing that follows from one: for a dry run.
CREATE TEMPORARY TABLE dry_run (LIKE dispatcher.message INCLUDING CONSTRAINTS)
