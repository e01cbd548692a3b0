"""Small configs of every family, drawn at random, in the builtin engine and in Detectron2: outputs, losses, gradients.

    python tests/integrations/random_configs.py [family ...] [--number N] [--seed S]

Needs Detectron2. Exits with 1 where a number differs by more than the family allows; the line above says the config.
A family is a file in tests/integrations/families.
"""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.integrations.compare import output_gaps, outputs, training_gaps
from tests.integrations.families import FAMILIES
from tests.integrations.families.family import Family, Keys


def draw(family: Family, source: random.Random) -> Keys:
    """One of each axis."""
    return [x for axis in family.axes for x in source.choice(list(axis))]


def compare(family: Family, case: Keys) -> dict[str, float]:
    """The gaps of a config of a family."""
    ours, theirs = family.build_pair(case)
    samples = family.samples()
    gaps = output_gaps(outputs(ours, samples), outputs(theirs, samples)) | training_gaps(ours, theirs, samples)
    if excess(family, gaps) == ["gradients"]:
        # A ReLU's input that is zero but for rounding may pass here and not there: another image says which it is.
        moved = [{**sample, "image": sample["image"].float() + 1e-4} for sample in samples]
        gaps["gradients"] = training_gaps(ours, theirs, moved)["gradients"]
    return gaps


def excess(family: Family, gaps: dict[str, float]) -> list[str]:
    """What differs by more than it may."""
    return [name for name, gap in gaps.items() if name != "objects" and not gap <= family.tolerances.get(name, 0)]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", choices=[[], *FAMILIES])
    parser.add_argument("--number", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "torch.meshgrid")
    bad = 0
    for name in args.families or FAMILIES:
        source = random.Random(f"{args.seed} {name}")
        for _ in range(args.number):
            case = draw(FAMILIES[name], source)
            gaps = compare(FAMILIES[name], case)
            wrong = excess(FAMILIES[name], gaps)
            bad += bool(wrong)
            told = ", ".join(
                f"{key} {value:.1e}" if key != "objects" else f"{value} objects" for key, value in gaps.items()
            )
            print(
                f"{name}: {told}{' DIFFERENT: ' + ', '.join(wrong) if wrong else ''}\n    {' '.join(map(str, case))}",
                flush=True,
            )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
