"""The only room that knows SQL: connections, migrations, and one statement a file."""
