-- How many messages are in which state, and why. Reads every message: for a demo, not for history.
SELECT state, code, min(reason) AS reason, count(*) AS messages
FROM dispatcher.message_status
GROUP BY state, code
ORDER BY messages DESC, state, code
