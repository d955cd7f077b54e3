"""Writes dashboards/*.json from code: `python -m deploy.grafana.dashboards`, in the repository's root.

The JSON is committed, so that Grafana needs no Python; a test compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.job import job
from deploy.grafana.overview import overview
from deploy.grafana.services import services

FOLDER = Path(__file__).parent / "dashboards"


def rendered() -> Mapping[str, str]:
    """The text of each file in `FOLDER`, by its name."""
    made = {"overview.json": overview(), "job.json": job(), "services.json": services()}
    return {name: JSONEncoder(sort_keys=True, indent=2).encode(each) + "\n" for name, each in made.items()}


def main() -> None:
    """Writes the files."""
    for name, text in rendered().items():
        (FOLDER / name).write_text(text)
        sys.stdout.write(f"{FOLDER / name}\n")


if __name__ == "__main__":
    main()
