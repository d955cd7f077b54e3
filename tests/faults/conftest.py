"""What tests of faults share: how thorough they are, and the table of their figures."""

from __future__ import annotations

import pytest

from tests.faults.figures import FILE, Figures

_FIGURES = Figures()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-transition", action="store_true", help="kill at every transition, not at every few (make test-faults)"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _FIGURES.all:
        terminalreporter.section("faults")
        terminalreporter.write(_FIGURES.table())
        _FIGURES.save()
        terminalreporter.write_line(f"written to {FILE}")


@pytest.fixture(scope="session")
def figures() -> Figures:
    """The session's figures."""
    return _FIGURES


@pytest.fixture(scope="session")
def stride(request: pytest.FixtureRequest) -> int:
    """A sweep kills at each stride-th moment."""
    return 1 if request.config.getoption("--every-transition", False) else 6
