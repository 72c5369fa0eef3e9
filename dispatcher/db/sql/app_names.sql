-- The apps that a worker or an operator has named so far.
SELECT name FROM dispatcher.app ORDER BY name
