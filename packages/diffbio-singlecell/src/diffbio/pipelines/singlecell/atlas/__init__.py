"""`diffbio atlas`: every family of operators beside the tool of the field, on the user's own cells.

A family is a function of the cells that yields `Comparison`s; `families.FAMILIES` lists them with the tools that they
need. `command.atlas` is the command, and `compare` one family of it from Python.
"""

from diffbio.pipelines.singlecell.atlas.cells import Atlas, read_cells
from diffbio.pipelines.singlecell.atlas.families import FAMILIES, Family, compare
from diffbio.pipelines.singlecell.atlas.rows import Bar, Comparison, NotRun

__all__ = ["FAMILIES", "Atlas", "Bar", "Comparison", "Family", "NotRun", "compare", "read_cells"]
