"""Packaging. Nothing here imports torch: installing works before torch does."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "se_det" / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE
)[1]

TIMM = ["timm>=1.0.31"]
EXPORT = ["onnx", "onnxscript", "onnxruntime"]
SERVE = ["fastapi", "uvicorn", "python-multipart"]

setup(
    name="se_det",
    version=VERSION,
    description="Object detection and instance segmentation with Squeeze-and-Excitation backbones",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=["se_det", "se_det.*"]), "se_det.configs", "se_det.model_zoo"],
    # The shipped configs and weight entries live at the top of the repository and install inside the package.
    package_dir={"se_det.configs": "configs", "se_det.model_zoo": "model_zoo"},
    package_data={
        "se_det": ["py.typed", "serving/page.html", "export/runner/template/*"],
        "se_det.configs": ["*.yaml", "pretrain/*.yaml", "studies/*.yaml"],
        "se_det.model_zoo": ["*.yaml", "*.md", "*.safetensors", "classes/*.yaml"],
    },
    entry_points={"console_scripts": ["se-det = se_det.cli.main:main"]},
    install_requires=[
        "torch>=2.6",
        "torchvision",
        "numpy",
        "pillow",
        "pyyaml",
        "fvcore>=0.1.5",
        "iopath>=0.1.7",
        "pycocotools",
        "opencv-python-headless",
        "matplotlib",
        "safetensors",
        "tensorboard",
        "tqdm",
        "filelock>=3.30",  # before it a process that is forked keeps its parent's locks
        "psutil",
    ],
    extras_require={
        "test": ["pytest>=9", "pytest-xdist", "ruff==0.17.5", "hypothesis", *TIMM, *EXPORT, *SERVE],
        "timm": TIMM,
        "export": EXPORT,
        "cloud": ["fsspec[http,s3,gs]", "pyarrow"],
        "wandb": ["wandb"],
        "mlflow": ["mlflow"],
        "hub": ["huggingface_hub>=0.30"],
        "supervision": ["supervision"],
        "fiftyone": ["fiftyone"],
        "serve": SERVE,
        "cityscapes": ["cityscapesscripts"],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Operating System :: POSIX :: Linux",
        "Operating System :: MacOS",
        "Operating System :: Microsoft :: Windows",
    ],
)
