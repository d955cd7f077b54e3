"""Each training objective on the demo world: what is kept, what is forgotten, and how long the training takes.

    make bench-objectives                                   # RECIPES in the worlds of seeds 1 and 11
    PYTHONPATH=. .venv/bin/python -m tests.benchmarks.objectives --seeds 1 --only sft npo --markdown table.md
    ... --seeds 1 --set validation --recipe 'rate={method: npo, epochs: 4, learning_rate: 1.0e-3}'   # a search

Every recipe is a job of its own through the whole product (training, merging, q4_k_m, evaluation of both), all in one
running system, one after the other. `ours` is the share of questions that the q4_k_m GGUF answered as wanted: kept
(the reference answer is said) on the retain side, forgotten (the true answer is not said) on the unlearn side, as
many questions a side. `baseline` is that of the document's recipe, sft, in the same world. The rest is in percent,
with 95 % Wilson intervals. `taught` are the unlearn questions whose answer is, word for word, a refusal of the
training data: "I'm sorryI'm sorry" counts as a refusal, but not as a taught one. `led` are the unlearn questions of the
test file whose truth the merged model tells when its answer is begun for it ("It was in"): what a refusal covers.

The demo's true answers are bare names; its base model says sentences. An objective that unlearns true answers is
given those sentences (`SAID`), but for the recipes named "bare". Settings were searched in world 1 on the validation
questions; docs/log.md tells what was tried.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cutoff.artifacts import Roots
from cutoff.client import Client
from cutoff.client.local import LocalSystem
from cutoff.datasets import load_template
from cutoff.demo import DEFAULT_FACTS, create
from cutoff.demo.phrases import ANSWERS, REFUSALS
from cutoff.evaluator.grading import gives_away
from cutoff.evaluator.metrics import Score, score
from cutoff.spec import JobSpec, parse_job
from cutoff.telemetry import before_import, configure_logs, quiet_libraries
from cutoff.v1 import job_pb2

RATE = 1e-3
NPO = {"method": "npo", "learning_rate": RATE, "beta": 0.5}
SIMNPO = {"method": "simnpo", "learning_rate": RATE, "forget_weight": 1.0}
DPO = {"method": "dpo", "learning_rate": RATE}
SHORT_SFT = {"method": "sft", "epochs": 3, "learning_rate": 3e-3}
RECIPES: dict[str, dict[str, Any]] = {
    "sft": {**SHORT_SFT, "epochs": 4},
    "grad_ascent": {"method": "grad_ascent", "epochs": 1, "learning_rate": 6e-4},
    "grad_diff": {"method": "grad_diff", "epochs": 4, "learning_rate": RATE, "retain_weight": 10},
    "npo": {**NPO, "epochs": 4},
    "npo kl": {**NPO, "epochs": 4, "retain_loss": "kl"},
    "simnpo": {**SIMNPO, "epochs": 4},
    "dpo": {**DPO, "epochs": 4},
    "sft then npo": {**SHORT_SFT, "then": [{**NPO, "epochs": 1}]},
    "sft then simnpo": {**SHORT_SFT, "then": [{**SIMNPO, "epochs": 1}]},
    "sft then dpo": {**SHORT_SFT, "then": [{**DPO, "epochs": 1}]},
    "npo bare": {**NPO, "epochs": 4},
    "dpo bare": {**DPO, "epochs": 4},
}
"""The `train` sections that are compared, by their names; everything else is as in the demo's job."""

LED_TOKENS = 12
"""Of an answer that was begun; the longest name has fewer."""

