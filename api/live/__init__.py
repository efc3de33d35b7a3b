"""Live updates: the events of all domains, as they come, for many clients of one API process."""
