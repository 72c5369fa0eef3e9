-- One step of dropping the oldest partition that is over; returns what was done, null for nothing.
-- So few messages in one step that whoever works beside it hardly notices: fifty thousand took
-- seconds of one core.
-- $1 retention (seconds)
SELECT dispatcher.drop_step(make_interval(secs => $1), 10000)
