"""Figures that compare pictures."""
