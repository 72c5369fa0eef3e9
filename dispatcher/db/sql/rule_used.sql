-- What these numbers were sent by an app in the last day, all but the messages that are claimed.
-- $1 app, $2 numbers in canonical form, $3 message ids
SELECT recipient, text,
    count(*) FILTER (WHERE at > clock_timestamp() - interval '1 minute') AS minute,
    count(*) FILTER (WHERE at > clock_timestamp() - interval '1 hour') AS hour,
    count(*) AS day
FROM dispatcher.sent_to
WHERE recipient = ANY ($2::text[]) AND app = $1 AND at > clock_timestamp() - interval '1 day'
  AND message_id <> ALL ($3::bigint[])
GROUP BY recipient, text
