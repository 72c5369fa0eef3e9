-- Erase a person; returns the messages erased, and those left because they are on their way.
-- $1 spellings of the number
SELECT erased, left_alone FROM dispatcher.forget($1)
