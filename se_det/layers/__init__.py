"""Building blocks: gates, norms, convolutions, and the valid area of a padded batch."""
