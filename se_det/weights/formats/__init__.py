"""File formats of weights, each read without running anything that a file could bring along."""
