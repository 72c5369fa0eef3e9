-- Stop claiming for an app until an operator resumes it.
-- $1 app, $2 reason
SELECT dispatcher.pause($1, $2)
