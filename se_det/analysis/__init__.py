"""Cost of networks, and statistics of their gates."""
