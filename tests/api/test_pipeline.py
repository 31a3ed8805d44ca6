"""quantize() on tiny models: bounds, equal plans for equal seeds, interruptions, early errors."""

from __future__ import annotations

import json
import shutil
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

import onnx_cgmq
from onnx_cgmq.api import finish
from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.events import (
    EpochDone,
    Finished,
    Notice,
    StageDone,
    StageProgress,
    StageStarted,
    Started,
    StepDone,
)
from onnx_cgmq.contract.form import Form, written_form
from onnx_cgmq.contract.run_paths import checkpoint_path, plan_path
from onnx_cgmq.data.source import open_data
from onnx_cgmq.errors import (
    BoundError,
    CgmqError,
    ConfigError,
    DataError,
    ModelError,
    OutputError,
    VerificationError,
)
from onnx_cgmq.graph.files.load import tensors_of
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config
from onnx_cgmq.writing.write_back import Written
from tests.support.toys import convnet, mlp, toy_data

FAST = {"epochs": 8, "batch_size": 64}  # 3 steps an epoch, 6 of them guided
GUIDED, SETTLED = 5, 10  # steps in the middle of an epoch of both phases


class Kill(BaseException):
    """Ends a run as a kill would, because nothing handles it."""


def _raise_at(step: int, error: BaseException):
    """A progress callback that raises an error once, at a training step."""
    raised = []

    def progress(event) -> None:
        if isinstance(event, StepDone) and event.step == step and not raised:
            raised.append(event)
            raise error

    return progress


def _run(bound="3%", output=None, *, model=None, data=None, **settings):
    model = model or mlp()
    data = toy_data(model) if data is None else data
    return quantize(model, data, bound, output=output, **{**FAST, **settings})


def sequences() -> onnx.ModelProto:
    """A model that multiplies sequences of any length and takes the mean."""
    text = """
        <ir_version: 10, opset_import: ["" : 21]>
        g (float[n, steps, 2] x) => (float[n, 3] y)
        <float[2, 3] w = {1, -1, 2, 0.5, 1, -2}, int64[1] axis = {1}>
        { [mac] h = MatMul (x, w)
          y = ReduceMean <keepdims = 0> (h, axis) }
    """
    return onnx.parser.parse_model(text)


@pytest.mark.slow
def test_sizes_that_a_model_leaves_open_are_those_of_the_data() -> None:
    x = np.random.default_rng(0).normal(size=(64, 5, 2)).astype(np.float32)
    result = quantize(sequences(), {"x": x}, "6.25%", epochs=1, fix={"w": 4})
    assert result.cost.macs == result.report.macs == 5 * 2 * 3
    assert result.plan.tensors["w"].widths == 4
    assert onnx_cgmq.inspect(result.model, {"x": (1, 7, 2)}).macs == 7 * 2 * 3
    result = quantize(sequences(), {"x": x}, "6.25%", epochs=1, shapes={"x": (1, 9, 2)})
    assert result.cost.macs == 9 * 2 * 3


def test_a_run_writes_the_files_and_events_that_it_reports(tmp_path) -> None:
    output, log, events = tmp_path / "out.onnx", tmp_path / "log.jsonl", []
    model = convnet()
    data = toy_data(model)
    result = quantize(model, data, "3%", output=output, log=log, progress=events.append, **FAST)
    assert result.complete
    assert result.outcome.reason == "complete"
    assert result.outcome.epochs == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "log.jsonl",
        "out.onnx",
        "out.plan.json",
    ]

    assert result.cost.rbop <= 0.03
    report = onnx_cgmq.inspect(output)
    assert report.bops == result.report.bops == result.cost.bops == result.check.bops
    assert json.loads(plan_path(output).read_text()) == json.loads(result.plan.to_json())
    check = onnx_cgmq.verify(result.mirror, output, data, bound="3%")
    assert check.class_agreement == 1
    assert check.accuracy > 0.8

    stages = [event.stage for event in events if isinstance(event, StageStarted)]
    assert stages[:2] == ["read the model", "prepare"]
    assert stages[-4:] == ["verify", "inspect", "compare", "save"]
    moments = (StageStarted, StageProgress, StepDone)
    kinds = [type(event) for event in events if not isinstance(event, moments)]
    assert kinds == [Started, *[StageDone] * 2, *[EpochDone] * 8, Finished]
    started = next(event for event in events if isinstance(event, Started))
    assert started.float_accuracy == 1
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.step for event in steps] == list(range(1, started.total_steps + 1))
    assert {event.phase for event in steps} == {"settled"}
    assert all(event.cost_ratio <= 1 for event in steps)
    assert [record["epoch"] for record in result.history] == list(range(1, 9))
    written = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert written.count("epoch") == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("granularity", "prune"),
    [
        ("tensor", False),
        ("channel", False),
        ("element", False),
        ("channel", True),
        ("element", True),
    ],
)
def test_written_files_of_every_granularity_keep_the_bound(granularity, prune, tmp_path) -> None:
    output, model = tmp_path / "out.onnx", convnet()
    data = toy_data(model)
    bound = "0.3%" if prune else "1.5%"
    settings = {**FAST, "granularity": granularity, "prune": prune, "epochs": 4}
    result = quantize(model, data, bound, output=output, **settings)
    check = onnx_cgmq.verify(result.mirror, output, data, bound=bound)
    assert check.bops == result.cost.bops
    assert check.rbop <= float(bound.rstrip("%")) / 100
    assert check.class_agreement == 1
    if prune:
        assert any((tensor.widths == 0).any() for tensor in result.plan.tensors.values())


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"granularity": "element", "direction": "gradient"}])
def test_the_same_seed_gives_the_same_plan(settings) -> None:
    plans = [_run(seed=3, **settings).plan.to_json() for _ in range(2)]
    assert plans[0] == plans[1]


