"""Package metadata; `pyproject.toml` holds the settings of tools only."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "kerastrain/__init__.py").read_text())[1]

setup(
    name="kerastrain",
    version=VERSION,
    description="Train, stop, survive and publish Keras models: exact resume, checked exports",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=[*find_packages(include=["kerastrain", "kerastrain.*"]), "kerastrain.models"],
    # The recipes live at the top level of the checkout and are installed with the package.
    package_dir={"kerastrain.models": "models"},
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "tensorboard>=2.20,<2.22",
        "absl-py>=2.1",
        "numpy>=1.26",
        "pyarrow>=17",
        "scikit-learn>=1.5",
        "rich>=13.7",
    ],
    entry_points={"console_scripts": ["kerastrain = kerastrain.cli.main:main"]},
)
