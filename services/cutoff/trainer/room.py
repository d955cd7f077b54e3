"""Whether there is room for everything a job writes, asked before anything is fetched, tokenized or trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cutoff.artifacts import DiskNeed, Roots, require_room
from cutoff.hub.disk_needs import ModelSize, made_needs, tokens_need
from cutoff.hub.remote_code import read_json
from cutoff.hub.shape import ELEMENT_BYTES
from cutoff.spec import JobSpec


@dataclass(frozen=True, slots=True)
class JobRoom:
    """What a whole job needs of the disks that this service sees.

    The models folder is not among them: in containers only the converter sees it, and is asked right after prepare
    (`gguf_converter.model_checks`).
    """

    spec: JobSpec
    roots: Roots

    def before_weights(self, fetched: DiskNeed, folder: Path, weights_bytes: int) -> None:
        """Asks with the base model's weights still to come; a `BeforeWeights` of cutoff.hub.fetch.

        Raises:
            DiskFull: There is too little; every file system is named with its shortfall.
        """
        if not weights_bytes:
            return  # a mirror that lists no sizes: `with_model` asks when they are there
        config = read_json(folder / "config.json")
        stored = str(config.get("dtype") or config.get("torch_dtype"))
        self._require(ModelSize.of_folder(folder, weights_bytes // ELEMENT_BYTES.get(stored, 2)), [fetched])

    def with_model(self, folder: Path) -> None:
        """Asks when the base model is there.

        Raises:
            DiskFull: As `before_weights`.
        """
        self._require(ModelSize.of_folder(folder), [])

    def _require(self, size: ModelSize, fetched: list[DiskNeed]) -> None:
        tokens = tokens_need(self.spec.dataset, self.roots.datasets, self.roots.cache)
        needs = [*fetched, tokens, *made_needs(self.spec, size, self.roots.artifacts)]
        require_room(needs, f"everything that {self.spec.name} writes")