@pytest.mark.slow
def test_another_seed_gives_another_plan() -> None:
    assert _run(seed=3).plan.to_json() != _run(seed=4).plan.to_json()


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, GUIDED, SETTLED])
@pytest.mark.parametrize("granularity", ["tensor", "element"])
def test_ctrl_c_writes_the_best_model_that_keeps_the_bound(step, granularity, tmp_path) -> None:
    output, finished = tmp_path / "out.onnx", []
    interrupt = _raise_at(step, KeyboardInterrupt())

    def progress(event) -> None:
        interrupt(event)
        if isinstance(event, Finished):
            finished.append(event)

    result = _run("1.5%", output, granularity=granularity, progress=progress)
    assert not result.complete
    assert result.outcome.reason == finished[0].reason == "interrupted"
    assert not finished[0].complete
    assert result.outcome.epochs == pytest.approx(step / 3, abs=1e-3)
    assert onnx_cgmq.inspect(output).rbop <= 0.015
    check = onnx_cgmq.verify(result.mirror, output, toy_data(mlp()), bound="1.5%")
    assert check.max_abs_difference < 1e-4  # classes may tie after so few steps


def test_a_time_limit_ends_a_run_like_ctrl_c(tmp_path) -> None:
    output = tmp_path / "out.onnx"
    result = _run("1.5%", output, time_limit=1e-6)
    assert not result.complete
    assert result.outcome.reason == "time limit"
    assert onnx_cgmq.inspect(output).rbop <= 0.015


@pytest.mark.slow
@pytest.mark.parametrize("step", [GUIDED, SETTLED])
@pytest.mark.parametrize("granularity", ["tensor", "element"])
def test_a_killed_run_goes_on_to_the_same_plan(step, granularity, tmp_path) -> None:
    output = tmp_path / "out.onnx"
    with pytest.raises(Kill):
        _run(output=output, granularity=granularity, progress=_raise_at(step, Kill()))
    assert checkpoint_path(output).exists()
    assert not output.exists()
    steps = []
    resumed = _run(output=output, granularity=granularity, resume=True, progress=steps.append)
    first = next(event for event in steps if isinstance(event, StepDone))
    assert first.step == step // 3 * 3 + 1
    assert resumed.complete
    assert not checkpoint_path(output).exists()
    assert resumed.plan.to_json() == _run(granularity=granularity).plan.to_json()


@pytest.mark.slow
def test_resuming_with_nothing_to_resume_is_a_new_run(tmp_path) -> None:
    assert _run(output=tmp_path / "out.onnx", resume=True).complete
    assert _run(resume=True).complete


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"bound": "4%"}, "its bound;"),
        ({"seed": 1}, "its choice of training samples and seed;"),
        ({"direction": "gradient"}, "its direction;"),
        ({"model": mlp(1)}, "its weights,"),
        ({"data": toy_data(mlp(), seed=1)}, "its labels and training data;"),
    ],
)
def test_resuming_another_run_is_refused(change, differs, tmp_path) -> None:
    output = tmp_path / "out.onnx"
    with pytest.raises(Kill):
        _run(output=output, progress=_raise_at(GUIDED, Kill()))
    with pytest.raises(ConfigError, match=f"differs in {differs}"):
        _run(output=output, resume=True, **change)


