"""Synthetic sequences: pictures turned into painting processes by the thousand."""
