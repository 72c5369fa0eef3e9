-- One step of dropping the oldest partition that is over; returns what was done, null for nothing.
-- $1 retention (seconds)
SELECT dispatcher.drop_step(make_interval(secs => $1))
