"""How long a merge takes, and how much memory: ours against loading, merge_and_unload and save_pretrained.

    make bench-merge

Models of Qwen2.5-0.5B's shape with random bf16 weights in files of at most 1 GB: 24 layers are 1 GB, more layers make
2 and 4 GB. The adapter has rank 16 on all seven projections. Both ways run as whole processes, in turn, with the base
in the page cache; ours is the command merge_lora, which also writes tokenizer, manifest and SHA-256 and syncs all to
the disk. Memory is the peak of RssAnon, read from /proc every 5 ms in runs of its own, which are not timed. The floor
is `cp` and `sync` of the same bytes.
Needs 14 GiB of disk for some minutes.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cutoff.telemetry import before_import

ROUNDS = 3
LAYERS = {1: 24, 2: 58, 4: 125}
"""By the model's size in GB."""
_DISK_GIB = 14
_FILE_BYTES = 1_000_000_000


def write_base(folder: Path, layers: int) -> None:
    """Writes a model with random weights, its tokenizer and no more."""
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    from cutoff.demo.recipe import Recipe
    from cutoff.demo.tokenizer import train_tokenizer
    from cutoff.demo.world import make_world

    train_tokenizer(make_world(160, 1), Recipe(), folder)
    shape = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2}
    config = AutoConfig.for_model(
        "qwen2", num_hidden_layers=layers, vocab_size=151_936, tie_word_embeddings=True, dtype="bfloat16", **shape
    )
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(folder)
    with torch.device("meta"):
        names = AutoModelForCausalLM.from_config(config).to(torch.bfloat16).state_dict()
    names.pop("lm_head.weight")
    sizes = {name: torch.empty_like(tensor, device="meta") for name, tensor in names.items()}
    split = split_torch_state_dict_into_shards(
        sizes, filename_pattern="model{suffix}.safetensors", max_shard_size=_FILE_BYTES
    )
    torch.manual_seed(layers)
    for file, inside in split.filename_to_tensors.items():
        tensors = {name: torch.randn(sizes[name].shape, dtype=torch.bfloat16) * 0.02 for name in inside}
        save_file(tensors, folder / file, {"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_adapter(folder: Path, base: Path) -> None:
    """Writes an adapter of rank 16 on every projection, with random numbers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora, low_cpu_mem_usage=True)
    for parameter_name, parameter in list(adapted.named_parameters()):
        if "lora_" in parameter_name:
            module = adapted.get_submodule(parameter_name.rpartition(".")[0])
            module.weight = torch.nn.Parameter(torch.randn(parameter.shape) * 0.02)
    adapted.save_pretrained(folder)
    for path in base.glob("*token*"):
        shutil.copyfile(path, folder / path.name)
    shutil.copyfile(base / "chat_template.jinja", folder / "chat_template.jinja")


def with_peft(base: str, adapter: str, output: str) -> None:
    """The baseline: the whole model in memory."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(output)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(output)


def seconds_of(command: Sequence[str]) -> float:
    """Runs a program, and says how long it took."""
    started = time.monotonic()
    process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    seconds = time.monotonic() - started
    assert process.returncode == 0, process.stderr
    return seconds


def megabytes_of(command: Sequence[str]) -> float:
    """Runs a program, and says the peak of its anonymous memory."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _anonymous(process.pid))
        time.sleep(0.005)
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.returncode == 0, said
    return peak / 1e6


def _anonymous(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def ways(base: Path, adapter: Path, output: Path) -> dict[str, Callable[[], list[str]]]:
    """The command lines by what they are."""
    places = (str(base), str(adapter), str(output))
    given = [
        each for pair in zip(("--base_model", "--lora_path", "--output_path"), places, strict=True) for each in pair
    ]
    return {
        "ours": lambda: [sys.executable, "-m", "cutoff.merger.cli", *given],
        "baseline": lambda: [sys.executable, "-m", "tests.benchmarks.merge", "with_peft", *places],
        "floor": lambda: ["sh", "-c", f"cp -r {base} {output} && sync -f {output}"],
    }


@contextmanager
def model(folder: Path, size: int) -> Iterator[Callable[[str, Callable[[Sequence[str]], float]], float]]:
    """A model of so many GB, and an adapter: gives a function that runs one way on them and measures it."""
    base, adapter, output = folder / "base", folder / "adapter", folder / "merged"
    base.mkdir()
    _in_child("write_base", base, LAYERS[size])
    _in_child("write_adapter", adapter, base)

    def measured(way: str, measure: Callable[[Sequence[str]], float]) -> float:
        os.sync()
        try:
            return measure(ways(base, adapter, output)[way]())
        finally:
            shutil.rmtree(output)

    try:
        yield measured
    finally:
        shutil.rmtree(base)
        shutil.rmtree(adapter)


def _in_child(function: str, *values: object) -> None:
    """Builds in a process of its own, so that its memory is free again."""
    subprocess.run([sys.executable, "-m", "tests.benchmarks.merge", function, *map(str, values)], check=True)


def rows(folder: Path) -> list[dict[str, object]]:
    """Every figure."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, no GPU used"
    with model(folder, 1) as measured:
        took: dict[str, list[float]] = {"ours": [], "baseline": [], "floor": []}
        for _ in range(ROUNDS):
            for way, seconds_so_far in took.items():
                seconds_so_far.append(measured(way, seconds_of))
        memory = {way: measured(way, megabytes_of) for way in ("ours", "baseline")}
    seconds = {way: statistics.median(runs) for way, runs in took.items()}
    note = f"1 GB, whole process, median of {ROUNDS}; peft's merge_and_unload and save as baseline; {machine}"
    floor = f"1 GB, cp and sync of the base as ours, merge_lora as baseline; {machine}"
    found = [
        _row("merge-1gb", seconds["ours"], seconds["baseline"], "s", note),
        _row("merge-1gb-floor", seconds["floor"], seconds["ours"], "s", floor),
        _row("merge-1gb-memory", memory["ours"], memory["baseline"], "MB RssAnon", note),
    ]
    for size in (2, 4):
        with model(folder, size) as measured:
            larger = measured("ours", megabytes_of)
        note = f"{size} GB against 1 GB; {machine}"
        found.append(_row(f"merge-{size}gb-memory", larger, memory["ours"], "MB RssAnon", note))
    return found


def _row(benchmark: str, ours: float, baseline: float, unit: str, note: str) -> dict[str, object]:
    digits = 2 if unit == "s" else 0
    figures = {"ours": round(ours, digits), "baseline": round(baseline, digits), "ratio": round(ours / baseline, 2)}
    return {"benchmark": benchmark, **figures, "unit": unit, "note": note}


def main() -> None:
    """Prints one JSON line a row."""
    before_import()
    match sys.argv[1:]:
        case ["with_peft", base, adapter, output]:
            with_peft(base, adapter, output)
        case ["write_base", folder, layers]:
            write_base(Path(folder), int(layers))
        case ["write_adapter", folder, base]:
            write_adapter(Path(folder), Path(base))
        case _:
            with tempfile.TemporaryDirectory() as name:
                free = shutil.disk_usage(name).free / 2**30
                assert free > _DISK_GIB, f"needs {_DISK_GIB} GiB in {name}, {free:.1f} are free (TMPDIR moves it)"
                for row in rows(Path(name)):
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
