-- The texts of templates that are defined.
SELECT template_id, text FROM dispatcher.template WHERE text IS NOT NULL
