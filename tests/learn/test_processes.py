"""Two processes learn what one does; one that dies leaves the best file and a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from onnx_cgmq.api.curve import curve
from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.api.sensitivity import sensitivity
from onnx_cgmq.contract.run_paths import checkpoint_path, plan_path
from onnx_cgmq.contract.stopped import PROCESS_ENDED, Stopped
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.learn import processes, schedule
from tests.support.joined_run import PROCESSES, STEPS, run, run_joined
from tests.support.plans import assert_same_plan
from tests.support.toys import mlp, toy_data

LOSS = 1e-4
RANGES = 1e-3


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch) -> None:
    monkeypatch.setattr(schedule, "STEPS", STEPS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{}, {"granularity": "channel"}],
    ids=["stages and epochs", "gates that move while weights train"],
)
def test_two_processes_make_the_plan_of_one(settings: dict[str, Any], tmp_path: Path) -> None:
    plan, loss, reason = run(**settings)
    found, code = run_joined(tmp_path, **settings)
    assert (len(found), code, reason) == (PROCESSES, 0, "complete")
    for other, its_loss, its_reason in found:
        assert its_reason == "complete"
        assert abs(its_loss - loss) < LOSS
        assert_same_plan(other, plan, RANGES)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_what_is_left_of_a_process_that_dies(rank: int, tmp_path: Path) -> None:
    """After the stages and one epoch; a run that is resumed, in one process, ends as ever."""
    output = tmp_path / "out.onnx"
    found, code = run_joined(tmp_path, dies=(rank, 3), output=str(output))
    assert code != 0
    assert checkpoint_path(output).exists()
    if rank == 1:  # the first one writes what it has
        (_, _, reason), *_ = found
        assert reason == PROCESS_ENDED
        assert output.exists()
        assert plan_path(output).exists()
    plan, loss, _ = run()
    resumed, its_loss, reason = run(output=output, resume=True)
    assert reason == "complete"
    assert abs(its_loss - loss) < LOSS
    assert_same_plan(resumed, plan, RANGES)


# -- what processes share ------------------------------------------------------------------------


def _share(rank: int) -> None:
    """Runs in each of two processes, which together have what the comments say."""
    assert processes.count() == PROCESSES
    assert processes.leads() == (rank == 0)
    assert not processes.is_split(5)
    processes.split_rows(True)
    assert processes.is_split(2)
    assert not processes.is_split(1)
    whole = torch.arange(15.0).reshape(5, 3)
    own = whole[processes.own_rows(5)]
    assert len(own) == (2, 3)[rank]
    found = processes.gathered({"x": own, "flags": own > 4}, 5)
    assert torch.equal(found["x"], whole)
    assert torch.equal(found["flags"], whole > 4)
    assert processes.in_turns("abcde", lambda text: (text, processes.count())) == [
        (text, 1)
        for text in "abcde"  # each is alone with its items
    ]
    assert processes.in_turns([], str) == []
    assert processes.of_first(rank + 7) == 7
    assert processes.every(True)
    assert not processes.every(rank == 0)
    here, there, nowhere = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    here.grad = torch.tensor([1.0, rank])
    there.grad = torch.full((2,), 5.0) if rank == 1 else None
    processes.sum_gradients([here, there, nowhere])
    assert here.grad.tolist() == [2, 1]
    assert there.grad is not None
    assert there.grad.tolist() == [5, 5]
    assert nowhere.grad is None


def _part(rank: int) -> None:
    """One leaves; the other notices, and is alone."""
    if rank == 1:
        processes.leave()
        return
    with pytest.raises(Stopped, match=PROCESS_ENDED):
        processes.total(torch.ones(1))
    assert processes.count() == 1
    assert processes.total(torch.ones(1)).tolist() == [1]


def _in_a_process(rank: int, port: int, checks: Callable[[int], None]) -> None:
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
    with processes.together():
        checks(rank)
    assert not dist.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize("checks", [_share, _part])
def test_processes_share(checks: Callable[[int], None]) -> None:
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    port = store.port
    del store
    multiprocessing.spawn(_in_a_process, (port, checks), nprocs=PROCESSES)


def test_alone_nothing_is_shared() -> None:
    with processes.together():
        assert not dist.is_initialized()
        processes.split_rows(True)
        assert processes.count() == 1
        assert not processes.is_split(8)
        x = torch.ones(2, requires_grad=True)
        x.sum().backward()
        gradient = x.grad
        processes.sum_gradients([x])
        assert x.grad is gradient
        assert processes.total(x) is x
        assert processes.in_turns([1, 2], lambda number: 2 * number) == [2, 4]
        assert processes.of_first("x") == "x"
        assert processes.every(True)


def test_what_has_one_result_for_many_runs_refuses_several_processes(monkeypatch) -> None:
    model = mlp()
    data = toy_data(model, 40)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for run_alone in (
        lambda: curve(model, data, ["3%"]),
        lambda: sensitivity(model, data),
        lambda: quantize(model, data, max_drop="snr:10dB"),
    ):
        with pytest.raises(ConfigError, match=r"process 1 of 2 .* runs in one process"):
            run_alone()
