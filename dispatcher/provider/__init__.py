"""The only room that calls out: one aiohttp session, signed tries, short retries."""
