"""What training learned, as the files of the field: matrices, models, tables, for tools that know nothing of diffbio.

Which operators have such a file, and how it is written, is declared by plugins.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from diffbio.core.operator import Operator
from diffbio.core.pipeline import Pipeline
from diffbio.core.registry import PluginWarning, registry


def export(pipeline: Pipeline, directory: str | Path, *, metadata: Mapping[str, Any] | None = None) -> list[Path]:
    """Write a file for each step whose operator has a form that the field's tools read.

    Args:
        pipeline: The pipeline; steps of a pipeline within it are named `outer.inner`.
        directory: Where the files go, each with the name of its step; it is made if there is anything to write.
        metadata: Facts about the data that the pipeline was trained on, as a dataset has them.

    Returns:
        The files. One that can't be written is left out with a `PluginWarning`, for the pipeline itself is kept apart.
    """
    directory, written = Path(directory), []
    for name, step in _steps(pipeline):
        for form, found in registry().exporters.items():
            if found.declaration.operator != step.title:
                continue
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / f"{name}{found.declaration.suffix}"
            try:
                registry().load("exporters", form)(step, path, metadata=dict(metadata or {}))
            except Exception as error:  # noqa: BLE001 - one plugin's file takes no other down
                said = f"no {path.name} by {form!r} of {found.distribution} {found.version}"
                warnings.warn(f"{said}: {type(error).__name__}: {error}", PluginWarning, stacklevel=2)
            else:
                written.append(path)
    return written


def scalar_parameters(pipeline: Pipeline) -> dict[str, float]:
    """Return every parameter that is a single number, as `step.parameter`: what fits into the header of a file."""
    return {
        f"{name}.{'.'.join(map(str, path))}": leaf[...].item()
        for name, step in _steps(pipeline)
        for path, leaf in nnx.to_flat_state(nnx.state(step, nnx.Param))
        if leaf[...].size == 1
    }


def _steps(pipeline: Pipeline) -> Iterator[tuple[str, Operator[Any]]]:
    """Yield name and operator of each step, those of pipelines within too."""
    for name, step in zip(pipeline.names, pipeline.steps, strict=True):
        if isinstance(step, Pipeline):
            yield from ((f"{name}.{inner}", operator) for inner, operator in _steps(step))
        else:
            yield name, step
