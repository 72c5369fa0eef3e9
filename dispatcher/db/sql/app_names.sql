-- The apps that a worker has named so far.
SELECT name FROM dispatcher.app ORDER BY name
