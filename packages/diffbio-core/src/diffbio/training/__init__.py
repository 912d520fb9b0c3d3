"""Training of pipelines: one loop, compiled once, for every domain."""

from diffbio.training.anchor import anchor_penalty
from diffbio.training.data import ArrayDataset, Dataset, Split, Subset, split
from diffbio.training.evaluation import evaluate
from diffbio.training.history import History
from diffbio.training.loop import FitResult, fit
from diffbio.training.plan import TrainingPlan
from diffbio.training.runs import Run, data_options, plan_of, prepare
from diffbio.training.schedules import temperature_schedule
from diffbio.training.selection import AnchorSelection, Candidate, select_anchor
from diffbio.training.sensitivity import StageGradient, stage_gradients
from diffbio.training.step import learning_stages
from diffbio.training.transform import transform

__all__ = [
    "AnchorSelection",
    "ArrayDataset",
    "Candidate",
    "Dataset",
    "FitResult",
    "History",
    "Run",
    "Split",
    "StageGradient",
    "Subset",
    "TrainingPlan",
    "anchor_penalty",
    "data_options",
    "evaluate",
    "fit",
    "learning_stages",
    "plan_of",
    "prepare",
    "select_anchor",
    "split",
    "stage_gradients",
    "temperature_schedule",
    "transform",
]
