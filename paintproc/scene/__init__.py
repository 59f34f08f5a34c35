"""The scene of a picture: its regions from far to near, their parts, and what lies behind each region."""
