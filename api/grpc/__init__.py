"""gRPC: a service for each domain by the key of a service, and the robots' own by a token each."""