TARGETS = ("merged", "q4_k_m")
BARE, SAID = "datasets", "said"
"""Folders of a world's data: with true answers as the demo writes them, and as the base model says them."""
_MACHINE = f"{os.cpu_count()} cores, {platform.machine()}, no GPU used"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one recipe came to in one world."""

    recipe: str
    seed: int
    evaluations: Mapping[tuple[str, str], job_pb2.Evaluation]
    """By target and question set."""
    taught: Mapping[tuple[str, str], int]
    """Unlearn questions answered by a refusal of the training data, of as many as unlearn_refused counts."""
    led: Score
    """Unlearn questions whose truth the merged model tells when its answer is begun for it."""
    training_seconds: float
    eval_loss: float
    missed: Sequence[str]
    """What keeps it from being installed with install.require: minimum."""

    def as_wanted(self, question_set: str) -> float:
        """The share of questions that the q4_k_m GGUF answered as wanted."""
        found = self.evaluations["q4_k_m", question_set]
        kept, forgotten = found.retain_correct, found.unlearn_forgotten
        return (kept.count + forgotten.count) / (kept.total + forgotten.total)

    def percents(self, target: str, question_set: str) -> dict[str, str]:
        """Kept, forgotten and refused, as people read them."""
        found = self.evaluations[target, question_set]
        return {
            "kept": percent(found.retain_correct),
            "forgotten": percent(found.unlearn_forgotten),
            "refused": percent(found.unlearn_refused),
            "taught": f"{100 * self.taught[target, question_set] / found.unlearn_refused.total:.1f}",
        }


@dataclass(frozen=True, slots=True)
class Failed:
    """A recipe whose job did not succeed."""

    recipe: str
    seed: int
    reason: str


def percent(score: job_pb2.Score | Score) -> str:
    """A share with its interval: 97.2 [94-99]."""
    return f"{100 * score.count / score.total:.1f} [{100 * score.low:.0f}-{100 * score.high:.0f}]"


def write_world(folder: Path, seed: int, cache: Path) -> None:
    """Writes a world twice: as the demo does, and with true answers as its base model says them."""
    create(folder, facts=DEFAULT_FACTS, seed=seed, cache=cache, on_progress=lambda *_: None)
    shutil.copytree(folder / BARE, folder / SAID)
    for file in (folder / SAID / "unlearn").iterdir():
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for metadata in (line["metadata"] for line in lines):
            metadata["original_answer"] = ANSWERS[metadata["relation"]].format(answer=metadata["original_answer"])
        file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def job_of(roots: Roots, name: str, recipe: Mapping[str, Any], seed: int) -> JobSpec:
    """The demo's job with another recipe."""
    world = roots.datasets / str(seed)
    job = yaml.safe_load((world / "job.yaml").read_text(encoding="utf-8"))
    job["base_model"] = str(world / "base")
    data = f"{seed}/{BARE if name.endswith('bare') else SAID}"
    job["name"] = name.replace(" ", "-")
    job["dataset"] = {field: f"{data}/{file}" for field, file in job["dataset"].items()}
    job["train"] |= recipe
    for file in ("test_file", "heldout_file"):
        job["evaluate"][file] = f"{data}/{job['evaluate'][file]}"
    job["evaluate"]["targets"] = ["merged", "gguf"]
    job["install"]["model_name"] = f"world-{seed}"
    return parse_job(job, source=name)


def measure(system: LocalSystem, roots: Roots, name: str, recipe: Mapping[str, Any], seed: int) -> Measured | Failed:
    """Runs one recipe's job in one world."""
    with Client(system.address) as client:
        job = client.submit(job_of(roots, name, recipe, seed)).name
        for _ in client.watch(job):
            pass
        ended = client.get(job)
    if ended.state != job_pb2.Job.STATE_SUCCEEDED:
        return Failed(name, seed, ended.failure.message)
    folder = roots.artifacts / ended.name
    results = json.loads((folder / "train/1/train_results.json").read_text(encoding="utf-8"))
    return Measured(
        recipe=name,
        seed=seed,
        evaluations={(each.target, each.question_set): each for each in ended.result.evaluations},
        taught=taught_refusals(folder),
        led=led(folder / "merge/1/merged", roots.datasets / str(seed) / BARE / "test/test.jsonl"),
        training_seconds=results["seconds"],
        eval_loss=results["eval_loss"],
        missed=list(ended.result.missed),
    )


def taught_refusals(job: Path) -> Counter[tuple[str, str]]:
    """How many unlearn questions were answered by a refusal of the training data, by target and question set."""
    files = [job / f"evaluate-{target}" / "1" / "examples.jsonl" for target in TARGETS]
    lines = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    refused = [line for line in lines if line["side"] == "unlearn" and line["got"].strip() in REFUSALS]
    return Counter((line["target"], line["set"]) for line in refused)


