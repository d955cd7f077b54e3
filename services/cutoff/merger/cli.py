"""The document's `merge_lora` command: the merger's work, without a server.

merge_lora --base_model Qwen/Qwen2.5-1.5B-Instruct --lora_path output/RUN/final --output_path output/merged-qwen
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cutoff.hub import local_base_model, resolve_base_model
from cutoff.stage.report import Reporter
from cutoff.stage.terminal import run_in_terminal
from cutoff.telemetry import before_import


def main() -> None:
    """The console script merge_lora."""
    options = parser().parse_args()
    before_import()
    sys.exit(run_in_terminal(lambda report: merge_lora(options, report)))


def merge_lora(options: argparse.Namespace, report: Reporter) -> None:
    """Merges as the options say; prints the document's lines and where the model is."""
    from cutoff.merger import merge as work

    report.log(f"looking for {options.base_model}")
    base = local_base_model(options.base_model) or resolve_base_model(options.base_model)  # merging checks folders
    plan = work.MergePlan(
        base,
        Path(options.lora_path),
        Path(options.output_path),
        dtype=options.dtype,
        verify=options.verify,
        into=options.merge_base,
    )
    result = work.merge(plan, report, say=print)
    print(f"Merged model saved to {result.path}")


def parser() -> argparse.ArgumentParser:
    """The command line, as in the document's table."""
    spec = argparse.ArgumentParser(
        prog="merge_lora", description="Merges a LoRA adapter into its base model.", allow_abbrev=False
    )
    spec.add_argument("--base_model", required=True, help="HuggingFace model name (same as training) or path")
    spec.add_argument("--lora_path", required=True, help="Path to trained LoRA adapter (the final/ directory)")
    spec.add_argument("--output_path", required=True, help="Output path for merged model")
    spec.add_argument(
        "--dtype",
        default="bfloat16",
        choices=["float16", "bfloat16", "float32"],
        help="Data type (default: bfloat16)",
    )
    spec.add_argument(
        "--merge_base",
        default="original",
        choices=["original", "dequantized"],
        help="Merge into the base as it is, or as 4-bit or 8-bit training saw it (default: original)",
    )
    spec.add_argument("--verify", action="store_true", help="Run verification after merge")
    return spec


if __name__ == "__main__":
    main()
