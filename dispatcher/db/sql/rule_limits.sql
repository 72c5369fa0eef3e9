-- What apps allow themselves, in the order of core.rules.Limits.
SELECT app, per_minute, per_day, same_per_minute, same_per_hour, ceiling, quiet_from, quiet_until
FROM dispatcher.app_limit
