-- How many messages are finished, by state. Reads every outcome: for a demo, not for history.
SELECT state, count(*) AS messages FROM dispatcher.outcome GROUP BY state ORDER BY state
