"""What an imaginary distribution brings: one of each kind that `diffbio.core.hookspecs` has."""

from diffbio.core.hookspecs import (
    Declaration,
    ExporterDeclaration,
    OperatorDeclaration,
    Plugin,
    ReaderDeclaration,
    WriterDeclaration,
    hookimpl,
)


@hookimpl
def diffbio_plugin() -> Plugin:
    """Return the declarations."""
    return Plugin(
        api=1,
        operators=(
            OperatorDeclaration(
                name="Calibration",
                target="luminometer:Calibration",
                summary="Turns light into amounts.",
                reads=("light",),
                writes=("amounts",),
                example="luminometer:calibration_example",
                objective="calibration_error",
            ),
        ),
        readers=(
            ReaderDeclaration(
                name="plates", target="luminometer:read_plate", summary="Plates of wells.", suffixes=(".plate",)
            ),
        ),
        writers=(
            WriterDeclaration(
                name="amounts",
                target="luminometer:write_amounts",
                summary="Amounts of each well.",
                suffixes=(".amounts",),
                reads=("amounts",),
            ),
        ),
        losses=(
            Declaration(
                name="calibration_error", target="luminometer:calibration_error", summary="Mean squared error."
            ),
        ),
        recipes=(
            Declaration(
                name="calibration", target="luminometer:calibration_recipe", summary="Learns the light per amount."
            ),
        ),
        plots=(
            Declaration(name="amounts", target="luminometer:plot_amounts", summary="Amounts against light."),
            Declaration(name="failing", target="luminometer:plot_nothing", summary="A figure that can't be drawn."),
        ),
        commands=(
            Declaration(name="calibrate", target="luminometer:calibrate", summary="Prints what was learned."),
            Declaration(name="show", target="luminometer:calibrate", summary="A name that diffbio itself has."),
        ),
        exporters=(
            ExporterDeclaration(
                name="calibration factors",
                target="luminometer:export_factor",
                summary="The factor as text.",
                operator="Calibration",
                suffix=".factor",
            ),
        ),
    )
