"""The steps of the saga, one file a domain: a thin, idempotent door from Temporal to a service."""
