"""Events: what they are, how they are stored, how an aggregate is folded from them."""
