"""Triton kernels of the passes over large maps that a gate adds to a network; imported where they are asked for.

Each computes what a few of PyTorch's operators compute, in one pass. MODEL.KERNELS triton has them used on GPUs.
`TRITON_INTERPRET=1` in the environment runs them on a CPU, slowly, for tests.
"""

from .map_passes import affine_relu, affine_relu_backward, cell_sums, scaled_sum

__all__ = ["affine_relu", "affine_relu_backward", "cell_sums", "scaled_sum"]
