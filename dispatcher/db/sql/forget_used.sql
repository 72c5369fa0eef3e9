-- Forget what a number was sent lately: what limits for one recipient count.
-- $1 the number in canonical form
DELETE FROM dispatcher.sent_to WHERE recipient = $1
