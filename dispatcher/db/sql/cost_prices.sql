-- What a segment costs, by country.
SELECT country, price, currency FROM dispatcher.price ORDER BY country
