"""Analytics: numbers about the mall, made of events alone. Nothing else knows of it."""