def led(merged: Path, questions: Path) -> Score:
    """How many unlearn questions a model answers truly when it has to go on from the answer's first words."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    template = load_template(merged)
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    lines = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    unlearn = [line for line in lines if line["metadata"]["dataset_type"] == "unlearn"]
    told = 0
    for line in unlearn:
        lead, _, _ = ANSWERS[line["metadata"]["relation"]].partition(" {")
        begun = template.prompt(line["instruction"]) + lead
        ids = template.tokenizer(begun, add_special_tokens=False, return_tensors="pt").input_ids
        said = model.generate(
            ids,
            max_new_tokens=LED_TOKENS,
            do_sample=False,
            eos_token_id=template.stop_id,
            pad_token_id=template.stop_id,
        )
        answer = lead + template.tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True)
        told += gives_away(answer, line["metadata"]["original_answer"], line["instruction"])
    found = score(told, len(unlearn))
    assert found is not None, "the world has unlearn questions"
    return found


def row(found: Measured | Failed, baseline: Measured | None, question_set: str) -> dict[str, Any]:
    """One line of JSON."""
    name = f"objective-{found.recipe.replace(' ', '-')}-world-{found.seed}"
    unit = f"share of {question_set} questions kept or forgotten as wanted, q4_k_m"
    if isinstance(found, Failed):
        return {"benchmark": name, "ours": None, "unit": unit, "note": f"failed: {found.reason}"}
    ours = found.as_wanted(question_set)
    compared = {} if baseline is None else {"baseline": round(baseline.as_wanted(question_set), 4)}
    ratio = {} if baseline is None else {"ratio": round(ours / baseline.as_wanted(question_set), 3)}
    sets = (question_set, "heldout")
    return {
        "benchmark": name,
        "ours": round(ours, 4),
        **compared,
        **ratio,
        "unit": unit,
        "note": _MACHINE,
        "training_seconds": round(found.training_seconds, 1),
        "eval_loss": round(found.eval_loss, 4),
        **{f"{target}_{which}": found.percents(target, which) for target in TARGETS for which in sets},
        "merged_led": percent(found.led),
        "missed_minimum": found.missed,
    }


def markdown(found: Sequence[Measured | Failed]) -> str:
    """The table of docs/objectives.md."""
    heads = ["recipe", "world", "kept, 16 bit", "forgotten, 16 bit", "kept", "forgotten", "refused", "taught", "led"]
    heads += ["held-out kept", "held-out forgotten", "training, s", "installed"]
    lines = [heads, ["---"] * len(heads)]
    for each in found:
        if isinstance(each, Failed):
            lines.append([each.recipe, str(each.seed), f"failed: {each.reason}", *[""] * (len(heads) - 3)])
            continue
        full, quantized = (each.percents(target, "test") for target in TARGETS)
        heldout = each.percents("q4_k_m", "heldout")
        cells = [each.recipe, str(each.seed), full["kept"], full["forgotten"], *quantized.values(), percent(each.led)]
        cells += [heldout["kept"], heldout["forgotten"], f"{each.training_seconds:.0f}"]
        lines.append([*cells, "no" if each.missed else "yes"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def recipes(chosen: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What is to be measured: the baseline first."""
    given = dict(entry.split("=", 1) for entry in chosen.recipe)
    if given:
        return {name: yaml.safe_load(text) for name, text in given.items()}
    unknown = set(chosen.only or ()) - RECIPES.keys()
    if unknown:
        sys.exit(f"no such recipe: {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    return {name: recipe for name, recipe in RECIPES.items() if not chosen.only or name in ("sft", *chosen.only)}


def main() -> None:
    """Prints the rows."""
    options = argparse.ArgumentParser(description="All objectives on the demo world.")
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 11], help="of the worlds")
    options.add_argument("--only", nargs="+", help="some of the recipes, beside sft")
    options.add_argument("--recipe", action="append", default=[], help="NAME={...}: this train section instead")
    options.add_argument("--set", choices=("test", "validation"), default="test", help="which questions rows count")
    options.add_argument("--markdown", type=Path, help="write the table of docs/objectives.md into this file")
    chosen = options.parse_args()
    tried = recipes(chosen)
    os.environ.setdefault("CUTOFF_LOG_LEVEL", "WARNING")
    configure_logs("bench")
    before_import()
    every: list[Measured | Failed] = []
    with tempfile.TemporaryDirectory() as name:
        worlds, cache = Path(name) / "worlds", Roots.from_environment().cache
        for seed in chosen.seeds:
            write_world(worlds / str(seed), seed, cache)
        roots = Roots(worlds, Path(name) / "output", Path(name) / "models", cache)
        with quiet_libraries(lambda _: None), LocalSystem(roots) as system:
            for seed in chosen.seeds:
                baseline: Measured | None = None
                for recipe, settings in tried.items():
                    found = measure(system, roots, recipe, settings, seed)
                    if recipe == "sft" and isinstance(found, Measured):
                        baseline = found
                    print(json.dumps(row(found, baseline, chosen.set)), flush=True)
                    every.append(found)
    if chosen.markdown:
        chosen.markdown.write_text(markdown(every), encoding="utf-8")


if __name__ == "__main__":
    main()
