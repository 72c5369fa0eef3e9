-- Settle an unsure batch as 'sent' or 'resend'; returns how many messages. Raises no_data_found.
-- $1 token, $2 how
SELECT dispatcher.settle($1, $2)
