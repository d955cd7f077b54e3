"""The dashboard Overview: what waits, what runs, what the GPUs do, how fast it goes."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import DashboardLink
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.panels import (
    NO_LIMIT,
    NONE_IS_BEST,
    Panel,
    bars,
    dashboard,
    lines,
    more_is_better,
    more_is_worse,
    names,
    numbers,
)

SERVICES = "coordinator|trainer|merger|gguf-converter|evaluator"
QUEUE_WAIT = more_is_worse(yellow=3600, red=7200)
"""Red where the alert CutoffQueueWaitLong fires."""
SILENCE = more_is_worse(yellow=900, red=1800)
"""Red where the alert CutoffJobStuck may fire."""
TOKENS_PER_SECOND = "suffix: tokens/s"


def overview() -> Dashboard:
    """The dashboard to begin with."""
    rows = {"Now": _now(), "Jobs": _jobs(), "Queue and GPUs": _queue() + _gpus(), "Throughput": _throughput()}
    return dashboard("cutoff-overview", "cutoff: overview", "What waits, what runs, and how fast.", rows)


def _now() -> list[Panel]:
    return [
        numbers(
            "Services down",
            "Services whose metrics cannot be read. The dashboard Services shows which.",
            units.NoUnit,
            {"": f'count(up{{job=~"{SERVICES}"}} == 0) or vector(0)'},
            NONE_IS_BEST,
            width=4,
        ),
        numbers(
            "Alerts firing",
            "How many alerts fire. Which, is said below.",
            units.NoUnit,
            {"": 'count(ALERTS{alertstate="firing"}) or vector(0)'},
            NONE_IS_BEST,
            width=4,
        ),
        numbers(
            "Jobs running",
            "Jobs the coordinator has begun and not ended; some of them may wait for hardware.",
            units.NoUnit,
            {"": 'sum(cutoff_jobs{state="running"})'},
            NO_LIMIT,
            width=4,
        ),
        numbers(
            "Waiting for hardware",
            "Attempts at a stage that wait for hardware, or for their service to begin.",
            units.NoUnit,
            {"": "sum(cutoff_queue_length)"},
            more_is_worse(yellow=1, red=10),
            width=4,
        ),
        numbers(
            "Longest wait",
            "How long the oldest waiting attempt has waited; 0 when none waits.",
            units.Seconds,
            {"": "max(time() - (cutoff_queue_oldest_timestamp_seconds > 0)) or vector(0)"},
            QUEUE_WAIT,
            width=4,
        ),
        numbers(
            "GPUs",
            "GPUs that Ray knows, and those no job holds. 0 on a machine without one.",
            units.NoUnit,
            {"known": "sum(cutoff_gpus)", "free": "sum(cutoff_gpus_free)"},
            NO_LIMIT,
            width=4,
        ),
        names(
            "What fires",
            "Alerts that fire now, and what they are about. docs/monitoring.md says what to do about each.",
            {"{{alertname}} {{job}} {{cutoff_job}} {{target}} {{device}} {{root}}": 'ALERTS{alertstate="firing"}'},
            NONE_IS_BEST,
            width=24,
        ),
    ]


def _jobs() -> list[Panel]:
    running = bars(
        "Runs in progress",
        "How much of its current phase each run has done. Ended runs stay for a minute. A click opens the job.",
        units.PercentUnit,
        {"{{cutoff_job}} {{stage}}": "max by (cutoff_job, stage) (cutoff_run_progress_ratio)"},
        highest=1,
        now=True,
    )
    address = "/d/cutoff-job?var-cutoff_job=${__field.labels.cutoff_job}"
    return [
        lines(
            "Jobs by state",
            "All jobs in the coordinator's store.",
            units.NoUnit,
            {"{{state}}": "sum by (state) (cutoff_jobs)"},
        ),
        running.data_links([DashboardLink("Open the job").url(address)]),
        lines(
            "Silence of unfinished jobs",
            "Time since a job's newest event. A job that waits for hardware is silent too.",
            units.Seconds,
            {"{{cutoff_job}}": "time() - max by (cutoff_job) (cutoff_job_last_event_timestamp_seconds)"},
            SILENCE,
        ),
        bars(
            "Mean duration of ended jobs",
            "From submission to the end, since the coordinator started.",
            units.Seconds,
            {"{{state}}": _mean("cutoff_job_duration_seconds", "state")},
            width=6,
        ),
        bars(
            "Installs",
            "Since the coordinator started. below_bar: the scores missed install.require, so nothing was installed.",
            units.NoUnit,
            {"{{outcome}}": "sum by (outcome) (cutoff_installs_total)"},
            width=6,
        ),
    ]


def _queue() -> list[Panel]:
    return [
        lines(
            "Queue",
            "Attempts at a stage that wait for hardware, or for their service to begin.",
            units.NoUnit,
            {
                "waiting": "sum(cutoff_queue_length)",
                "for a GPU: {{reason}}": "sum by (reason) (cutoff_queue_gpu_waiting)",
            },
            width=8,
        ),
        bars(
            "Wait for hardware (95th percentile)",
            "From asking for hardware to the start of the run, since the coordinator started.",
            units.Seconds,
            {"{{stage}}": "histogram_quantile(0.95, sum by (le, stage) (cutoff_queue_wait_seconds_bucket))"},
            QUEUE_WAIT,
            width=8,
        ),
        lines(
            "Devices held",
            "Devices that runs hold, by job and stage. A held device without work costs money: see its utilisation.",
            units.NoUnit,
            {"{{device}} {{cutoff_job}} {{stage}}": "sum by (device, cutoff_job, stage) (cutoff_device_leased)"},
            width=8,
        ),
    ]


def _gpus() -> list[Panel]:
    nvidia, amd = "{{Hostname}} GPU {{gpu}}", "{{hostname}} GPU {{gpu_id}}"
    return [
        lines(
            "GPU utilisation",
            "Share of time in which the GPU worked. From the GPU exporters, where one runs.",
            units.Percent,
            {nvidia: "DCGM_FI_DEV_GPU_UTIL", amd: "gpu_gfx_activity"},
            more_is_better(yellow=10, green=50),
            width=6,
            highest=100,
        ),
        lines(
            "GPU memory",
            "Share of the GPU's memory in use, by all programs. From the GPU exporters, where one runs.",
            units.PercentUnit,
            {
                nvidia: "DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE)",
                amd: "gpu_used_vram / gpu_total_vram",
            },
            more_is_worse(yellow=0.9, red=0.97),
            width=6,
            highest=1,
        ),
        lines(
            "GPU power",
            "What the GPU draws. From the GPU exporters, where one runs.",
            units.Watt,
            {nvidia: "DCGM_FI_DEV_POWER_USAGE", amd: "gpu_package_power or gpu_average_package_power"},
            width=6,
        ),
        lines(
            "GPU temperature",
            "AMD: the hottest spot where the card tells it, else the edge. From the GPU exporters, where one runs.",
            units.Celsius,
            {nvidia: "DCGM_FI_DEV_GPU_TEMP", amd: "gpu_junction_temperature or gpu_edge_temperature"},
            more_is_worse(yellow=85, red=95),
            width=6,
        ),
    ]


def _throughput() -> list[Panel]:
    return [
        lines(
            "Training",
            "Tokens trained on per second, padding not counted.",
            TOKENS_PER_SECOND,
            {"{{cutoff_job}}": "max by (cutoff_job) (cutoff_train_tokens_per_second)"},
        ),
        lines(
            "Merging and converting",
            "Bytes of the model worked through per second.",
            units.BytesPerSecondSI,
            {
                "{{cutoff_job}} merge": "max by (cutoff_job) (cutoff_merge_bytes_per_second)",
                "{{cutoff_job}} {{quant_type}}": "max by (cutoff_job, quant_type) (cutoff_convert_bytes_per_second)",
            },
        ),
        bars(
            "Mean duration of stages",
            "As the coordinator saw attempts, by outcome, since it started.",
            units.Seconds,
            {"{{stage}} {{outcome}}": _mean("cutoff_stage_duration_seconds", "stage, outcome")},
        ),
        bars(
            "Runs ended",
            "By stage and outcome, since the services started.",
            units.NoUnit,
            {"{{stage}} {{outcome}}": "sum by (stage, outcome) (cutoff_runs_total)"},
        ),
    ]


def _mean(histogram: str, labels: str) -> str:
    # Not a rate: ends of jobs are rare, and the first of a series would not count.
    return f"sum by ({labels}) ({histogram}_sum) / sum by ({labels}) ({histogram}_count)"
