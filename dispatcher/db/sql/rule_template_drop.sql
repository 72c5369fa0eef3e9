-- Forget a template; a row if there was one.
-- $1 template id
DELETE FROM dispatcher.template WHERE template_id = $1 RETURNING template_id
