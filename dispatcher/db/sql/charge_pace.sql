-- Charge the numbers this transaction claimed: the app may claim again when they are used up.
-- A worker that comes late by up to $3 seconds is not made to lose that time. A pace that was
-- slowed down recovers by sending: from nothing to the setting in five minutes.
-- $1 app, $2 numbers, $3 seconds of credit
UPDATE dispatcher.app
SET next_at = greatest(next_at, clock_timestamp() - make_interval(secs => $3))
    + make_interval(secs => $2 / rate),
    rate = least(numbers_per_second, rate + numbers_per_second / 300 * ($2 / rate))
WHERE name = $1 AND rate IS NOT NULL
