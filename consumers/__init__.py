"""Who listens to events. Each keeps what it makes of them in a schema of its own, and nobody needs to know it."""
