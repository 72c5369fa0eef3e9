-- Define a template, or define it anew.
-- $1 template id, $2 kinds, $3 note, $4 its text, if it is known
INSERT INTO dispatcher.template (template_id, kinds, note, text) VALUES ($1, $2, $3, $4)
ON CONFLICT (template_id) DO UPDATE
SET kinds = excluded.kinds, note = excluded.note, text = excluded.text
