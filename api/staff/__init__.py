"""The gateway of staff: REST and WebSocket, an API key each."""
