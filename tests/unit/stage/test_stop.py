"""A stage service that is stopped, as a real process: its runs are told to stop, and their callers why."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cutoff.v1 import trainer_pb2, trainer_pb2_grpc, types_pb2


def test_sigterm_ends_runs_in_a_way_that_is_tried_again(tmp_path):
    root = Path(__file__).parents[3]
    address = f"unix:{tmp_path}/s.sock"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{root}:{root / 'services'}",
        "CUTOFF_ARTIFACTS": str(tmp_path),
        "CUTOFF_CACHE": str(tmp_path),
        "CUTOFF_METRICS_PORT": "0",
        "BENCH_TRAIN_SECONDS": "600",
    }
    command = [sys.executable, "-m", "tests.benchmarks.sleeping_stages", "--listen", address]
    service = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        with grpc.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            asked = health_pb2.HealthCheckRequest(service="cutoff.v1.TrainerService")
            assert health.Check(asked, timeout=60, wait_for_ready=True).status == health_pb2.HealthCheckResponse.SERVING
            statuses = health.Watch(asked)
            next(statuses)
            key = types_pb2.RunKey(job="j", stage="train", attempt=1)
            events = trainer_pb2_grpc.TrainerServiceStub(channel).Train(trainer_pb2.TrainRequest(run={"key": key}))
            next(answer for answer in events if answer.event.HasField("log_line"))
            service.send_signal(signal.SIGTERM)
            *_, last = [answer.event for answer in events]
            assert (last.failed.reason, last.failed.retryable) == ("UNAVAILABLE", True)
            assert next(statuses).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert service.wait(30) == 0
    finally:
        service.kill()
        service.wait()
    log = (tmp_path / "jobs/j/train/1/log.txt").read_text()
    assert "INFO step 1" in log
