-- What an application inserts meanwhile: a message that is not due before the benchmark ends.
INSERT INTO dispatcher.message (sender, recipient, template_id, params, send_at)
VALUES ('csms12345678', '+8613812345678', '8ff55eac1d0b478ab3c06c3c6a492300', ARRAY['062569'],
    now() + interval '1 day')
