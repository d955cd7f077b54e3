"""Writes a whole demo into a folder: the base model, the data sets and the job that is run on them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from cutoff.demo.cache import cached_base_model, link_or_copy
from cutoff.demo.datasets import RELEARN, write_datasets
from cutoff.demo.recipe import Recipe
from cutoff.demo.world import CUTOFF_YEAR, before_cutoff, make_world

EPOCHS = 4
DEFAULT_FACTS = 160
"""Gives 216 test questions of trained facts on either side of the cutoff, and 24 of held-out ones."""

CONTROL = "control"
"""The folder of the model that never saw the later facts."""

ATTACKS = ("reworded_polite", "answer_prefix")
"""Those that get something out of so small a base model (docs/attacks.md)."""

JOB: dict[str, Any] = {
    "name": "temporal-demo",
    "cutoff": f"{CUTOFF_YEAR}-12-31",
    "dataset": {
        "retain_train": "retain/retain_train.jsonl",
        "retain_val": "retain/retain_val.jsonl",
        "unlearn_train": "unlearn/unlearn_train.jsonl",
        "unlearn_val": "unlearn/unlearn_val.jsonl",
    },
    "train": {
        "method": "sft",
        "epochs": EPOCHS,
        "batch_size": 16,
        "gradient_accumulation_steps": 1,
        "learning_rate": 3.0e-3,
        "warmup_ratio": 0.1,
        "max_seq_length": 512,
        "lora_r": 16,
        "lora_alpha": 32,
        "quantization": "none",
        "prompt_format": "chat",
        "seed": 42,
        "report_to": [],
    },
    "merge": {"dtype": "bfloat16", "verify": True, "base": "original"},
    "convert": {"quant_types": ["q4_k_m"]},
    "evaluate": {
        "targets": ["base", "merged", "gguf"],
        "max_tokens": 48,
        "limit": 500,
        "test_file": "test/test.jsonl",
        "heldout_file": "test/heldout.jsonl",
        "attacks": [],
    },
    "install": {"publisher": "local", "model_name": "temporal-demo", "require": "minimum", "replace": True},
    "resources": {"gpus": 0},
}
"""The demo's job, but for ``base_model``. The learning rate suits a model of two narrow layers, not a real one."""


def create(
    out: Path,
    *,
    facts: int,
    seed: int,
    cache: Path,
    on_progress: Callable[[str, int, int], None],
    recipe: Recipe | None = None,
    base_model: str | None = None,
    control: bool = False,
) -> Path:
    """Writes the demo world of ``facts`` facts into ``out`` and returns the path of its ``job.yaml``.

    ``out/datasets`` is the datasets root the job's paths are relative to, ``out/base`` the base model. The model is
    taken from ``cache`` if it was made before, and otherwise pretrained, which takes about a minute on two cores for
    160 facts. Calling it again replaces what is in ``out`` by the same content.

    Args:
        out: the folder to write; made if need be.
        facts: 8 to 5000, half before and half after the cutoff.
        seed: another seed gives another world.
        cache: where finished base models are kept (``demo-base/<hash>``).
        on_progress: told what is being done, steps done and steps in all.
        recipe: how the base model is made; the default knows its world for some hundreds of facts.
        base_model: what the job calls the base model; the default is ``./base``, beside job.yaml, so that the
            world can be moved. A container sees it where it is mounted.
        control: also make ``out/control``, a model pretrained alike on nothing that came after the cutoff: what a
            perfect job would come to, and how much an attack gets by guessing. The job evaluates it beside its own
            models (``evaluate.control``), attacks them all, and relearns; a container sees it beside ``base_model``.

    Raises:
        InvalidInput: ``facts`` is out of bounds.
        PretrainingError: the base model did not learn its world.
        OSError: a folder cannot be written.
    """
    world = make_world(facts, seed)
    out = out.resolve()
    write_datasets(world, out / "datasets")
    on_progress("data sets", 1, 1)
    base = out / "base"
    link_or_copy(cached_base_model(world, cache, on_progress, recipe), base)
    named = base_model or f"./{base.name}"
    if not control:
        return _write_job(out / "job.yaml", named, facts, {})
    link_or_copy(cached_base_model(before_cutoff(world), cache, on_progress, recipe), out / CONTROL)
    beside = f"{named.rstrip('/').rpartition('/')[0]}/{CONTROL}"
    return _write_job(
        out / "job.yaml", named, facts, {"control": beside, "attacks": list(ATTACKS), "relearn": {"file": RELEARN}}
    )


def _write_job(path: Path, base_model: str, facts: int, evaluate: Mapping[str, Any]) -> Path:
    job = {"name": JOB["name"], "base_model": base_model, **{key: JOB[key] for key in JOB if key != "name"}}
    job["train"] = {**JOB["train"], "epochs": epochs_for(facts)}
    job["evaluate"] = {**JOB["evaluate"], **evaluate}
    path.write_text(yaml.safe_dump(job, sort_keys=False, default_flow_style=None, width=120), encoding="utf-8")
    return path


def epochs_for(facts: int) -> int:
    """More epochs for a small world, so that it too gets as many optimizer steps as the default one."""
    return max(EPOCHS, round(EPOCHS * DEFAULT_FACTS / facts))
