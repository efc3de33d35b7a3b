"""The codec server: what is encrypted in Temporal, in plain for operators who read it there."""