@pytest.mark.slow
def test_the_time_limit_may_change_between_parts_of_a_run(tmp_path) -> None:
    output = tmp_path / "out.onnx"
    with pytest.raises(Kill):
        _run(output=output, progress=_raise_at(GUIDED, Kill()))
    assert not _run(output=output, resume=True, time_limit=1e-6).complete
    assert _run(output=output, resume=True, time_limit=1e6).complete


def _no_training(event) -> None:
    assert not isinstance(event, (Started, StepDone)), "training began"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"bound": "0.01%"}, BoundError),
        ({"bound": "many"}, BoundError),
        ({"data": {"x": np.zeros((4, 7), np.float32)}}, DataError),
        ({"epochs": 0}, ConfigError),
        ({"epoch": 3}, ConfigError),
        ({"loss": "hinge"}, ConfigError),
        ({"loss": "no_such_module:loss"}, ConfigError),
        ({"loss": "labels", "data": {"x": np.zeros((4, 8), np.float32)}}, DataError),
    ],
)
def test_errors_of_bound_data_and_settings_come_before_training(change, error, tmp_path) -> None:
    with pytest.raises(error):
        _run(output=tmp_path / "out.onnx", progress=_no_training, **change)
    assert not list(tmp_path.iterdir())


def test_outputs_that_can_not_be_written_are_refused_before_training(tmp_path) -> None:
    for name in ("nowhere/out.onnx", "."):
        with pytest.raises(OutputError):
            _run(output=tmp_path / name, progress=_no_training)
    for output in (None, tmp_path / "out.onnx"):
        with pytest.raises(OutputError):
            _run(output=output, log=tmp_path / "nowhere" / "log", progress=_no_training)


def test_a_full_disk_is_refused_before_training(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match="are needed"):
        _run(output=tmp_path / "out.onnx", progress=_no_training)
    assert not list(tmp_path.iterdir())


def test_a_file_that_onnxruntime_changes_is_written_for_float_kernels(monkeypatch) -> None:
    """As if onnxruntime's optimizations made something else of integer kernels."""
    right, said = finish.write, []

    def wrong(gated, plan, *, integer_kernels, **settings):
        if integer_kernels:
            plan = _negated(plan)
        return right(gated, plan, integer_kernels=integer_kernels, **settings)

    monkeypatch.setattr(finish, "write", wrong)
    result = onnx_cgmq.quantize(mlp(), toy_data(mlp()), "6.25%", epochs=1, progress=said.append)
    assert result.check.agrees
    assert all(node.kernel is onnx_cgmq.Kernel.FLOAT for node in result.report.nodes)
    assert any("float kernels" in getattr(event, "message", "") for event in said)


def test_a_file_that_computes_something_else_either_way_is_not_left_behind(
    tmp_path, monkeypatch
) -> None:
    right, output = finish.write, tmp_path / "out.onnx"
    monkeypatch.setattr(
        finish, "write", lambda gated, plan, **ways: right(gated, _negated(plan), **ways)
    )
    with pytest.raises(onnx_cgmq.AgreementError, match="than the mirror"):
        onnx_cgmq.quantize(mlp(), toy_data(mlp()), "6.25%", epochs=1, output=output)
    assert not output.exists()


def _with_values(tensor, values):
    return tensor.model_copy(update={"values": values})


def _negated(plan):
    """A plan with other weights of the same cost."""
    tensors = {
        name: tensor
        if tensor.values is None
        else tensor.model_copy(update={"values": -tensor.values})
        for name, tensor in plan.tensors.items()
    }
    return plan.model_copy(update={"tensors": tensors})


def test_a_file_that_breaks_the_bound_is_not_left_behind(tmp_path, monkeypatch) -> None:
    output = tmp_path / "out.onnx"
    monkeypatch.setattr(finish, "write", lambda *_, **__: Written(prepare(mlp()), {}))
    with pytest.raises(VerificationError, match="bound '3%'"):
        _run(output=output)
    assert not output.exists()
    assert not plan_path(output).exists()


def test_config_and_settings_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="epochs"):
        quantize(mlp(), toy_data(mlp()), "3%", config=Config(), epochs=2)


