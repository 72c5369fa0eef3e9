-- The time that decides, whatever the clock here says.
SELECT clock_timestamp()
