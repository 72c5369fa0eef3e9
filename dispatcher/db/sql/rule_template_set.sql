-- Define a template, or define it anew.
-- $1 template id, $2 kinds, $3 note
INSERT INTO dispatcher.template (template_id, kinds, note) VALUES ($1, $2, $3)
ON CONFLICT (template_id) DO UPDATE SET kinds = excluded.kinds, note = excluded.note