def test_without_labels_the_float_model_is_the_teacher() -> None:
    data = toy_data(mlp())
    result = _run(data={"x": data["x"]})
    assert result.outcome.validation_accuracy is None
    assert result.check.accuracy is None
    assert result.float_agreement.accuracy is None
    assert result.float_agreement.outputs["y"].snr_db > 5
    assert onnx_cgmq.verify(mlp(), result.model, data).accuracy > 0.8


def test_probabilities_are_learned_like_logits() -> None:
    model = mlp(softmax=True)
    result = _run(model=model)
    check = onnx_cgmq.verify(result.mirror, result.model, toy_data(model))
    assert check.class_agreement == 1
    assert check.accuracy > 0.8


def test_quantize_takes_a_loss_of_the_user(monkeypatch) -> None:
    calls = []

    def loss(outputs, labels, teacher):
        calls.append((set(outputs), labels.dtype, set(teacher)))
        return (outputs["y"] - teacher["y"]).square().mean()

    module = ModuleType("user_losses")
    module.distance = loss
    monkeypatch.setitem(sys.modules, "user_losses", module)
    result = _run(loss="user_losses:distance")
    assert calls[0] == ({"y"}, torch.int64, {"y"})
    assert result.complete


def test_padding_samples_of_a_fixed_batch_are_not_counted() -> None:
    model = mlp(batch=5)
    data = toy_data(mlp(), count=64)
    result = quantize(model, data, "3%", epochs=4)
    assert result.cost.rbop <= 0.03
    assert result.check.samples == 6
    assert onnx_cgmq.verify(result.mirror, result.model, data).class_agreement == 1


def test_the_file_is_compared_with_the_float_model_on_held_out_samples() -> None:
    model = mlp()
    held_out = toy_data(model, count=40, seed=7)
    result = _run(validation=held_out)
    assert result.check.samples == result.float_agreement.samples == 40
    (wanted,) = open_session(model, threads=1).run(["y"], {"x": held_out["x"]})
    (found,) = open_session(result.model, threads=1).run(["y"], {"x": held_out["x"]})
    snr = 10 * np.log10((wanted**2).sum() / ((wanted - found) ** 2).sum())
    assert result.float_agreement.outputs["y"].snr_db == pytest.approx(snr, abs=1e-3)
    same = (wanted.argmax(1) == found.argmax(1)).mean()
    assert result.float_agreement.same_class == result.float_agreement.accuracy == same
    assert result.float_agreement.float_accuracy == 1.0


def test_a_float_model_that_is_gone_at_the_end_does_not_end_the_run(tmp_path) -> None:
    path = tmp_path / "float.onnx"
    onnx.save(mlp(), path)

    def remove(event) -> None:
        if isinstance(event, Started):
            path.unlink()

    size = path.stat().st_size
    result = quantize(path, toy_data(mlp()), "3%", progress=remove, epochs=1)
    assert result.float_bytes == size
    assert result.float_agreement.samples == 19  # with the prepared model


def test_an_agreement_that_can_not_be_measured_does_not_end_the_run(monkeypatch) -> None:
    def fail(*_):
        raise ModelError("no kernel for it")

    monkeypatch.setattr(finish, "float_agreement", fail)
    told = []
    result = _run(epochs=1, progress=told.append)
    assert result.float_agreement is None
    assert "not measured: no kernel for it" in told[-2].message


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"granularity": "element"}, {"epochs": 1, "batch_size": 512}]
)
def test_a_loose_bound_still_gives_integer_kernels(settings) -> None:
    plan = _run("70%", **settings).plan
    for tensor in plan.tensors.values():
        assert tensor.role is Role.BIAS or tensor.widths.max() <= 8


def test_without_integer_kernels_tensors_may_stay_at_32_bits() -> None:
    plan = _run("100%", integer_kernels=False).plan
    assert max(tensor.widths.max() for tensor in plan.tensors.values()) == 32


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["tensor", "channel", "element"])
def test_without_integer_kernels_the_bound_is_kept(granularity, tmp_path) -> None:
    output, model = tmp_path / "out.onnx", mlp()
    data = toy_data(model)
    result = _run("20%", output, integer_kernels=False, granularity=granularity)
    check = onnx_cgmq.verify(result.mirror, output, data, bound="20%")
    assert check.bops == result.cost.bops
    assert check.class_agreement == 1


@pytest.mark.slow
@pytest.mark.parametrize("bound", ["size:20%", "220B"])
def test_a_bound_on_the_size_is_kept(bound, tmp_path) -> None:
    output = tmp_path / "out.onnx"
    result = _run(bound, output)
    report = onnx_cgmq.inspect(output)
    assert report.weight_bytes == result.cost.weight_bytes == result.check.weight_bytes
    assert onnx_cgmq.verify(result.mirror, output, toy_data(mlp()), bound=bound).within_bound


