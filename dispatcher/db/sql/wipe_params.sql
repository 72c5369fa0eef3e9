-- Wipe the variables of messages that are long over, a bounded number; returns how many it looked at.
-- $1 how long over (seconds)
SELECT dispatcher.wipe_params(make_interval(secs => $1))
