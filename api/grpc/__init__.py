"""gRPC: a service for each domain by a key of staff, and the robots' own by a token each."""
