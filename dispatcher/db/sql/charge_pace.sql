-- Charge the numbers this transaction claimed: they go out at next_at, and those after them $2
-- seconds later. Returns the seconds until then. Time that nobody used is lost.
-- A rate that was slowed down recovers by sending: within seconds to 95 % of where it was refused,
-- and from there slowly, 1/600 of the setting a second.
-- $1 app, $2 seconds
UPDATE dispatcher.app
SET next_at = greatest(next_at, clock_timestamp()) + make_interval(secs => $2),
    rate = least(numbers_per_second, rate + $2 * CASE
        WHEN rate < ceiling * 0.95 THEN least(ceiling / 8, (ceiling * 0.95 - rate) / $2)
        ELSE numbers_per_second / 600 END)
WHERE name = $1 AND rate IS NOT NULL
RETURNING date_part('epoch', next_at - clock_timestamp())
