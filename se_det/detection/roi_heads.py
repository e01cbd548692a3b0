"""The second stage: proposals are labelled and sampled, pooled, classified, refined, and given masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .box_head import BoxHead, BoxPredictor
from .keypoint_head import KeypointHead
from .keypoints import heatmap_cells, heatmaps_to_keypoints, labelled_inside
from .mask_head import MaskHead
from .masks import crop_masks, instances_with_mask
from .matching import match, sample, true_indices_first
from .measured_part import MeasuredPart
from .point_rend import PointRendMaskHead
from .pooler import Levels, ROIPooler


class StandardROIHeads(nn.Module):
    """Box head and, optionally, mask and keypoint heads (Detectron2's StandardROIHeads).

    Args:
        num_classes: K; class K is background.
        batch_size_per_image, positive_fraction: how many proposals training samples, how many may be positive.
        iou_thresholds, iou_labels: see `matching.match`.
        append_truth: add the ground truth to the proposals.
        train_on_predicted_boxes: the other heads learn from the boxes as the box head moves them.
        mask_pooler, mask_head: both or neither; or a head alone that reads the maps itself, see `PointRendMaskHead`.
        keypoint_pooler, keypoint_head: both or neither.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        box_pooler: ROIPooler,
        box_head: BoxHead,
        box_predictor: BoxPredictor,
        batch_size_per_image: int = 512,
        positive_fraction: float = 0.25,
        iou_thresholds: Sequence[float] = (0.5,),
        iou_labels: Sequence[int] = (0, 1),
        append_truth: bool = True,
        train_on_predicted_boxes: bool = False,
        mask_pooler: ROIPooler | None = None,
        mask_head: MaskHead | PointRendMaskHead | None = None,
        keypoint_pooler: ROIPooler | None = None,
        keypoint_head: KeypointHead | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.iou_thresholds = tuple(iou_thresholds)
        self.iou_labels = tuple(iou_labels)
        self.append_truth = append_truth
        self.train_on_predicted_boxes = train_on_predicted_boxes
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.mask_pooler = mask_pooler
        self.mask_head = mask_head
        self.keypoint_pooler = keypoint_pooler
        self.keypoint_head = keypoint_head

    @property
    def box_stages(self) -> list[tuple[BoxHead, BoxPredictor]]:
        """What boxes go through, one pair after another."""
        return [(self.box_head, self.box_predictor)]

    def inference_parts(self) -> list[nn.Module]:
        """What is fused for inference and computed in TEST.PRECISION: all but the layers of scores and boxes."""
        heads = [*(head for head, _ in self.box_stages), self.mask_head, self.keypoint_head]
        return [head for head in heads if head is not None]

    def costs(self, channels: int, proposals: int) -> list[MeasuredPart]:
        """The heads on so many proposals, pooled from maps of so many channels, and on as many detections as there can
        be at most, to be measured."""
        boxes = nn.ModuleList(nn.Sequential(*stage) for stage in self.box_stages)
        detections = self.box_stages[-1][1].max_detections
        pooled = [(proposals, channels, *(self.box_pooler.output_size,) * 2)]
        parts = [
            MeasuredPart(
                f"roi_heads.box_* ({proposals} proposals)", boxes, pooled, lambda x: [stage(*x) for stage in boxes]
            )
        ]
        if self.keypoint_head is not None:
            pooled = [(detections, channels, *(self.keypoint_pooler.output_size,) * 2)]
            name = f"roi_heads.keypoint_head ({detections} detections)"
            parts.append(MeasuredPart(name, self.keypoint_head, pooled, lambda x: self.keypoint_head(*x)))
        if self.mask_pooler is None and self.mask_head is not None:
            parts += self.mask_head.costs(channels, detections)
        elif self.mask_head is not None:
            pooled = [(detections, channels, *(self.mask_pooler.output_size,) * 2)]
            name = f"roi_heads.mask_head ({detections} detections)"
            parts.append(MeasuredPart(name, self.mask_head, pooled, lambda x: self.mask_head(*x)))
        return parts

    @torch.no_grad()
    def sample_proposals(
        self, proposals: Sequence[torch.Tensor], truth: Sequence[Mapping[str, torch.Tensor]]
    ) -> list[dict[str, Any]]:
        """Label each image's proposals (p, 4) and draw those the losses are computed on.

        Returns:
            for each image: `boxes` (s, 4), `classes` (s,) with K for background, `truth` (s, 4) the matched boxes,
            `instances` (s,) the matched instances' numbers, `levels` (s,) the maps they are pooled from; all of them
            begin with the `positives` (a number) that are not background. `host` has boxes, instances and levels on the
            host: all that it has to know of them, asked for at once.
        """
        results, counts = [], []
        for boxes, instances in zip(proposals, truth):
            gt_boxes, gt_classes = instances["gt_boxes"].to(boxes), instances["gt_classes"].to(boxes.device)
            if self.append_truth:
                boxes = torch.cat([boxes, gt_boxes])
            index, classes, matched = self._label(
                boxes, gt_boxes, gt_classes, thresholds=self.iou_thresholds, labels=self.iou_labels
            )
            at, filled = sample(
                classes[None], self.batch_size_per_image, self.positive_fraction, background=self.num_classes
            )
            counts += [filled.sum(), (filled[0] & (classes[at[0]] < self.num_classes)).sum()]
            at = at[0][true_indices_first(filled[0])]
            boxes = boxes[at]
            results.append({"boxes": boxes, "classes": classes[at], "truth": matched[at], "instances": index[at],
                            "levels": self.box_pooler.levels(boxes)})  # fmt: skip
        # One look at the device for all images, and for all that is asked of them later.
        known = {name: torch.cat([r[name] for r in results]) for name in ("instances", "levels")}
        numbers = torch.cat([torch.stack(counts), *known.values()]).cpu()
        asked = self.mask_head is not None or self.keypoint_head is not None
        host_boxes = torch.cat([r["boxes"] for r in results]).cpu() if asked else None
        drawn = [len(r["boxes"]) for r in results]
        numbers, instances, levels = numbers.split([len(counts), sum(drawn), sum(drawn)])
        host = {"instances": instances.split(drawn), "levels": levels.split(drawn)}
        if host_boxes is not None:
            host["boxes"] = host_boxes.split(drawn)
        for row, (filled, positives) in enumerate(numbers.view(-1, 2).tolist()):
            results[row] = {name: value[:filled] for name, value in results[row].items()}
            results[row]["positives"] = positives
            results[row]["host"] = {name: parts[row][:filled] for name, parts in host.items()}
        return results

    def _label(
        self,
        boxes: torch.Tensor,
        gt_boxes: torch.Tensor,
        gt_classes: torch.Tensor,
        *,
        thresholds: Sequence[float],
        labels: Sequence[int] = (0, 1),
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of boxes (n, 4) of an image the matched instances' numbers (n,), the classes (n,), K for background and -1
        for what is ignored, and the matched boxes (n, 4), zeros where there is no object."""
        index, label = match(gt_boxes, boxes, thresholds=thresholds, labels=labels, allow_low_quality=False)
        if not len(gt_boxes):
            return index, torch.full_like(index, self.num_classes), torch.zeros_like(boxes)
        classes = torch.where(label == 1, gt_classes[index], self.num_classes)
        return index, torch.where(label == -1, label.long(), classes), gt_boxes[index]

    def losses(
        self,
        maps: Sequence[torch.Tensor],
        proposals: Sequence[torch.Tensor],
        truth: Sequence[Mapping[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """Losses of all heads.

        Args:
            maps: (N, C, H, W) of each level.
            proposals: (p, 4) of each image.
            truth: `gt_boxes`, `gt_classes`, `image_size` (height, width) and, with a mask head, `gt_masks`, with a
                keypoint head `gt_keypoints` (g, K, 3), of each image.
        """
        sampled = self.sample_proposals(proposals, truth)
        losses = self._box_losses(maps, sampled, truth)
        if self.mask_head is not None:
            losses.update(self._mask_loss(maps, sampled, truth))
        if self.keypoint_head is not None:
            losses.update(self._keypoint_loss(maps, sampled, truth))
        return losses

    def _box_losses(
        self,
        maps: Sequence[torch.Tensor],
        sampled: Sequence[Mapping[str, Any]],
        truth: Sequence[Mapping[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """Losses of classes and boxes, on what `sample_proposals` drew."""
        boxes = [s["boxes"] for s in sampled]
        scores, deltas = self._predict(maps, boxes, self._known_levels(maps, sampled))
        classes = torch.cat([s["classes"] for s in sampled])
        losses = self.box_predictor.losses(
            scores, deltas, torch.cat(boxes), classes, torch.cat([s["truth"] for s in sampled])
        )
        if self.train_on_predicted_boxes:
            self._replace_boxes(sampled, self.box_predictor.boxes_of_classes(deltas, torch.cat(boxes), classes))
        return losses

    def _replace_boxes(self, sampled: Sequence[dict[str, Any]], boxes: torch.Tensor) -> None:
        """Put other boxes, those of all images one after another, in the place of what `sample_proposals` drew."""
        counts = [len(s["boxes"]) for s in sampled]
        levels = self.box_pooler.levels(boxes)
        parts = (values.split(counts) for values in (boxes, levels, boxes.cpu(), levels.cpu()))
        for s, own, of_map, host_own, host_map in zip(sampled, *parts):
            s.update(boxes=own, levels=of_map, host={**s["host"], "boxes": host_own, "levels": host_map})

    def _known_levels(
        self, maps: Sequence[torch.Tensor], sampled: Sequence[Mapping[str, Any]], chosen: Sequence[Any] | None = None
    ) -> Levels | None:
        """Of sampled boxes, or those of each image that are `chosen` (the device's index and the host's), where a
        device counts them. Both heads' poolers read the same maps."""
        if not self.box_pooler.asks_device(maps):
            return None
        pairs = [(s["levels"], s["host"]["levels"]) for s in sampled]
        if chosen is not None:
            pairs = [(one[at], other[there]) for (one, other), (at, there) in zip(pairs, chosen)]
        counts = np.bincount(torch.cat([other for _, other in pairs]).numpy(), minlength=len(maps)).tolist()
        return Levels(torch.cat([one for one, _ in pairs]), counts)

    def _predict(
        self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], levels: Levels | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and deltas of all boxes."""
        features = self.box_head(in_type_of(self.box_head, self.box_pooler(maps, boxes, levels)))
        return self.box_predictor(in_type_of(self.box_predictor, features))

    def _mask_loss(
        self,
        maps: Sequence[torch.Tensor],
        sampled: Sequence[Mapping[str, Any]],
        truth: Sequence[Mapping[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        chosen = self._with_masks(sampled, truth)
        boxes = [s["boxes"][at] for s, (at, _) in zip(sampled, chosen)]
        if self.mask_pooler is None:
            classes = torch.cat([s["classes"][at] for s, (at, _) in zip(sampled, chosen)])
            host = [s["host"]["instances"][there] for s, (_, there) in zip(sampled, chosen)]
            return self.mask_head.losses(maps, boxes, classes, list(zip(truth, host)))
        # Queued before polygons are drawn, so that a device has work meanwhile.
        pooled = self.mask_pooler(maps, boxes, self._known_levels(maps, sampled, chosen))
        return self._mask_loss_of(pooled, sampled, truth, chosen)

    def _with_masks(
        self, sampled: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, torch.Tensor]]
    ) -> list[tuple[Any, Any]]:
        """The positive boxes of each image whose object has a mask, as the device and the host index with."""
        chosen = []
        for s, instances in zip(sampled, truth):
            at: Any = slice(s["positives"])
            masked = instances_with_mask(instances["gt_masks"], len(instances["gt_classes"])).cpu()
            if not masked.all():  # a box without a mask has nothing to say of one
                at = masked[s["host"]["instances"][at]].nonzero()[:, 0]
            chosen.append((at if isinstance(at, slice) else at.to(s["boxes"].device, non_blocking=True), at))
        return chosen

    def _mask_loss_of(
        self,
        pooled: torch.Tensor,
        sampled: Sequence[Mapping[str, Any]],
        truth: Sequence[Mapping[str, torch.Tensor]],
        chosen: Sequence[tuple[Any, Any]],
    ) -> dict[str, torch.Tensor]:
        """The mask loss of chosen boxes, of which `pooled` (n, C, R, R) is what the mask head reads."""
        boxes, classes, instances = (
            [s[key][at] for s, (at, _) in zip(sampled, chosen)] for key in ("boxes", "classes", "instances")
        )
        side = 2 * pooled.shape[-1]
        targets = [
            crop_masks(
                t["gt_masks"], of, shown, side, on_host=(s["host"]["instances"][there], s["host"]["boxes"][there])
            )
            for s, t, of, shown, (_, there) in zip(sampled, truth, instances, boxes, chosen)
        ]
        return self.mask_head.loss(pooled, torch.cat(classes), torch.cat(targets))

    def _keypoint_loss(
        self,
        maps: Sequence[torch.Tensor],
        sampled: Sequence[Mapping[str, Any]],
        truth: Sequence[Mapping[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """Of the positive boxes with a labelled keypoint inside. All that decides which is known to the host."""
        boxes, chosen, cells, labelled = [], [], [], []
        side = self.keypoint_head.scale * self.keypoint_pooler.output_size
        for s, instances in zip(sampled, truth):
            host = {name: values[: s["positives"]] for name, values in s["host"].items()}
            keypoints = instances["gt_keypoints"].cpu()[host["instances"]].to(host["boxes"].dtype)
            there = labelled_inside(keypoints, host["boxes"]).any(1).nonzero()[:, 0]
            at = there.to(s["boxes"].device, non_blocking=True)
            boxes.append(s["boxes"][at])
            chosen.append((at, there))
            of_image = heatmap_cells(keypoints[there], host["boxes"][there], side)
            cells.append(of_image[0])
            labelled.append(of_image[1])
        pooled = self.keypoint_pooler(maps, boxes, self._known_levels(maps, sampled, chosen))
        labelled = torch.cat(labelled).flatten().nonzero()[:, 0]
        cells = torch.cat(cells).flatten()[labelled]
        device = pooled.device
        return self.keypoint_head.loss(
            pooled, cells.to(device, non_blocking=True), labelled.to(device, non_blocking=True), len(truth)
        )

    def detect(
        self,
        maps: Sequence[torch.Tensor],
        proposals: Sequence[torch.Tensor],
        image_sizes: Sequence[tuple[int, int]],
        *,
        masks: bool = True,
    ) -> list[dict[str, torch.Tensor]]:
        """Detections of each image: `pred_boxes` (m, 4), `scores` (m,), `pred_classes` (m,); with a mask head and
        where `masks` are wanted, `box_masks` (m, M, M) probabilities within the boxes; with a keypoint head
        `pred_keypoints` (m, K, 3): x, y px and score."""
        detections = self._detect_boxes(maps, proposals, image_sizes)
        if self.keypoint_head is not None:
            boxes = [d["pred_boxes"] for d in detections]
            pooled = self.keypoint_pooler(maps, boxes)
            found = heatmaps_to_keypoints(self.keypoint_head(in_type_of(self.keypoint_head, pooled)), torch.cat(boxes))
            for d, part in zip(detections, found.split([len(b) for b in boxes])):
                d["pred_keypoints"] = part
        if self.mask_head is not None and masks:
            parts = self.box_masks(maps, [d["pred_boxes"] for d in detections], [d["pred_classes"] for d in detections])
            for d, part in zip(detections, parts):
                d["box_masks"] = part
        return detections

    def _detect_boxes(
        self,
        maps: Sequence[torch.Tensor],
        proposals: Sequence[torch.Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[dict[str, torch.Tensor]]:
        """What `BoxPredictor.detect` gives."""
        scores, deltas = self._predict(maps, proposals)
        return self.box_predictor.detect(scores, deltas, proposals, image_sizes)

    def select(self, boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor) -> dict[str, torch.Tensor]:
        """See `BoxPredictor.select`."""
        return self.box_stages[-1][1].select(boxes, scores, classes)

    def box_masks(
        self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], classes: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        """Of each image's boxes (m, 4) of these classes (m,) the masks (m, M, M): probabilities within the boxes."""
        if self.mask_pooler is None:
            masks = self.mask_head.probabilities(maps, boxes, torch.cat(list(classes)))
            return masks.split([len(b) for b in boxes])
        return self._masks_of(self.mask_pooler(maps, boxes), boxes, classes)

    def _masks_of(
        self, pooled: torch.Tensor, boxes: Sequence[torch.Tensor], classes: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        """`box_masks` from what the mask head reads of all boxes."""
        logits = self.mask_head(in_type_of(self.mask_head, pooled))
        logits = self.mask_head.select_class(logits, torch.cat(list(classes)))
        masks = logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()
        return masks.split([len(b) for b in boxes])


def in_type_of(head: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Features are pooled in float32; a head prepared for inference may compute in another type."""
    return x.to(next(head.parameters()).dtype)
