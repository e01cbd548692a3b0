"""`se-det doctor`: versions, devices, folders, and what is missing and what it is for."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ..system import cpu_fields, cpu_flags, usable_cpus

REQUIRED = {
    "torch": "everything", "torchvision": "NMS and RoIAlign", "numpy": "everything", "pillow": "reading images",
    "fvcore": "configs", "pycocotools": "masks", "opencv": "decoding and drawing", "matplotlib": "plots",
    "safetensors": "safetensors weights", "tensorboard": "training curves", "tqdm": "progress bars",
    "filelock": "output folders and downloads of one process at a time", "psutil": "memory, on Windows",
}  # fmt: skip
OPTIONAL = {
    "detectron2": "--engine detectron2", "timm": "timm/<name> backbones", "onnx": "ONNX export",
    "onnxscript": "ONNX export",
    "onnxruntime": "checking an ONNX export",
    "fsspec": "predict: URLs of collections", "pyarrow": "predict --format parquet",
    "huggingface_hub": "hf:// weights and push", "wandb": "the writer wandb", "mlflow": "the writer mlflow",
    "supervision": "to_supervision()", "fiftyone": "to_fiftyone()",
    "fastapi": "se-det serve", "uvicorn": "se-det serve", "python-multipart": "se-det serve",
}  # fmt: skip
OPENCVS = ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
# Linux's names of what makes CPUs compute in bfloat16, and of the vectors below it.
CPU_FLAGS = {"avx2": "AVX2", "avx512f": "AVX512", "avx512_bf16": "AVX512 bf16", "amx_bf16": "AMX bf16", "bf16": "bf16"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> int:
    """Print what there is; missing things are reported and are no failure."""
    lines, missing = [], []
    _versions(lines, missing)
    _devices(lines)
    _compiler(lines, missing)
    _data(lines, missing)
    _cache(lines, missing)
    for name, value in lines:
        print(f"{name + ':':22}{value}")
    print("\nMissing:" if missing else "\nNothing is missing.")
    for what in missing:
        print(f"  {what}")
    return 0


def version_of(package: str) -> str | None:
    """The installed version; OpenCV has several packages."""
    for name in OPENCVS if package == "opencv" else (package,):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _versions(lines: list[tuple[str, str]], missing: list[str]) -> None:
    from .. import __version__

    lines.append(("se_det", f"{__version__} in {Path(__file__).resolve().parents[1]}"))
    lines.append(("Python", f"{platform.python_version()} ({sys.executable})"))
    lines.append(("system", platform.platform()))
    for packages, optional in ((REQUIRED, False), (OPTIONAL, True)):
        for package, purpose in packages.items():
            version = version_of(package)
            lines.append((package, version or "not installed"))
            if version is None:
                how = "optional" if optional else "required: pip install se_det's requirements again"
                missing.append(f"{package}, for {purpose} ({how})")


def _devices(lines: list[tuple[str, str]]) -> None:
    lines.append(("CPUs", f"{usable_cpus()}; {cpu_instructions(cpu_fields())}"))
    try:
        import torch
    except Exception as error:  # a broken installation is what this command is called for
        lines.append(("GPUs", f"unknown: torch cannot be imported ({error})"))
        return
    lines.append(("torch threads", str(torch.get_num_threads())))
    lines.append(("CUDA of torch", torch.version.cuda or "none (a CPU build)"))
    from ..device import count_devices

    lines.extend((f"{kind} devices", str(count)) for kind in ("mps", "xpu") if (count := count_devices(kind)))
    if not torch.cuda.is_available():
        lines.append(("GPUs", "none: MODEL.DEVICE cuda becomes cpu"))
        return
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        lines.append((f"GPU {number}", f"{facts.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, "
                      f"bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}"))  # fmt: skip


def _compiler(lines: list[tuple[str, str]], missing: list[str]) -> None:
    compiler = shutil.which(os.environ.get("CXX") or "g++")
    lines.append(("C++ compiler", compiler or "none"))
    if compiler is None:
        missing.append("a C++ compiler (g++, or what CXX names), for TEST.COMPILE (optional)")


def cpu_instructions(fields: Mapping[str, str]) -> str:
    """Which of `CPU_FLAGS` a CPU has, by what the system tells of it."""
    flags = cpu_flags(fields)
    if not flags:
        return "this system does not tell the CPU's instructions"
    found = [name for flag, name in CPU_FLAGS.items() if flag in flags]
    return ", ".join(found) or f"none of {', '.join(CPU_FLAGS.values())}"


def _data(lines: list[tuple[str, str]], missing: list[str]) -> None:
    from ..data.catalog import DATASETS, DEFAULT_ROOT, ROOT_VARIABLE, dataset_paths

    root = os.environ.get(ROOT_VARIABLE)
    folder = Path(root or DEFAULT_ROOT).expanduser().absolute()
    there = "" if folder.is_dir() else ", which is not there"
    lines.append(("data sets", f"{folder} ({ROOT_VARIABLE}{'' if root else ' is not set'}){there}"))
    found = [name for name in DATASETS if all(path.exists() for path in dataset_paths(name))]
    lines.append(("named data sets", ", ".join(found) or "none"))
    if not found:
        missing.append(f"named data sets under {folder}, which configs name (their layout: datasets/README.md)")
    lines.append(("free disk here", _free(Path.cwd())))


def _cache(lines: list[tuple[str, str]], missing: list[str]) -> None:
    from ..weights.download import CACHE_VARIABLE, cache_folder

    folder = cache_folder().absolute()
    above = next(path for path in (folder, *folder.parents) if path.exists())
    writable = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    lines.append(("cache", f"{folder} ({_free(above)} free{'' if folder.is_dir() else ', made when needed'})"))
    if not writable:
        missing.append(f"a writable cache, for downloaded weights: set {CACHE_VARIABLE} to a folder you may write")


def _free(path: Path) -> str:
    try:
        return f"{shutil.disk_usage(path).free / 2**30:.1f} GiB"
    except OSError as error:
        return f"unknown ({error.strerror})"
