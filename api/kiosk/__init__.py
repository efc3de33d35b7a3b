"""The gateway of kiosks: REST, an API key each."""
