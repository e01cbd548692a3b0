"""Speed and memory of the product's own loops, side by side with its peers."""
