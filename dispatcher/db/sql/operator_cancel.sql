-- Cancel messages that still wait; returns how many.
-- $1 message ids
SELECT dispatcher.cancel($1)
