-- What the list of numbers never to send to has of a number, as JSON.
-- $1 the number in canonical form
SELECT jsonb_build_object('suppression', to_jsonb(s))::text
FROM dispatcher.suppression s WHERE s.recipient = $1
