"""Write tests/detection/golden/*.npz: what Detectron2 computes on known weights and images.

    python tests/integrations/make_golden.py <commit of the installed Detectron2>

For gate "none" everything is Detectron2's own, its ResNet too; with a gate our backbone is in Detectron2's detector.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.integrations.detectron2_pair import GATES, make_pair, to_detectron2
from tests.integrations.known_weights import SAMPLE_ALL, SLIM, samples

FOLDER = Path(__file__).resolve().parents[1] / "detection" / "golden"
SAMPLED = 64  # values kept of each map
PROPOSALS = 100
DETECTIONS = 20


def main() -> None:
    """See the module."""
    import detectron2
    from detectron2.utils.events import EventStorage

    [commit] = sys.argv[1:]
    FOLDER.mkdir(exist_ok=True)
    inputs = [to_detectron2(s) for s in samples()]
    for gate in GATES:
        overrides = [*SLIM, "TEST.DETECTIONS_PER_IMAGE", DETECTIONS]
        _, model = make_pair(gate, masks=True, overrides=overrides, own_resnet=gate == "none")
        golden = {"made_with": f"Detectron2 {detectron2.__version__} ({commit}), PyTorch {torch.__version__}"}
        with torch.no_grad():
            images = model.preprocess_image(inputs)
            maps = model.backbone(images.tensor)
            for name, values in maps.items():
                golden[f"map/{name}"] = spread(values)
            proposals, _ = model.proposal_generator(images, maps)
            for i, found in enumerate(proposals):
                golden[f"proposals/{i}/boxes"] = found.proposal_boxes.tensor[:PROPOSALS].numpy()
                golden[f"proposals/{i}/scores"] = found.objectness_logits[:PROPOSALS].numpy()
            for i, found in enumerate(model(inputs)):
                found = found["instances"]
                golden[f"detections/{i}/boxes"] = found.pred_boxes.tensor.numpy()
                golden[f"detections/{i}/scores"] = found.scores.numpy()
                golden[f"detections/{i}/classes"] = found.pred_classes.numpy()
                golden[f"detections/{i}/masks"] = np.packbits(found.pred_masks.numpy())
        _, model = make_pair(gate, masks=True, overrides=[*SLIM, *SAMPLE_ALL], own_resnet=gate == "none")
        model.train()
        with EventStorage():
            losses = model(inputs)
        sum(losses.values()).backward()
        for name, value in losses.items():
            golden[f"loss/{name}"] = np.float64(value.item())
        names = [name for name, p in model.named_parameters() if p.grad is not None]
        golden["gradient/names"] = np.array(names)
        parameters = dict(model.named_parameters())
        golden["gradient/norms"] = np.array([float(parameters[name].grad.double().norm()) for name in names])
        np.savez_compressed(FOLDER / f"mask_rcnn_{gate}.npz", **golden)
        print(gate, (FOLDER / f"mask_rcnn_{gate}.npz").stat().st_size)


def spread(values: torch.Tensor) -> np.ndarray:
    """`SAMPLED` values from all over a tensor."""
    flat = values.flatten()
    return flat[torch.linspace(0, len(flat) - 1, SAMPLED).long()].numpy()


if __name__ == "__main__":
    main()
