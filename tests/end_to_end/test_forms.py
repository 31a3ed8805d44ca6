"""Networks as people export them, in every form: outputs and cost of the gated graph."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_cgmq as cgmq
from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.form import Form
from onnx_cgmq.data.source import open_data
from onnx_cgmq.ort.session import open_session, open_written
from tests.support.networks import NETWORKS, export
from tests.support.plans import OF_ANY_WIDTH

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")  # deprecations of the exporters
@pytest.mark.parametrize("name", NETWORKS)
def test_a_plan_in_every_form(name) -> None:
    network = NETWORKS[name]
    model = cgmq.prepare(export(network, dynamo=False))
    x = network.inputs(32).numpy()
    gated = cgmq.insert_gates(model, form="qonnx", widths=(2, 4, 8))
    mirror = cgmq.Mirror(gated)
    cgmq.calibrate(mirror, open_data({"x": x}, model))
    rng = np.random.default_rng(0)
    for quantizer in mirror.quantizers.values():
        spec = quantizer.spec
        if spec.role is not Role.BIAS:
            quantizer.set_gate(quantizer.gate_for(rng.choice(spec.ladder.widths, spec.gate_shape)))
    plan = cgmq.Guide(mirror, "100%").plan()
    (expected,) = open_session(mirror.to_model(), optimize=False).run(None, {"x": x})
    for form in OF_ANY_WIDTH:
        written = cgmq.write_back(gated, plan, form=form)
        report = cgmq.inspect(written)
        assert (report.bops, report.weight_bytes) == (plan.cost.bops, plan.cost.weight_bytes)
        (found,) = open_written(written).run(None, {"x": x})
        far = np.abs(found - expected) > 1e-5 * np.abs(expected).max()
        # With optimizations a sum in another order may move a code by one.
        assert far.mean() < (0.05 if form is Form.ORT else 1e-9), form
