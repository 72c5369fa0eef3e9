-- Hold the app's pace until the end of this transaction: its rate, and the seconds until the time
-- of the next grant (negative: that is past).
-- $1 app
SELECT rate, date_part('epoch', next_at - clock_timestamp()) AS wait
FROM dispatcher.app WHERE name = $1 FOR NO KEY UPDATE
