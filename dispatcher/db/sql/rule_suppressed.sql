-- Which of these numbers are suppressed.
-- $1 numbers in canonical form
SELECT recipient FROM dispatcher.suppression WHERE recipient = ANY ($1::text[])
