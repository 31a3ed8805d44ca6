"""Where the files of a run are that lie beside its model."""

from __future__ import annotations

from pathlib import Path


def plan_path(model_path: Path) -> Path:
    """Returns the file to which the plan of a model is saved."""
    return model_path.parent / f"{model_path.stem}.plan.json"


def checkpoint_path(model_path: Path) -> Path:
    """Returns the file that holds the checkpoint of a run until the run is complete."""
    return model_path.parent / f"{model_path.stem}.checkpoint"
