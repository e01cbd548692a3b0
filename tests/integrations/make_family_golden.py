"""Write tests/detection/golden/family_*.npz: what Detectron2 computes on the `golden` cases of each family.

python tests/integrations/make_family_golden.py <commit of the installed Detectron2> [family ...]
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.integrations.compare import outputs, training
from tests.integrations.families import FAMILIES

FOLDER = Path(__file__).resolve().parents[1] / "detection" / "golden"


def main() -> None:
    """See the module."""
    import detectron2

    commit, *names = sys.argv[1:]
    warnings.filterwarnings("ignore", "torch.meshgrid")
    for name in names or FAMILIES:
        family, golden = FAMILIES[name], {}
        for case, keys in family.golden.items():
            samples = family.samples()
            _, theirs = family.build_pair(keys)
            numbers = outputs(theirs, samples) | training(theirs, samples)
            gradients = {key: numbers.pop(key) for key in list(numbers) if key.startswith("gradient/")}
            numbers["gradients"] = np.array(list(gradients.values()))
            numbers["gradient names"] = np.array([key.removeprefix("gradient/") for key in gradients])
            golden |= {f"{case}/{key}": _packed(value) for key, value in numbers.items()}
        golden["made_with"] = np.array(f"Detectron2 {detectron2.__version__} ({commit}), PyTorch {torch.__version__}")
        path = FOLDER / f"family_{name}.npz"
        np.savez_compressed(path, **golden)
        print(path, path.stat().st_size, flush=True)


def _packed(value: np.ndarray) -> np.ndarray:
    return np.packbits(value, axis=-1) if value.dtype == bool else value


if __name__ == "__main__":
    main()
