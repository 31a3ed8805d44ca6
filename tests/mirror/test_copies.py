"""A copy of a mirror is a mirror of its own, with the same state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.preparation.prepare import prepare
from tests.support.toys import convnet, gated_mirror, guided_steps, toy_data


@pytest.fixture
def learned() -> Mirror:
    """A mirror in the middle of a run: some widths are narrow, one weight does not learn."""
    _, mirror, data = gated_mirror(convnet())
    guide = Guide(mirror, "6%", steps=20)
    guided_steps(mirror, guide, data, 20)
    mirror.value_parameters["k1"].requires_grad_(False)
    return mirror.eval()


def inputs() -> torch.Tensor:
    return torch.from_numpy(toy_data(convnet())["x"])


def test_a_copy_computes_the_same_and_has_the_same_plan(learned: Mirror) -> None:
    copied = copy.deepcopy(learned)
    assert torch.equal(copied(inputs())["y"], learned(inputs())["y"])
    assert copied.plan().to_json() == learned.plan().to_json()
    assert not copied.training
    for (name, one), (other_name, other) in zip(
        learned.named_parameters(), copied.named_parameters(), strict=True
    ):
        assert name == other_name
        assert one.requires_grad == other.requires_grad
        assert one.data_ptr() != other.data_ptr()


def test_what_one_learns_does_not_change_the_other(learned: Mirror) -> None:
    before = learned(inputs())["y"].detach().clone()
    copied = copy.deepcopy(learned)
    assert all(quantizer.observer is None for quantizer in copied.quantizers.values())
    learned.zero_grad()
    copied(inputs())["y"].square().sum().backward()
    assert all(parameter.grad is None for parameter in learned.parameters())
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(0.1)
    for quantizer in copied.quantizers.values():
        quantizer.set_gate(torch.zeros(quantizer.spec.gate_shape))
    assert torch.equal(learned(inputs())["y"], before)
    assert not torch.equal(copied(inputs())["y"], before)


def test_a_mirror_in_another_module_and_twice_is_copied_once(learned: Mirror) -> None:
    pair = torch.nn.ModuleList([learned, learned])
    copied = copy.deepcopy(pair)
    assert copied[0] is copied[1] is not learned


def test_a_copy_of_a_float_mirror_in_double_precision_stays_so() -> None:
    mirror = Mirror(prepare(convnet())).double()
    copied = copy.deepcopy(mirror)
    assert {parameter.dtype for parameter in copied.parameters()} == {torch.float64}
    assert torch.equal(copied(inputs().double())["y"], mirror(inputs().double())["y"])


@pytest.mark.parametrize("use_buffers", [False, True])
def test_an_averaged_model_follows_weights_and_widths(use_buffers: bool) -> None:
    _, mirror, data = gated_mirror(convnet())
    guide = Guide(mirror, "6%", steps=20)
    averaged = AveragedModel(mirror, avg_fn=lambda old, new, count: new, use_buffers=use_buffers)
    narrow = []
    for _ in range(3):
        guided_steps(mirror, guide, data, 8)
        averaged.update_parameters(mirror)
        narrow.append(min(int(q.widths.min()) for q in mirror.quantizers.values()))
        assert averaged.module.plan().to_json() == mirror.plan().to_json()
        assert torch.equal(averaged(inputs())["y"], mirror(inputs())["y"])
    assert narrow[-1] < 32


def test_a_gate_that_torch_changes_in_place_is_followed(learned: Mirror) -> None:
    quantizer = learned.quantizers["k2"]
    with torch.no_grad():
        quantizer.gate.fill_(quantizer.spec.ladder.gate_of(2))
    assert learned.plan().tensors["k2"].widths.max() == 2
    assert len(learned.run(inputs(), ["k2.quantized"])["k2.quantized"].unique()) <= 3
