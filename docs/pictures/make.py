"""Takes the pictures of the report's page that the README and docs/reports.md show.

    python docs/pictures/make.py demo-world        (or: make report-pictures, after make demo)

The page is the newest report below the demo's folder, in a real browser: on a desk, in the dark, on a phone.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.fixtures.browser import browsing, find_browser

SCREENS = {"report": (1200, 1000, False), "report-dark": (1200, 1000, True), "report-phone": (390, 844, False)}
"""By picture: width and height in pixels, and whether the reader prefers the dark."""


def main(demo: Path) -> None:
    """Takes all pictures."""
    pages = sorted(demo.glob("output/jobs/*/report/*/report.html"), key=lambda page: page.stat().st_mtime)
    program = find_browser()
    if not pages:
        sys.exit(f"{demo} holds no report: make demo")
    if program is None:
        sys.exit("there is no Chromium here: make browser")
    with tempfile.TemporaryDirectory() as profile, browsing(program, Path(profile)) as page:
        for name, (width, height, dark) in SCREENS.items():
            page.open(pages[-1], width, height, dark)
            picture = Path(__file__).parent / f"{name}.png"
            page.picture(picture)
            print(f"{picture}: {picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
