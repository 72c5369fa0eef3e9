-- What an application writes; the rows follow.
INSERT INTO dispatcher.message (sender, recipient, template_id, params, priority) VALUES 