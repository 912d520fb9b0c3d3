"""An imaginary instrument: wells give light in proportion to the amount of a substance."""

from pathlib import Path
from typing import Annotated, NamedTuple

import jax.numpy as jnp
import numpy as np
import typer
from flax import nnx
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Recipe
from diffbio.testing import Example
from diffbio.training import ArrayDataset


class Amounts(NamedTuple):
    """Amount in each well."""

    amounts: Float[Array, "*wells"]


class Calibration(Operator[OperatorConfig]):
    """Turns light into amounts. Reads `light` (*wells,); writes `amounts` (*wells,)."""

    def __init__(self, config: OperatorConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.factor = nnx.Param(jnp.ones(()))

    def compute(self, light: Float[Array, "*wells"]) -> Amounts:
        """Return the amount in each well."""
        return Amounts(light * self.factor[...])


def calibration_example() -> Example:
    """Return three wells."""
    light = np.array([1.0, 3.0, 0.5], np.float32)
    return Example(
        Calibration(OperatorConfig()), {"light": light}, exempt={"limit_is_hard_reference": "relaxes no hard algorithm"}
    )


def read_plate(path: Path, *, scale: float = 1.0) -> ArrayDataset:
    """Read lines of light and known amount."""
    light, known = np.loadtxt(path, dtype=np.float32, unpack=True)
    return ArrayDataset({"light": light * np.float32(scale), "known_amounts": known}, {"instrument": "luminometer"})


def write_amounts(path: Path, dataset: ArrayDataset, results: dict, *, metadata: dict) -> None:
    """Write the instrument, and one amount per line."""
    path.write_text("\n".join([metadata["instrument"], *(f"{amount:.3f}" for amount in results["amounts"])]))


def calibration_error(data: dict) -> Array:
    """Return the mean squared error of the amounts."""
    return ((data["amounts"] - data["known_amounts"]) ** 2).mean()


def calibration_recipe() -> Recipe:
    """Return a recipe with one step."""
    training = {"loss": "calibration_error", "optimizer": "sgd", "learning_rate": 0.02, "epochs": 40}
    steps = [{"operator": "Calibration", "name": "calibration"}]
    return Recipe.from_dict({"format": 1, "inputs": ["light"], "steps": steps, "training": training})


def plot_amounts(dataset: ArrayDataset, results: dict, metadata: dict) -> dict:
    """Return amounts against light."""
    if "amounts" not in results:
        return {}
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot(dataset.arrays["light"], results["amounts"], "o")
    return {"amounts": figure}


def plot_nothing(dataset: ArrayDataset, results: dict, metadata: dict) -> dict:
    """Fail, as a figure may."""
    raise ZeroDivisionError("no light at all")


def calibrate(exported: Annotated[Path, typer.Argument()], digits: int = 1) -> None:
    """Print the factor of an exported calibration."""
    typer.echo(f"the factor is {float(exported.read_text()):.{digits}f}")


def export_factor(operator: Calibration, path: Path, *, metadata: dict) -> None:
    """Write the factor as text."""
    path.write_text(str(float(operator.factor[...])))
