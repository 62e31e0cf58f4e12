"""Metadata, dependencies and the console script; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

extras = {
    "onnx": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.1"],
    "nvidia": ["nvidia-ml-py>=12"],
    "timm": ["timm>=1.0"],
    "demo": ["scikit-learn>=1.3"],
}
extras["dev"] = [
    "pytest>=8",
    "pytest-xdist>=3",
    "hypothesis>=6",
    "ruff>=0.6",
    "mypy>=1.11",
    *extras["onnx"],
    *extras["demo"],
]

setup(
    name="tailprune",
    version="0.1.0",
    description="Prune CNNs onto the steps of the GPU's latency staircase: faster at the same importance, or better at the same latency.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["tailprune", "tailprune.*"]),
    package_data={"tailprune": ["py.typed", "data/*", "reports/*.html"]},
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "torch-pruning==1.6.1",
        "numpy>=1.26",
        "scipy>=1.11",
        "safetensors>=0.4",
        "typer>=0.12.4",
        "rich>=13",
        "matplotlib>=3.8",
        "jinja2>=3.1",
    ],
    extras_require=extras,
    entry_points={"console_scripts": ["tailprune = tailprune.cli.main:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
