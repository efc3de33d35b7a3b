"""The shopper bot: a robot that works for the mall by the stream that real ones use."""
