-- Whether the app has its row.
-- $1 app
SELECT EXISTS (SELECT FROM dispatcher.app WHERE name = $1)
