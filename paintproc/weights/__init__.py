"""Pretrained weights: which there are, where they lie, where they come from."""
