"""Training as cutoff does it (ours) against the document's recipe as written (baseline).

    make bench-train

The baseline is TRL's SFTTrainer: batches of 4, 4 of them in a step, padded, activations recomputed, loss on all
tokens. Model, data, adapter and examples per optimizer step are the same. Each run is a process of its own; the two
ways alternate, and each figure is the median of five pairs. Tokens are real ones, padding not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cutoff.artifacts import Roots
from cutoff.datasets import encode_examples, load_job_data, load_template
from cutoff.demo import create
from cutoff.spec import DatasetSpec, JobSpec, TrainSpec, spec_to_proto
from cutoff.stage.report import silent
from cutoff.stage.runs import Runs
from cutoff.telemetry import before_import, configure_logs
from cutoff.trainer.service import SERVICE
from cutoff.v1 import trainer_pb2, types_pb2

ROUNDS = int(os.environ.get("ROUNDS", "5"))
FILES = DatasetSpec(
    retain_train="retain/retain_train.jsonl",
    retain_val="retain/retain_val.jsonl",
    unlearn_train="unlearn/unlearn_train.jsonl",
    unlearn_val="unlearn/unlearn_val.jsonl",
)
RATE = 2e-3
PER_STEP = 16
WARM_UP = 3
"""Steps that are not counted."""
GIB = 1 << 30


def sixty_million(folder: Path, tokenizer_of: Path) -> None:
    """A Llama of 59 M parameters with random weights."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_of).save_pretrained(folder)


def qwen(folder: Path, tokenizer_of: Path) -> None:
    """The shape of Qwen2.5-1.5B with random weights in bfloat16."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151_936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
        num_key_value_heads=2, max_position_embeddings=32_768, tie_word_embeddings=True, dtype="bfloat16",
    )  # fmt: skip
    with torch.device("cuda"):
        model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_of).save_pretrained(folder)


class Clock:
    """Adds up the time of optimizer steps, the first ones left out."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.tokens = 0
        self.steps = 0

    def step(self, seconds: float, tokens: int) -> None:
        self.steps += 1
        if self.steps > WARM_UP:
            self.seconds += seconds
            self.tokens += tokens


def run_ours(model: Path, datasets: Path, epochs: float, budget: float | None, until: float | None) -> dict[str, Any]:
    """Trains; `until` is a validation loss, and the answer then says after how many seconds of steps it was reached."""
    import torch

    from cutoff.trainer import recipe
    from cutoff.trainer.model import available_devices
    from cutoff.trainer.plan import TrainingPlan

    clock, reached, total = Clock(), [], 0.0
    take, evaluate = recipe._Run._take, recipe.Learner.evaluate

    def timed(run: Any, step: Any) -> Any:
        nonlocal total
        started = time.perf_counter()
        result = take(run, step)
        total += time.perf_counter() - started
        clock.step(time.perf_counter() - started, result.tokens)
        return result

    def noticed(learner: Any, *args: Any) -> Any:
        loss = evaluate(learner, *args)
        if until is not None and loss <= until and not reached:
            reached.append(total)
        return loss

    recipe._Run._take, recipe.Learner.evaluate = timed, noticed  # type: ignore[method-assign]
    spec = TrainSpec(
        epochs=epochs, learning_rate=RATE, memory_budget_gib=budget, eval_steps=10 if until else 100_000,
        save_steps=100_000,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        out, cache = Path(folder) / "run", Path(folder) / "cache"
        out.mkdir()
        plan = TrainingPlan(model, "bench", None, FILES, datasets, spec, out, cache, available_devices())
        result = recipe.train(plan, silent())
    return {
        "speed": clock.tokens / clock.seconds,
        "peak": _peak(torch),
        "reached": reached[0] if reached else None,
        "micro_batch": result.micro_batch_tokens,
        "recomputed": result.activations_recomputed,
    }


def run_baseline(model: Path, datasets: Path, epochs: float, evaluated: bool) -> dict[str, Any]:
    """The document's recipe with TRL; the validation loss is that of answer tokens."""
    import torch
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    data, template = load_job_data(FILES, datasets, 42), load_template(model, "chat")
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu else torch.float32
    rows = Dataset.from_dict({"text": [template.full(e.instruction, e.output) for e in data.train]}).shuffle(seed=42)
    clock = Clock()

    class Timer(TrainerCallback):
        def __init__(self) -> None:
            self.since = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.perf_counter()
            clock.step(now - self.since, 0)
            self.since = now

    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=dtype),
            processing_class=template.tokenizer,
            train_dataset=rows,
            peft_config=LoraConfig(
                r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            args=SFTConfig(
                output_dir=folder, num_train_epochs=epochs, per_device_train_batch_size=4,
                gradient_accumulation_steps=4, gradient_checkpointing=True, learning_rate=RATE,
                lr_scheduler_type="cosine", warmup_steps=0.1, logging_steps=10, save_strategy="no", report_to="none",
                use_cpu=not on_gpu, bf16=on_gpu, max_length=512, disable_tqdm=True, seed=42,
            ),
            callbacks=[Timer()],
        )  # fmt: skip
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    counted = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    per_step = max(counted) / trainer.state.global_step
    loss = _validation_loss(trainer.model, data.validation, template) if evaluated else None
    return {
        "speed": per_step * (clock.steps - WARM_UP) / clock.seconds,
        "peak": _peak(torch),
        "seconds": seconds,
        "loss": loss,
    }


