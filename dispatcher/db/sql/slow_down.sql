-- Halve the app's rate, at most once a second and not below 1 % of its setting; ceiling is where
-- it was too fast.
-- $1 app
UPDATE dispatcher.app
SET rate = greatest(rate / 2, numbers_per_second / 100), ceiling = rate,
    slowed_at = clock_timestamp()
WHERE name = $1 AND rate IS NOT NULL
  AND (slowed_at IS NULL OR slowed_at < clock_timestamp() - interval '1 second')
