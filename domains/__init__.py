"""What each domain knows; no Temporal, no HTTP."""
