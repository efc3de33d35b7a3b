"""Real clients of the gateways."""
