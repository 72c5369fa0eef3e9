-- The templates that operators have defined, with their notes.
SELECT template_id, kinds, note FROM dispatcher.template ORDER BY template_id
