"""Other ways to paint: the processes of published methods, on the strokes of this package."""
