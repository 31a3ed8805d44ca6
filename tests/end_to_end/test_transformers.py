"""Transformers as exporters write them: counted, quantized, and in integers from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_cgmq
from onnx_cgmq.contract.events import Notice
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.graph.input_shapes import set_input_shapes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config
from tests.support.bert import (
    HEADS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    Bert,
    Decoder,
    export_bert,
    export_decoder,
)

pytestmark = pytest.mark.slow

LENGTH = 16
SHAPES = {"input_ids": (1, LENGTH), "attention_mask": (1, LENGTH)}


def _fused(folder: Path) -> onnx.ModelProto:
    """What onnxruntime's optimizer of transformers makes of the encoder."""
    from onnxruntime.transformers.optimizer import optimize_model

    path = folder / "float.onnx"
    onnx.save(export_bert(), path)
    optimized = optimize_model(
        str(path), model_type="bert", num_heads=HEADS, hidden_size=WIDTH, opt_level=0
    )
    assert optimized.get_fused_operator_statistics()["Attention"] == LAYERS
    optimized.save_model_to_file(str(path))
    return onnx.load(path)


@pytest.mark.parametrize("exporter", ["fixed length", "open length", "dynamo", "fused"])
def test_all_exports_of_one_bert_have_the_multiply_accumulates_counted_by_hand(
    exporter, tmp_path
) -> None:
    model = {
        "fixed length": lambda: export_bert(length=LENGTH),
        "open length": export_bert,
        "dynamo": lambda: export_bert(dynamo=True),
        "fused": lambda: _fused(tmp_path),
    }[exporter]()
    assert inspect(model, SHAPES).macs == Bert.macs(LENGTH)
    prepared = prepare(model)
    set_input_shapes(prepared, SHAPES)
    gated = insert_gates(prepared, Config.create(shapes=SHAPES))
    assert CostModel.of(gated).macs == Bert.macs(LENGTH)
    if exporter != "fixed length":
        assert inspect(model).macs == Bert.macs(1)  # what the file leaves open is 1, not its heads


def test_all_products_of_an_encoder_run_in_integers() -> None:
    """Also the second one of an attention, whose shape other nodes read."""
    rng = np.random.default_rng(0)
    data = {
        "input_ids": rng.integers(0, VOCABULARY, (8, LENGTH)),
        "attention_mask": np.ones((8, LENGTH), np.int64),
    }
    result = onnx_cgmq.quantize(export_bert(), data, "size:50%", validation=data, effort="fast")
    assert result.plan.cost.macs == Bert.macs(LENGTH)
    report = inspect(result.model, kernels=True)
    assert report.macs == Bert.macs(LENGTH)
    assert {node.kernel for node in report.nodes} == {Kernel.INTEGER}


@pytest.mark.parametrize(("length", "past"), [(3, 5), (8, 0)])
def test_a_decoder_with_a_cache_that_may_be_empty(length, past) -> None:
    rng = np.random.default_rng(0)
    cached = rng.normal(size=(2, 8, HEADS, past, WIDTH // HEADS)).astype(np.float32)
    data = {
        "input_ids": rng.integers(0, VOCABULARY, (8, length)),
        "past_key_values.0.key": cached[0],
        "past_key_values.0.value": cached[1],
    }
    result = onnx_cgmq.quantize(export_decoder(), data, "size:50%", validation=data, effort="fast")
    assert result.plan.cost.macs == inspect(result.model).macs == Decoder.macs(length, past)
    assert not [event for event in result.events if isinstance(event, Notice)]
