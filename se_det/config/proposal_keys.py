"""Detectron2's keys of box proposals that are read from files, with their defaults."""

from __future__ import annotations

from fvcore.common.config import CfgNode


def add_proposal_keys(cfg: CfgNode) -> None:
    """Put them into MODEL and DATASETS."""
    cfg.MODEL.LOAD_PROPOSALS = False  # with MODEL.PROPOSAL_GENERATOR.NAME PrecomputedProposals: Fast R-CNN
    # One file for each data set of DATASETS.TRAIN or TEST (or for TRAIN_JSON, VAL_JSON), see `data/proposals.py`.
    cfg.DATASETS.PROPOSAL_FILES_TRAIN = ()
    cfg.DATASETS.PROPOSAL_FILES_TEST = ()
    cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN = 2000  # of each image the best
    cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST = 1000
