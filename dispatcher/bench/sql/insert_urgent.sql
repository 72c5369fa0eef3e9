-- One urgent message, as an application sends a verification code.
-- $1 recipient
INSERT INTO dispatcher.message (sender, recipient, template_id, params, priority)
VALUES ('csms12345678', $1, '8ff55eac1d0b478ab3c06c3c6a492300', ARRAY['062569'], 0)
