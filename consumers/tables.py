"""The tables of the consumers that have a schema of their own."""

from events.tables import consumer_tables

NOTIFICATIONS = consumer_tables("notifications")
ANALYTICS = consumer_tables("analytics")
