"""Package metadata; `pyproject.toml` holds the settings of tools only."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
INIT = (ROOT / "kerastrain/__init__.py").read_text(encoding="utf-8")
README = ROOT / "README.md"

# Lower bounds are versions that the tests ran with on Python 3.10, upper bounds
# end above the newest that they ran with.
DEPENDENCIES = [
    "tensorflow>=2.21,<2.22",
    # Keras 3.13 and later need Python 3.11.
    "keras>=3.15,<3.16; python_version>='3.11'",
    "keras>=3.12,<3.13; python_version<'3.11'",
    "tensorboard>=2.20,<2.22",
    "absl-py>=2.1,<3",
    "numpy>=1.26.4,<2.6",
    "pyarrow>=17,<27",
    "scikit-learn>=1.5,<1.10",
    "rich>=13.7,<16",
]
PLOT = ["matplotlib>=3.8,<4"]
SERVE = [
    "starlette>=0.40,<2",
    "uvicorn>=0.30,<1",
    "httptools>=0.6.4,<1",
    "uvloop>=0.21,<1",
    "orjson>=3.10,<4",
    "grpcio>=1.74,<2",
    "tensorflow-serving-api>=2.21,<2.22",
]
FORMATS = [
    "ai-edge-litert>=2,<3",
    "onnx>=1.17,<2",
    "onnxruntime>=1.20,<2",
    "tf2onnx>=1.16.1,<2",
    "openvino>=2025.0,<2027",
]
EXTRAS = {
    "plot": PLOT,
    "serve": SERVE,
    # Of `kerastrain export`: LiteRT's own runtime, ONNX, OpenVINO.
    "formats": FORMATS,
    "test": [
        *PLOT,
        *SERVE,
        *FORMATS,
        # Independent clients of the server.
        "httpx>=0.27,<1",
        "ovmsclient>=2023.1",
        "prometheus-client>=0.20,<1",
        "playwright>=1.50,<2",
        "pytest>=8.3,<10",
        "pytest-timeout>=2.3.1,<3",
        "pytest-xdist>=3.6,<4",
        "hypothesis>=6.100,<7",
        "ruff>=0.17.5,<0.18",
        "mypy>=2.4,<3",
        # With this the test of the wheel builds it without a network.
        "setuptools>=77",
    ],
    # What the benchmarks compare with, model.fit and a bare XLA loop, comes with TensorFlow.
    "bench": [],
}

setup(
    name="kerastrain",
    version=re.search(r'__version__ = "(.+)"', INIT)[1],
    description="Train, stop, survive and publish Keras models: exact resume, checked exports",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="keras tensorflow training early-stopping checkpoint resume savedmodel",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Software Development :: Libraries :: Python Modules",
        "Typing :: Typed",
    ],
    python_requires=">=3.10,<3.14",
    package_data={
        "kerastrain": ["py.typed"],
        "kerastrain.serving.page": ["*.html", "*.css", "*.js", "*.svg"],
    },
    packages=[*find_packages(include=["kerastrain", "kerastrain.*"]), "kerastrain.models"],
    # The recipes live at the top level of the checkout and are installed with the package.
    package_dir={"kerastrain.models": "models"},
    install_requires=DEPENDENCIES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["kerastrain = kerastrain.cli.main:main"]},
)
