"""Adds experiments/ to a wheel, as jaxformers/experiments; pyproject.toml says all else."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExperiments(build_py):
    """Copies the experiment files and their golden files beside the package's modules."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "jaxformers", "experiments")
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree("experiments", target, ignore=ignored, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithExperiments})
