-- Begin a new partition if the current one was begun long ago; returns whether it did.
-- $1 how long ago (seconds)
SELECT dispatcher.turn_page(make_interval(secs => $1))
