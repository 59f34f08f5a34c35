"""How it is painted: the plan, the painting of it, the clock and the words."""
