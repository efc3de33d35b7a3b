"""The story of an order; deterministic, no I/O."""
