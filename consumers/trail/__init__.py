"""The audit trail: who did what to which order, as the events of all domains tell it."""