def test_a_bound_below_one_bit_operation_prunes_everything() -> None:
    result = _run("0.5BOP", granularity="element", prune=True)
    assert result.cost.bops == 0


def test_the_callers_model_and_data_are_not_changed() -> None:
    model = mlp()
    data = toy_data(model)
    before = model.SerializeToString(deterministic=True), data["x"].copy()
    quantize(model, data, "3%", epochs=1)
    assert model.SerializeToString(deterministic=True) == before[0]
    np.testing.assert_array_equal(data["x"], before[1])


def test_a_result_can_be_saved_to_another_file(tmp_path) -> None:
    result = _run()
    result.save(tmp_path / "copy.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "copy.onnx"), full_check=True)
    assert plan_path(tmp_path / "copy.onnx").exists()
    with pytest.raises(CgmqError):
        result.save(tmp_path / "nowhere" / "copy.onnx")


def test_samples_are_split_the_same_way_for_a_seed() -> None:
    data = open_data(toy_data(mlp()), prepare(mlp()))
    one, other = data.split(0.1, 5), data.split(0.1, 5)
    np.testing.assert_array_equal(one[0].indices, other[0].indices)


def test_target_values_are_learned() -> None:
    model, x = mlp(), toy_data(mlp())["x"]
    (y,) = open_session(model, threads=1).run(None, {"x": x})
    result = quantize(
        model, {"x": x, "y": y + 0.5}, "5%", loss="labels", learning_rate=0.02, **FAST
    )
    (learned,) = open_session(result.model, threads=1).run(None, {"x": x})
    assert np.mean(np.abs(learned - y - 0.5)) < np.mean(np.abs(learned - y))


def test_a_notice_says_where_the_loss_is_taken() -> None:
    model = mlp()
    model.graph.node.append(onnx.helper.make_node("ArgMax", ["y"], ["class"], "top", axis=1))
    model.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("class", onnx.TensorProto.INT64, ["n", 1])
    )
    told = []
    data = toy_data(mlp())
    quantize(model, data, "5%", progress=told.append, **{**FAST, "epochs": 1})
    started = next(event for event in told if isinstance(event, Started))
    assert started.float_accuracy == 1  # of the scores that the class is chosen from
    assert [event.message for event in told if isinstance(event, Notice)] == [
        "no gradient passes through ArgMax 'top'; the loss is taken at y"
    ]


@pytest.mark.parametrize("form", ["native", "qonnx"])
def test_other_forms_keep_the_bound_and_are_verified(form, tmp_path) -> None:
    output, told = tmp_path / "out.onnx", []
    result = _run("3%", output, epochs=2, form=form, progress=told.append)
    assert written_form(result.model).value == form
    assert result.report.bops == result.cost.bops
    assert result.check.within_bound
    assert result.check.max_abs_difference < 1e-5
    assert result.check.bops == onnx_cgmq.inspect(output).bops
    notices = [event.message for event in told if isinstance(event, Notice)]
    assert [text for text in notices if f"the form '{form}'" in text] == [result.check.notes[-1]]


def test_a_run_for_tensorrt_is_verified_and_has_float_biases_only() -> None:
    model = convnet()
    result = quantize(model, toy_data(model), "6.25%", target="tensorrt", effort="fast")
    assert written_form(result.model) is Form.TENSORRT
    assert result.report.rbop <= 0.0625
    assert result.check.max_abs_difference < 1e-5
    assert "the form 'tensorrt'" in result.check.notes[-1]
    types = {tensor.dtype.name for _, tensor in tensors_of(result.model)}
    assert types <= {"INT8", "FLOAT", "INT64"}


def test_a_target_chooses_the_form() -> None:
    assert written_form(_run("3%", epochs=1, target="qonnx").model) is Form.QONNX


@pytest.mark.parametrize(("granularity", "count"), [("element", 1), ("tensor", 0)])
def test_a_note_names_slow_integer_kernels(granularity, count) -> None:
    """Without a width for each element, weights have room for their pairs, and are INT8."""
    told = []
    quantize(
        convnet(),
        toy_data(convnet()),
        "100%",
        epochs=1,
        granularity=granularity,
        progress=told.append,
    )
    notes = [event.message for event in told if isinstance(event, Notice)]
    assert sum(note.startswith("slow integer kernels run") for note in notes) == count
