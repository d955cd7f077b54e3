"""What a conversion is asked to make, and whether it can be made at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from cutoff.artifacts import require_room, scratch_beside
from cutoff.errors import Fault, InvalidInput, Refused
from cutoff.gguf_converter.metadata import Facts
from cutoff.gguf_converter.weights import Weights
from cutoff.hub.disk_needs import conversion_needs, install_needs
from cutoff.spec import ConvertSpec
from cutoff.spec.quant_types import GAINS_FROM_IMATRIX, NEEDS_IMATRIX, QuantType
from cutoff.spec.quantizations import FLOATS, file_name


@dataclass(frozen=True, slots=True)
class Order:
    """One model, and the files to make of it, all in one folder."""

    model: Path
    """A merged Hugging Face model with its tokenizer."""
    outputs: Mapping[QuantType, Path]
    """The file of each type; an existing one is replaced."""
    name: str
    """The model's name inside the files."""
    manifest: Path
    """Where the record of files and checks goes."""
    questions: Sequence[str] = ()
    """Questions of the job's data, whose prompts' tokens are compared beside the built-in ones."""
    calibration: Path | None = None
    """A text of retain training examples: the importance matrix is made from it."""
    validation: Path | None = None
    """A text of retain validation examples: perplexity is measured on it."""
    facts: Facts = field(default_factory=Facts)
    """What the files say of where they come from."""
    spec: ConvertSpec = field(default_factory=ConvertSpec)
    """imatrix and keep_f16."""
    installed_in: Path | None = None
    """Where the first of the files is copied afterwards, so that room is asked for before the work."""

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return next(iter(self.outputs.values())).parent

    def kept(self, sixteen_bit: QuantType) -> Path | None:
        """Where the 16-bit file stays that was asked for beside the others; None when it is one of them, or goes."""
        if not self.spec.keep_f16 or sixteen_bit in self.outputs:
            return None
        return self.folder / file_name(self.name, sixteen_bit)

    def scratch(self, name: str) -> AbstractContextManager[Path]:
        """A file that is gone when the block ends, this conversion's alone: others may make the same output."""
        return scratch_beside(next(iter(self.outputs.values())), name)

    @property
    def with_imatrix(self) -> tuple[QuantType, ...]:
        """The types that are made with an importance matrix."""
        quantized = tuple(name for name in self.outputs if name not in FLOATS and name != "q8_0")
        match self.spec.imatrix:
            case "always":
                return quantized
            case "never":
                return ()
            case _:
                wanted = tuple(name for name in quantized if name in GAINS_FROM_IMATRIX)
                # Without a text only what cannot do without it is refused.
                return wanted if self.calibration else tuple(name for name in wanted if name in NEEDS_IMATRIX)


def require_possible(order: Order, weights: Weights) -> None:
    """Finds out before any work what would stop it later.

    Raises:
        InvalidInput: Types need an importance matrix, and there is no text to make it from.
        Refused: f16 is asked for and cannot hold the weights.
        InvalidInput: The 16-bit file that is to stay has the name of another file of the order.
        DiskFull: File systems have no room for the 16-bit file, all others and their copy; each shortfall is named.
    """
    if order.with_imatrix and order.calibration is None:
        named = ", ".join(order.with_imatrix)
        fix = "give retain data (--retain_train), or take a K type"
        raise InvalidInput(
            [Fault(named, "is made with an importance matrix, and there is no text to make it from", fix)]
        )
    if "f16" in order.outputs and weights.sixteen_bit != "f16":
        raise Refused(
            f"f16 cannot hold the weights of {order.model}: {weights.largest_in} holds {weights.largest:.0f}, "
            "and f16 ends at 65504",
            "ask for bf16 instead of f16",
        )
    kept = order.kept(weights.sixteen_bit)
    if kept and kept.resolve() in {path.resolve() for path in order.outputs.values()}:
        fix = "give the output another name, or leave --keep_f16 out"
        raise InvalidInput([Fault("--keep_f16", f"would write the 16-bit file to {kept}, which is the output", fix)])
    needs = conversion_needs(
        weights.parameters,
        order.outputs,
        order.folder,
        sixteen_bit=weights.sixteen_bit,
        stays=order.spec.keep_f16,
        imatrix=bool(order.with_imatrix),
    )
    if order.installed_in is not None:
        models, stays = order.installed_in, order.spec.keep_f16
        needs += install_needs(weights.parameters, order.outputs, order.folder, models, stays)
    require_room(needs, f"converting {order.model.name} to {', '.join(order.outputs)}")
