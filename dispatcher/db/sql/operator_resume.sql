-- Claim for an app again, and for all its countries.
-- $1 app
SELECT dispatcher.resume($1)
