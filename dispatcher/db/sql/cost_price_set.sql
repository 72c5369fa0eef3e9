-- Set what a segment to a country costs.
-- $1 country, $2 price, $3 currency
INSERT INTO dispatcher.price (country, price, currency) VALUES ($1, $2, $3)
ON CONFLICT (country) DO UPDATE SET price = excluded.price, currency = excluded.currency
