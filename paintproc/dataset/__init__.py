"""Datasets of sequences: written by data builders, read by training and evaluation."""

from paintproc.dataset.read import Dataset as Dataset
