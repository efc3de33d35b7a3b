"""The audit trail: who did what to which order, product, store or robot, as the events of all domains tell it."""
