"""docs/metrics.md tells what the code exports."""

from deploy.prometheus.metrics_page import page
from tests.fixtures.promql import ROOT


def test_the_page_is_the_generated_one():
    assert (ROOT / "docs/metrics.md").read_text() == page(), "run `make docs`"


def test_every_kind_of_metric_is_told_by_the_name_that_prometheus_shows():
    text = page()
    for name in (
        "cutoff_runs_total",
        "cutoff_build_info",
        "cutoff_train_loss",
        "cutoff_disk_free_bytes",
        "cutoff_jobs",
    ):
        assert f"| `{name}` |" in text
