-- The templates that operators have defined.
SELECT template_id, kinds FROM dispatcher.template