def _validation_loss(model: Any, examples: Any, template: Any) -> float:
    import torch

    model.eval()
    summed, count = 0.0, 0
    for row in encode_examples(template, examples, 512):
        ids = torch.tensor([row.ids], device=model.device)
        with torch.no_grad():
            logits = model(ids).logits[0, row.answer_start - 1 : -1].float().log_softmax(-1)
        summed -= float(logits.gather(1, ids[0, row.answer_start :, None]).sum())
        count += len(row.ids) - row.answer_start
    return summed / count


def _peak(torch: Any) -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(way: str, **options: Any) -> dict[str, Any]:
    """One run in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.train", "--child", json.dumps({"way": way, **options})]
    ours = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # what cutoff sets for its own runs is not part of the baseline
    environment = {name: value for name, value in os.environ.items() if way == "ours" or name not in ours}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def alternating(*ways: Callable[[], dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Runs each way in turn, so often; returns the results by way."""
    rounds = [[way() for way in ways] for _ in range(ROUNDS)]
    return [list(results) for results in zip(*rounds, strict=True)]


def median(results: list[dict[str, Any]], name: str) -> float:
    return statistics.median(result[name] for result in results)


def row(name: str, ours: float, baseline: float, unit: str, note: str, faster: bool = True) -> None:
    """Prints one figure; the ratio says how many times better ours is."""
    ratio = ours / baseline if faster else baseline / ours
    line = {"benchmark": name, "ours": round(ours, 3), "baseline": round(baseline, 3), "ratio": round(ratio, 2)}
    where = f"median of {ROUNDS}; {os.cpu_count()} cores, {platform.machine()}"
    print(json.dumps({**line, "unit": unit, "note": f"{note}; {where}"}), flush=True)


def speeds(name: str, model: Path, datasets: Path, steps: int, examples: int, note: str) -> None:
    """Tokens per second both ways, and ours again within the baseline's peak memory."""
    epochs = steps * PER_STEP / examples
    common = {"model": str(model), "datasets": str(datasets), "epochs": epochs}
    first = child("baseline", **common, evaluated=False)
    limit = first["peak"] / GIB
    ours, baseline, within = alternating(
        lambda: child("ours", **common, budget=None, until=None),
        lambda: child("baseline", **common, evaluated=False),
        lambda: child("ours", **common, budget=limit, until=None),
    )
    speed = median(baseline, "speed")
    row(f"train-{name}", median(ours, "speed"), speed, "tokens/s", note)
    peaks = f"peak {median(within, 'peak') / GIB:.2f} of {limit:.2f} GiB, {within[0]['micro_batch']} tokens at a time"
    row(f"train-{name}-same-memory", median(within, "speed"), speed, "tokens/s", f"{note}; {peaks}")


def to_the_same_loss(model: Path, datasets: Path) -> None:
    """Seconds of training until the baseline's final validation loss is reached."""
    common = {"model": str(model), "datasets": str(datasets), "epochs": 3}
    target = child("baseline", **common, evaluated=True)
    ours, baseline = alternating(
        lambda: child("ours", **common, budget=None, until=target["loss"]),
        lambda: child("baseline", **common, evaluated=False),
    )
    note = f"seconds of steps until the baseline's final validation loss, {target['loss']:.4f}, 3 epochs"
    if any(result["reached"] is None for result in ours):
        raise RuntimeError(f"not reached: {note}")
    row("train-to-same-loss", median(ours, "reached"), median(baseline, "seconds"), "s", note, faster=False)


