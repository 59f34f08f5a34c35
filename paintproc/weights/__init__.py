"""Pretrained weights: the list of them, the folder they are kept in, and how to get them."""
