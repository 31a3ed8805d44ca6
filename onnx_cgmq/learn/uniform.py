"""Learns a mirror whose weights, and whose activations, all have one width: to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnx_cgmq.contract.events import Event, StageProgress
from onnx_cgmq.cost.bops import Widths
from onnx_cgmq.cost.bound import Bound
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.malloc import freed_memory_kept
from onnx_cgmq.learn.opened_run import OpenedRun
from onnx_cgmq.learn.outcome import Outcome
from onnx_cgmq.learn.pair_room import leave_room_for_pairs
from onnx_cgmq.learn.run import Learned
from onnx_cgmq.learn.schedule import Schedule
from onnx_cgmq.learn.snapshot import Best, snapshot
from onnx_cgmq.learn.stage_work import StageWork


@freed_memory_kept()
def learn_with_widths(
    run: OpenedRun, widths: Widths, bound: Bound, emit: Callable[[Event], None], schedule: Schedule
) -> Learned:
    """Learns with given widths, as far as a schedule goes that has stages.

    Args:
        run: The run; its mirror is in the calibrated state.
        widths: The widths of all tensors.
        bound: The bound that these keep.
        emit: Is called with the progress.
        schedule: What to do; without stages nothing is learned after calibration.
    """

    def show(stage: str, done: int, total: int) -> None:
        emit(StageProgress(stage, done, total))

    evaluator, stages = run.judgement.evaluator, schedule.stages
    guide = Guide(run.mirror, bound, target=run.config.target)
    guide.set_widths(dict(widths))
    leave_room_for_pairs(run.mirror, spare=1)
    guide.release()
    best = Best(*evaluator.evaluate(run.mirror), state=snapshot(run.mirror))
    if stages is not None and stages.reconstruction_steps:
        judgement, train = run.judgement, run.data.train
        work = StageWork(guide, train, judgement.teacher, judgement.loss, run.config, show)
        work.reconstruct(stages, best)
        loss, accuracy = evaluator.evaluate(run.mirror)
        if loss < best.loss:
            best = replace(best, loss=loss, accuracy=accuracy, state=snapshot(run.mirror))
    best.restore(run.mirror)
    outcome = Outcome(
        complete=True,
        reason="complete",
        epochs=0,
        best_epoch=0,
        validation_loss=best.loss,
        validation_accuracy=best.accuracy,
    )
    return Learned(guide, outcome, None)
