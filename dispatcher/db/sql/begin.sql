-- Begin a transaction whose client may not fall silent in the middle of it. One that is frozen
-- there would hold its locks, on the pace of an app for one, and all other workers would wait for
-- it; so the server ends it, which is a ROLLBACK. By then a client that runs has cut it itself
-- (session.PATIENCE), and one that waits for a slow statement is not idle.
-- Nobody waits as long for a lock: else the frozen client's other transactions, which wait behind
-- the first, would come to hold it one after the other. Who gives up asks again.
-- All in one message: it costs no round trip, and no session is changed, so that it also works
-- behind a pooler that hands sessions around.
BEGIN;
SET LOCAL idle_in_transaction_session_timeout = '5s';
SET LOCAL lock_timeout = '4s'
