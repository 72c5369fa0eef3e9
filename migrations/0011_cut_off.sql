-- A worker tells with its heartbeat for which apps its host cannot send, so that others see it.

-- migrate:up

-- No way to the provider, or a wrong clock, while other hosts send: it claims nothing then.
ALTER TABLE dispatcher.worker ADD COLUMN cut_off text[] NOT NULL DEFAULT '{}';

-- migrate:down

ALTER TABLE dispatcher.worker DROP COLUMN cut_off;
