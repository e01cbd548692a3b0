"""What a quantiser is."""

from __future__ import annotations

from ...registry import Registry

# By the ending of the files: `build(source, images)` of a float32 file and inputs to calibrate with, which are lists of
# arrays as `Runtime.run` takes them -> an object with
#   layers: the names of the weights of the layers that can be quantised, as the network has them;
#   write(path, kept): write the network with the layers of these names left in float32.
# `build` has, as attributes, `packages`, the names of what it imports, and `install`, the command that installs them.
QUANTISERS = Registry("quantiser")
