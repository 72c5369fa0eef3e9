"""The only room that listens: status reports, health, metrics, the console."""
