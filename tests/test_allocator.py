"""The allocator's setting, in processes of their own."""

import subprocess
import sys

import pytest

PAGES = """
import resource, sys
import numpy as np
from se_det.allocator import keep_freed_memory
changed = keep_freed_memory() if sys.argv[1] == "keep" else False
np.ones(2**26, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**26, np.uint8)
print(changed, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(way, **environment):
    result = subprocess.run(
        [sys.executable, "-c", PAGES, way], capture_output=True, text=True, check=True, env={"PATH": "", **environment}
    )
    changed, faults = result.stdout.split()
    return changed == "True", int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_large_blocks_are_not_cleared_again():
    changed, kept = _faults("keep")
    _, usual = _faults("leave")
    if not changed:
        pytest.skip("this C library has no mallopt")
    assert kept < usual / 10


def test_a_chosen_allocator_is_left_alone():
    assert _faults("keep", MALLOC_TRIM_THRESHOLD_="100000")[0] is False
