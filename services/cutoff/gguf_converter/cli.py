"""convert_to_gguf: the user's document's command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from pydantic import ValidationError

from cutoff.artifacts import Roots
from cutoff.errors import Fault, InvalidInput
from cutoff.spec import ConvertSpec
from cutoff.spec.quant_types import QuantType
from cutoff.spec.quantizations import QUANTIZATIONS

if TYPE_CHECKING:
    from cutoff.stage.report import Reporter

DEFAULT_LLAMA_CPP = "llama.cpp"
PUBLISHER = "local"


def parser() -> argparse.ArgumentParser:
    """The command's flags, as the document has them."""
    table = "\n".join(
        f"  {name:8} {row.description:22} {row.size:6} {row.quality}" for name, row in QUANTIZATIONS.items()
    )
    flags = argparse.ArgumentParser(
        prog="convert_to_gguf",
        description="Converts a merged Hugging Face model to one GGUF file and compares its tokens with the model's.",
        epilog=f"quantization types:\n{table}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = flags.add_argument
    add("--model_path", type=Path, required=True, help="merged Hugging Face model")
    add("--output_path", type=Path, required=True, help="the GGUF file to write")
    add("--quant_type", choices=get_args(QuantType), default="q4_k_m", type=str.lower, help="default: q4_k_m")
    add(
        "--llama_cpp_path",
        type=Path,
        default=Path(DEFAULT_LLAMA_CPP),
        help="default: llama.cpp if there, else the pinned build",
    )
    add("--install_lmstudio", action="store_true", help="copy to LM Studio's models folder")
    add(
        "--lmstudio_models",
        type=Path,
        default=Roots.from_environment().models,
        help="LM Studio's models folder; default: %(default)s (LMSTUDIO_MODELS)",
    )
    add("--replace", action="store_true", help="put it in the place of another model of that name")
    add("--model_name", default=None, help="name in LM Studio; default: from the output file")
    add("--keep_f16", "--keep-f16", action="store_true", help="keep the 16-bit file beside the output")
    add(
        "--imatrix",
        choices=get_args(ConvertSpec.model_fields["imatrix"].annotation),
        default="auto",
        help="importance matrix from --retain_train: auto makes one for I types; default: auto",
    )
    add(
        "--retain_train",
        type=Path,
        help="what an importance matrix is made from; default: datasets/retain/retain_train.jsonl, if there",
    )
    add(
        "--retain_val",
        type=Path,
        help="what perplexity is measured on; default: datasets/retain/retain_val.jsonl, if there",
    )
    return flags


def main() -> None:
    """Runs the command; exit code 0, 1 when it failed, 2 for wrong usage, 130 when interrupted."""
    arguments = parser().parse_args()
    from cutoff.stage.terminal import run_in_terminal

    sys.exit(run_in_terminal(lambda report: run(arguments, report)))


def run(arguments: argparse.Namespace, report: Reporter) -> None:
    """Converts, and installs when asked to; prints what a user does next.

    Raises:
        CutoffError: As `convert_model` and `install_gguf`.
    """
    from cutoff.gguf_converter.convert import convert_model
    from cutoff.gguf_converter.install import install_gguf
    from cutoff.gguf_converter.install_checks import Wanted, check_folder, install_spec
    from cutoff.gguf_converter.install_records import RECORDS
    from cutoff.gguf_converter.lmstudio import ask_configured
    from cutoff.gguf_converter.order import Order
    from cutoff.gguf_converter.texts import rendered
    from cutoff.llama_cpp import LlamaCpp

    roots = Roots.from_environment()
    output: Path = arguments.output_path
    if output.is_dir():
        raise InvalidInput([Fault("--output_path", f"{output} is a folder", "give a file name ending in .gguf")])
    quant_type = cast(QuantType, arguments.quant_type)
    asked = _spec(arguments)
    spec = install_spec(PUBLISHER, arguments.model_name or name_of(output), arguments.replace)
    models, records = arguments.lmstudio_models, roots.artifacts / RECORDS
    if arguments.install_lmstudio:
        check_folder(models, spec, Wanted(quant_type), records)  # before the work of minutes
    llama = LlamaCpp.find(roots.cache, _llama_cpp(arguments.llama_cpp_path))
    with rendered(arguments.model_path, arguments.retain_train, arguments.retain_val, report) as texts:
        order = Order(
            model=arguments.model_path,
            outputs={quant_type: output},
            name=spec.model_name,
            manifest=manifest_of(output),
            questions=texts.questions,
            calibration=texts.calibration,
            validation=texts.validation,
            spec=asked,
            installed_in=models if arguments.install_lmstudio else None,
        )
        converted = convert_model(order, llama, report)
    file = converted.files[quant_type]
    print(f"GGUF: {output} ({file.size_bytes / 1e6:.1f} MB, sha256 {file.sha256})")
    print(f"Checks: {order.manifest}")
    if converted.kept:
        print(f"16-bit: {converted.kept.path}")
    if arguments.install_lmstudio:
        installed = install_gguf(output, quant_type, models, spec, records, report, file.sha256)
        print(f"Installed: {installed.file.path}")
        ask_configured(spec, file.size_bytes, "", report)
        print(f'Load it with: lms load "{spec.model_name}"')


def name_of(output: Path) -> str:
    """The model's name, where none is given: the file's without .gguf; "qwen2.5" has no ending of its own."""
    return output.name.removesuffix(".gguf")


def manifest_of(output: Path) -> Path:
    """Where the record of an output's checks goes."""
    return output.with_name(f"{name_of(output)}.convert.json")


def _llama_cpp(path: Path) -> Path | None:
    """The user's llama.cpp; None for the pinned build, when the default is meant and no such folder is here."""
    return None if path == Path(DEFAULT_LLAMA_CPP) and not path.is_dir() else path


def _spec(arguments: argparse.Namespace) -> ConvertSpec:
    """The flags as a job has them.

    Raises:
        InvalidInput: They contradict each other.
    """
    asked = {"quant_types": [arguments.quant_type], "imatrix": arguments.imatrix, "keep_f16": arguments.keep_f16}
    try:
        return ConvertSpec.model_validate(asked)
    except ValidationError as error:
        said = [details["msg"].removeprefix("Value error, ") for details in error.errors()]
        raise InvalidInput([Fault("--imatrix", what, "") for what in said]) from error
