-- How many reports were matched to their messages.
SELECT coalesce(sum(count), 0)::bigint FROM dispatcher.tally WHERE event = 'delivered'
