"""What runs really did, line by line in a file: what a service or the store says of it can be held against that."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ledger:
    """Below a folder that outlives everybody."""

    folder: Path

    @classmethod
    def of_environment(cls) -> Ledger:
        return cls(Path(os.environ["FAULTS_LEDGER"]))

    def write(self, **line: Any) -> None:
        """Adds a line; several processes may."""
        line["at"] = time.monotonic()
        descriptor = os.open(self.folder / "ledger.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(descriptor, json.dumps(line).encode() + b"\n")
        os.close(descriptor)

    def lines(self, what: str, **like: Any) -> list[dict[str, Any]]:
        """The lines that tell of this, and of nothing else."""
        path = self.folder / "ledger.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        wanted = {"what": what, **like}
        return [line for line in found if all(line.get(field) == value for field, value in wanted.items())]

    def hold(self, stage: str) -> None:
        """From now on runs of this stage wait, in the middle of their work."""
        (self.folder / f"hold-{stage}").touch()

    def release(self, stage: str) -> None:
        """Lets them go on."""
        (self.folder / f"hold-{stage}").unlink()

    def wait(self, *, stage: str, **about: Any) -> None:
        """What a run calls in the middle of its work."""
        path = self.folder / f"hold-{stage}"
        if path.exists():
            self.write(what="held", stage=stage, **about)
        while path.exists():
            time.sleep(0.02)

    @contextmanager
    def alone(self, devices: list[str], **about: Any) -> Iterator[None]:
        """Notes when another run is at work on one of the devices; the kernel frees what a killed one held."""
        held = []
        for device in devices:
            descriptor = os.open(self.folder / f"device-{device}", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.write(what="device taken twice", device=device, **about)
            held.append(descriptor)
        try:
            yield
        finally:
            for descriptor in held:
                os.close(descriptor)
