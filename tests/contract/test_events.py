import json
import math

import pytest

from onnx_cgmq.contract.events import (
    Finished,
    Limit,
    MetricsLog,
    StageDone,
    StageProgress,
    Started,
    StepDone,
)
from onnx_cgmq.errors import OutputError


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def step(number):
    return StepDone(number, 100, "guided", loss=0.5, cost_ratio=1.5)


def test_records_are_json():
    limits = (Limit("0.4%", 7, "bit operations"), Limit("cost:3ms", 0.5, "ms"))
    record = Started(10, 2, float_accuracy=None, bounds=limits).to_record()
    assert record == {
        "event": "started",
        "total_steps": 10,
        "epochs": 2,
        "float_accuracy": None,
        "bounds": (
            {"bound": "0.4%", "limit": 7, "unit": "bit operations"},
            {"bound": "cost:3ms", "limit": 0.5, "unit": "ms"},
        ),
        "expected_seconds": None,
    }
    assert StepDone(1, 2, "guided", math.nan, math.inf).to_record()["loss"] is None


def test_log_is_written_as_events_come(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log(step(1))
    assert [record["step"] for record in read(path)] == [1]
    log(Finished(True, "complete"))
    assert read(path)[-1]["event"] == "finished"


def test_stages_are_in_the_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log(StageProgress("reconstruct", 1, 2))
    log(StageDone("reconstructed", math.nan, None, 1.5))
    records = [{k: v for k, v in record.items() if k != "time"} for record in read(path)]
    assert records == [
        {"event": "progress", "stage": "reconstruct", "done": 1, "total": 2},
        {
            "event": "stage",
            "stage": "reconstructed",
            "validation_loss": None,
            "validation_accuracy": None,
            "seconds": 1.5,
        },
    ]


def test_steps_are_thinned(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.seconds_between_steps = math.inf
    for number in range(50):
        log(step(number))
    assert len(read(path)) == 1


def test_append_keeps_what_a_resumed_run_wrote(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path)(step(1))
    MetricsLog(path, append=True)(step(2))
    assert [record["step"] for record in read(path)] == [1, 2]
    MetricsLog(path)
    assert read(path) == []


def test_unwritable_log_is_found_at_once(tmp_path):
    with pytest.raises(OutputError, match="can't write the log"):
        MetricsLog(tmp_path / "missing" / "metrics.jsonl")
