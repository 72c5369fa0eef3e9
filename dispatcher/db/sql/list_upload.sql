-- Lists that operators uploaded in the console.

-- name: add_list_upload
-- Begin an upload, and delete those of over a day ago.
-- $1 actor, $2 name of the file, $3 options as JSON
WITH dropped AS (
    DELETE FROM dispatcher.list_upload WHERE created_at < now() - interval '1 day'
)
INSERT INTO dispatcher.list_upload (created_by, name, options)
VALUES ($1, $2, $3::text::jsonb) RETURNING id

-- name: add_list_upload_part
-- Keep a part of the content.
-- $1 id, $2 number of the part, $3 content
INSERT INTO dispatcher.list_upload_part (upload, part, content) VALUES ($1, $2, $3)

-- name: complete_list_upload
-- Note that the content is there.
-- $1 id
UPDATE dispatcher.list_upload u
SET state = 'checking',
    bytes = (SELECT sum(length(p.content)) FROM dispatcher.list_upload_part p WHERE p.upload = u.id)
WHERE u.id = $1 AND u.state = 'uploading'

-- name: drop_list_upload
-- Delete an upload with its content, unless it is being loaded; what was whole is in the audit.
-- $1 id, $2 actor
WITH dropped AS (
    DELETE FROM dispatcher.list_upload WHERE id = $1 AND state <> 'loading' RETURNING id, name, state
)
INSERT INTO dispatcher.audit (actor, action, target, detail, result)
SELECT $2, 'drop', 'list ' || id, name, 'dropped' FROM dropped WHERE state <> 'uploading'

-- name: list_upload
-- Return an upload, and whether it is held (see is_load_held).
-- $1 id, $2 seconds without progress after which a process counts as dead
SELECT id, created_at, created_by, loaded_by, asked_at, name, options::text, bytes, state, progress,
    result::text, error, rejects IS NOT NULL AS has_rejects,
    state IN ('checking', 'loading')
        AND coalesce(worked_at < clock_timestamp() - make_interval(secs => $2), true) AS silent,
    tries,
    state = 'loading' AND dispatcher.is_load_held(asked_at, worked_at) AS held
FROM dispatcher.list_upload WHERE id = $1 AND state <> 'uploading'

-- name: list_uploads
-- Return all uploads that are kept, the newest first.
-- $1 seconds, as above
SELECT id, created_at, created_by, loaded_by, asked_at, name, options::text, bytes, state, progress,
    result::text, error, rejects IS NOT NULL AS has_rejects,
    state IN ('checking', 'loading')
        AND coalesce(worked_at < clock_timestamp() - make_interval(secs => $1), true) AS silent,
    tries,
    state = 'loading' AND dispatcher.is_load_held(asked_at, worked_at) AS held
FROM dispatcher.list_upload WHERE state <> 'uploading' ORDER BY id DESC LIMIT 50

-- name: begin_list_work
-- Take an upload to be worked on; return which try it is, and nothing if another process does it, or it is
-- held.
-- $1 id, $2 seconds, as above
UPDATE dispatcher.list_upload SET worked_at = clock_timestamp(), progress = 0, tries = tries + 1
WHERE id = $1 AND state IN ('checking', 'loading')
  AND coalesce(worked_at < clock_timestamp() - make_interval(secs => $2), true)
  AND NOT (state = 'loading' AND dispatcher.is_load_held(asked_at, worked_at))
RETURNING tries

-- name: note_list_progress
-- Show that the work goes on.
-- $1 id, $2 progress, 0 to 1
UPDATE dispatcher.list_upload SET worked_at = clock_timestamp(), progress = $2
WHERE id = $1 AND state IN ('checking', 'loading')

-- name: ask_to_load_list
-- Have a checked list loaded, with these options; the audit has it.
-- $1 id, $2 options as JSON, $3 actor, $4 which lines, for the audit
WITH asked AS (
    UPDATE dispatcher.list_upload
    SET state = 'loading', options = $2::text::jsonb, worked_at = NULL, progress = 0, tries = 0,
        loaded_by = $3, asked_at = clock_timestamp(), error = NULL
    WHERE id = $1 AND state = 'checked'
    RETURNING id, name
), noted AS (
    INSERT INTO dispatcher.audit (actor, action, target, detail, result)
    SELECT $3, 'load', 'list ' || id, name, $4 FROM asked
)
SELECT EXISTS (SELECT FROM asked)

-- name: end_list_work
-- Keep what a check or a load gave. The content is not needed any more after a load.
-- $1 id, $2 state, $3 result as JSON, $4 error, $5 refused lines
WITH ended AS (
    UPDATE dispatcher.list_upload
    SET state = $2, result = coalesce($3::text::jsonb, result), error = $4, rejects = $5,
        worked_at = NULL, progress = 1
    WHERE id = $1 AND state IN ('checking', 'loading')
    RETURNING id, state
)
DELETE FROM dispatcher.list_upload_part p USING ended e WHERE p.upload = e.id AND e.state = 'loaded'

-- name: list_upload_content
-- Return the content of an upload.
-- $1 id
SELECT content FROM dispatcher.list_upload_part WHERE upload = $1 ORDER BY part

-- name: list_rejects
-- Return the refused lines of an upload.
-- $1 id
SELECT rejects FROM dispatcher.list_upload WHERE id = $1
