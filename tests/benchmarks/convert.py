"""What a conversion costs: one 16-bit pass and three types, against llama.cpp alone and against the document's script.

    make bench-convert

Three ways to q4_k_m, q6_k and q8_0 of one made-up model (bf16, about GIGABYTES), in turn, three rounds; medians.
Ours is `convert_model`, every check included; its making and each of its checks are timed apart. llama.cpp alone is
one run of convert_hf_to_gguf.py and three of llama-quantize. The document's script, run once for each type, converts
to f16 and quantizes, three times. Every way gets all cores. The model is read once before, so that no way pays for a
cold disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cutoff.artifacts import Roots, sha256_of
from cutoff.datasets import VALIDATION_TOKENS, load_template
from cutoff.gguf_converter.convert import convert_model
from cutoff.gguf_converter.order import Order
from cutoff.gguf_converter.record import Converted
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec.quant_types import QuantType
from cutoff.stage.report import silent

GIGABYTES = 1.0
ROUNDS = 3
TYPES: tuple[QuantType, ...] = ("q4_k_m", "q6_k", "q8_0")
HIDDEN, INNER, KEY_VALUE_HEADS, HEADS = 1536, 6144, 4, 12
BYTES_PER_LAYER = 2 * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * HIDDEN * KEY_VALUE_HEADS // HEADS + 3 * HIDDEN * INNER)


def make_model(folder: Path, gigabytes: float) -> Path:
    """A Llama of random bf16 weights with the demo's tokenizer; returns a validation text for it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from cutoff.demo import Recipe, make_world
    from cutoff.demo.tokenizer import train_tokenizer

    world = make_world(60, seed=1)
    tokenizer = train_tokenizer(world, Recipe(vocabulary=768), folder)
    layers = max(1, round(gigabytes * 1e9 / BYTES_PER_LAYER))
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        vocab_size=len(tokenizer),
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    template = load_template(folder)
    texts = [template.full(q.text, q.reply) for fact in world.facts for q in fact.questions("train")]
    ids = template.ids(["\n".join(texts)])[0][:VALIDATION_TOKENS]
    text = folder / "validation.txt"
    text.write_text(str(template.tokenizer.decode(ids)), encoding="utf-8")
    return text


def ours(llama: LlamaCpp, model: Path, text: Path, folder: Path) -> Converted:
    """Everything a job's conversion does."""
    outputs = {name: folder / f"{name}.gguf" for name in TYPES}
    return convert_model(Order(model, outputs, "bench", folder / "convert.json", validation=text), llama, silent())


def passes(llama: LlamaCpp, model: Path, folder: Path, types: tuple[QuantType, ...]) -> None:
    """One f16 pass of llama.cpp's own script, and the quantizations from it."""
    whole = folder / "f16.gguf"
    environment = {**os.environ, "PYTHONPATH": str(llama.folder / "gguf-py")}
    script = [sys.executable, llama.convert_script, model, "--outfile", whole, "--outtype", "f16"]
    subprocess.run(script, env=environment, check=True, capture_output=True)
    for name in types:
        command = [llama.quantize, whole, folder / f"{name}.gguf", name, str(len(os.sched_getaffinity(0)))]
        subprocess.run(command, check=True, capture_output=True)
    whole.unlink()


def timed(work: Callable[[Path], object]) -> float:
    """Seconds of a piece of work in a folder of its own, its bytes on the disk."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        started = time.monotonic()
        work(Path(folder))
        os.sync()
        return time.monotonic() - started


def row(name: str, mine: float, baseline: float, note: str) -> str:
    """One JSON line; the ratio is ours to the baseline."""
    figures = {"ours": round(mine, 2), "baseline": round(baseline, 2), "ratio": round(mine / baseline, 3)}
    return json.dumps({"benchmark": name, **figures, "unit": "s", "note": note})


def main() -> None:
    """Prints a JSON line per row."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--gigabytes", type=float, default=GIGABYTES)
    flags.add_argument("--rounds", type=int, default=ROUNDS)
    asked = flags.parse_args()
    llama = LlamaCpp.find(Roots.from_environment().cache)
    times: dict[str, list[float]] = {"ours": [], "making": [], "llama.cpp": [], "script": []}
    checks: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as scratch:
        model = Path(scratch) / "model"
        model.mkdir()
        text = make_model(model, asked.gigabytes)
        sha256_of(model / "model.safetensors")
        load_template(model)
        for _ in range(asked.rounds):
            done: list[Converted] = []
            times["ours"].append(timed(lambda folder: done.append(ours(llama, model, text, folder))))  # noqa: B023
            (converted,) = done
            spent: dict[str, float] = {}
            for check in converted.checks:
                spent[check.name] = spent.get(check.name, 0.0) + check.seconds
            for name, seconds in spent.items():
                checks.setdefault(name, []).append(seconds)
            times["making"].append(times["ours"][-1] - sum(spent.values()))
            times["llama.cpp"].append(timed(lambda folder: passes(llama, model, folder, TYPES)))
            times["script"].append(timed(lambda folder: [passes(llama, model, folder, (name,)) for name in TYPES]))
        size = (model / "model.safetensors").stat().st_size / 1e9
    median = {name: statistics.median(values) for name, values in times.items()}
    what = f"{size:.2f} GB bf16 to {', '.join(TYPES)}; median of {asked.rounds}"
    machine = f"{what}; {os.cpu_count()} cores, {platform.machine()}"
    print(row("convert", median["making"], median["llama.cpp"], f"without checks; llama.cpp alone; {machine}"))
    print(row("convert-script", median["making"], median["script"], f"without checks; the script thrice; {machine}"))
    print(row("convert-checked", median["ours"], median["script"], f"every check included; {machine}"))
    total = median["ours"]
    for name, values in checks.items():
        note = f"all checks of this kind, and all of the conversion; {machine}"
        print(row(f"convert-check-{name}", statistics.median(values), total, note))


if __name__ == "__main__":
    main()
