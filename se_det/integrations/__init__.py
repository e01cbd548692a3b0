"""What connects se_det to other libraries. Nothing is imported here, as each module needs the library of its name."""
