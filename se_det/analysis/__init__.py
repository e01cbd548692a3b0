"""What networks cost, and what their gates do."""
