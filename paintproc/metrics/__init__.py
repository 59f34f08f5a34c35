"""How far pictures, processes and sets are from each other."""
