"""What the package uses of PyTorch and Python that their documentation does not promise: one file each.

Each file says what it uses, in which versions of PyTorch that is, and what becomes of the package without it. Nothing
else in the package reaches for such names, and `tests/internals` takes each away.
"""
