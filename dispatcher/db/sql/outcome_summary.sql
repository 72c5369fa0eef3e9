-- How many messages are in which state and why, with the id of one of them. Reads every message: for a demo, not for history.
SELECT state, code, min(reason) AS reason, count(*) AS messages, min(id) AS example
FROM dispatcher.message_status
GROUP BY state, code
ORDER BY messages DESC, state, code
