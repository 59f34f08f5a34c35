"""Strokes: the value, brushes, rasterization, fitting and export."""
