"""The demo world: made-up dated facts, data sets of questions about them, and a tiny model that knows them all.

    from cutoff.demo import create
    job = create(Path("demo"), facts=160, seed=0, cache=Path.home() / ".cache/cutoff", on_progress=print)

Importing this package does not import torch; making a base model that is not cached does.
"""

from cutoff.demo.datasets import write_datasets
from cutoff.demo.folder import DEFAULT_FACTS, create
from cutoff.demo.recipe import Recipe
from cutoff.demo.world import CUTOFF_YEAR, Fact, Question, World, make_world

__all__ = [
    "CUTOFF_YEAR",
    "DEFAULT_FACTS",
    "Fact",
    "Question",
    "Recipe",
    "World",
    "create",
    "make_world",
    "write_datasets",
]