async def first_step(model: Path, datasets: Path) -> None:
    """From Run to the first optimizer step, in a service that has run before, against a spawned process."""
    job = JobSpec(name="bench", base_model=str(model), dataset=FILES, train=TrainSpec(epochs=0.1))

    async def seconds(runs: Runs, attempt: int) -> float:
        header = types_pb2.RunHeader(key={"job": "bench", "stage": "train", "attempt": attempt})
        request = trainer_pb2.TrainRequest(run=header, spec=spec_to_proto(job), model_path=str(model))
        started, found = time.monotonic(), None
        async for event in runs.run(request, "cutoff.trainer.work:train"):
            if event.WhichOneof("kind") == "progress" and event.progress.step and found is None:
                found = time.monotonic() - started
            last = event
        assert last.HasField("finished"), last
        assert found is not None
        return found

    with tempfile.TemporaryDirectory() as folder:
        roots = Roots(datasets, Path(folder) / "out", Path(folder), Path(folder) / "cache")
        ours = Runs("bench", roots, Path(folder), SERVICE.preload)
        baseline = Runs("bench", roots, Path(folder))
        await ours.warm_up()
        await seconds(ours, 0)
        times: dict[str, list[float]] = {"ours": [], "baseline": []}
        for attempt in range(1, ROUNDS + 1):
            times["ours"].append(await seconds(ours, attempt))
            times["baseline"].append(await seconds(baseline, 100 + attempt))
    medians = {name: statistics.median(values) for name, values in times.items()}
    note = "from Run to the first step, tiny model, its loading included; spawned child as baseline"
    row("train-first-step", medians["ours"], medians["baseline"], "s", note, faster=False)


def short_validation(source: Path, target: Path) -> int:
    """Copies the data sets with few validation lines; returns how many lines there are to train on."""
    count = 0
    for which, name in FILES.files().items():
        lines = (source / name).read_text("utf-8").splitlines(keepends=True)
        count += len(lines) if which.endswith("train") else 0
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("".join(lines if which.endswith("train") else lines[:8]), encoding="utf-8")
    return count


def main() -> None:
    """Prints one JSON line per figure."""
    options = argparse.ArgumentParser()
    options.add_argument("--child")
    options.add_argument("--only", help="tiny, sixty, loss, start or gpu")
    chosen = options.parse_args()
    if chosen.child:
        given = json.loads(chosen.child)
        way = given.pop("way")
        paths = {name: Path(given.pop(name)) for name in ("model", "datasets")}
        if way == "ours":
            before_import()
        answer = {"ours": run_ours, "baseline": run_baseline}[way](**paths, **given)
        print(json.dumps(answer))
        return
    before_import()
    os.environ.setdefault("CUTOFF_LOG_LEVEL", "WARNING")
    configure_logs("bench")
    with tempfile.TemporaryDirectory() as folder:
        world, data, sixty = (Path(folder) / name for name in ("world", "data", "sixty"))
        create(world, facts=160, seed=1, cache=Roots.from_environment().cache, on_progress=lambda *_: None)
        lines = short_validation(world / "datasets", data)
        tiny = world / "base"
        steps = {
            "tiny": lambda: speeds("tiny", tiny, data, 60, lines, "the demo's model, 2 M parameters"),
            "sixty": lambda: (
                sixty_million(sixty, tiny),
                speeds("60m", sixty, data, 12, lines, "59 M parameters, random weights"),
            ),
            "loss": lambda: to_the_same_loss(tiny, world / "datasets"),
            "start": lambda: asyncio.run(first_step(tiny, data)),
            "gpu": lambda: on_gpu(Path(folder) / "qwen", tiny, data, lines),
        }
        for name, step in steps.items():
            if chosen.only in (None, name):
                step()


def on_gpu(model: Path, tiny: Path, datasets: Path, lines: int) -> None:
    """The shape of Qwen2.5-1.5B, where there is a GPU."""
    import torch

    if not torch.cuda.is_available():
        print("skipped: train-qwen2.5-1.5b needs a GPU", file=sys.stderr)
        return
    from cutoff.trainer.flops import utilisation

    qwen(model, tiny)
    name = torch.cuda.get_device_name()
    achieved = child("ours", model=str(model), datasets=str(datasets), epochs=0.5, budget=None, until=None)["speed"]
    share = utilisation(achieved, 1_543_714_304, name)
    mfu = "unknown" if share is None else f"{share:.3f}"
    speeds("qwen2.5-1.5b", model, datasets, 40, lines, f"Qwen2.5-1.5B's shape, random weights, {name}, MFU {mfu}")


if __name__ == "__main__":
    main()
