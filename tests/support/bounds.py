"""What every written file must keep, whatever the graph, the settings and the bound."""

from __future__ import annotations

import math
import re

import numpy as np
import onnx
import pytest
import torch
from hypothesis import strategies as st

from onnx_cgmq.cost.bound import CostKind
from onnx_cgmq.data.source import open_data
from onnx_cgmq.errors import BoundError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.inspection import inspect
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config
from onnx_cgmq.writing.write_back import write_back
from tests.support.toys import CLASSES, guided_steps


@st.composite
def configs(draw, **chosen) -> Config:
    """Settings; ``chosen`` are strategies for more of them."""
    granularity = draw(st.sampled_from(["tensor", "channel", "element"]))
    return Config(
        target="generic",
        granularity=granularity,
        activation_granularity=draw(st.sampled_from([None, "tensor"])),
        prune=granularity != "tensor" and draw(st.booleans()),
        widths=draw(st.sampled_from([(2, 4, 8, 16, 32), (2, 8), (4, 16, 32)])),
        input_width=draw(st.sampled_from([None, 8])),
        **{name: draw(strategy) for name, strategy in chosen.items()},
    )


def check_any_bound(
    model: onnx.ModelProto, x: np.ndarray, config: Config, share: float, size: bool, kernels: bool
) -> None:
    """A bound between the smallest and the float cost is kept, in the file too.

    Args:
        model: Float model from ``x`` to ``y`` ``[n, CLASSES]``.
        x: 64 samples.
        config: Settings.
        share: Where the bound lies: 0 at the smallest cost, 1 at the float model's.
        size: Whether it bounds the size.
        kernels: Whether to settle for integer kernels.
    """
    gated, mirror, data = _gated(model, x, config)
    kind = "size:" if size else ""
    smallest, unit = _smallest(mirror, kind)
    # Evenly over the orders of magnitude between the smallest and the float cost.
    whole = Guide(mirror, f"{kind}100%").bounds[0].limit
    limit = max(smallest, math.floor(max(smallest, 1) * (whole / max(smallest, 1)) ** share), 1)
    guide = Guide(mirror, f"{kind}{limit}{unit}", steps=6, interval=2)
    guided_steps(mirror, guide, data, 6)
    guide.settle(kernels)
    assert guide.satisfied
    _check(gated, mirror, guide, data)


def check_minimum(model: onnx.ModelProto, x: np.ndarray, config: Config, size: bool) -> None:
    """The minimum that an error states can be kept, and less can not; arguments as above."""
    gated, mirror, data = _gated(model, x, config)
    kind = "size:" if size else ""
    smallest, unit = _smallest(mirror, kind)
    if smallest < 2:
        return  # all can be pruned
    with pytest.raises(BoundError, match="below what is possible") as refused:
        Guide(mirror, f"{kind}{smallest - 1}{unit}")
    stated = re.search(r"the smallest is ([\d,]+) [\w ]+ \('([^']+%)'\)", str(refused.value))
    assert int(stated[1].replace(",", "")) == smallest
    for bound in (stated[2], f"{kind}{smallest}{unit}"):
        guide = Guide(mirror, bound, steps=4, interval=2)
        guided_steps(mirror, guide, data, 4)
        guide.settle()
        assert guide.satisfied
    assert guide.costs == (smallest,)
    _check(gated, mirror, guide, data)


def _gated(model: onnx.ModelProto, x: np.ndarray, config: Config):
    float_model = prepare(model)
    gated = insert_gates(float_model, config)
    labels = np.random.default_rng(0).integers(0, CLASSES, len(x))
    data = open_data({"x": x, "label": labels}, float_model)
    mirror = Mirror(gated)
    calibrate(mirror, data)
    return gated, mirror, data


def _check(gated, mirror, guide: Guide, data) -> None:
    """The plan, the file and onnxruntime agree, within the bound."""
    plan = guide.plan()
    written = write_back(gated, plan)
    report = inspect(written)
    assert report.bops == plan.cost.bops
    assert report.weight_bytes == plan.cost.weight_bytes
    (bound,) = guide.bounds
    size = bound.kind is CostKind.SIZE
    assert bound.is_satisfied_by(report.weight_bytes if size else report.bops)
    x = data.batch(np.arange(32)).inputs["x"]
    with torch.no_grad():
        expected = mirror({"x": torch.from_numpy(x)})["y"].numpy()
    scale = max(float(np.abs(expected).max()), 1e-3)
    for optimize in (False, True):
        session = open_session(written, threads=1, optimize=optimize)
        (found,) = session.run(["y"], {"x": x})
        # Sums in another order may move a code by one; few do.
        close = np.abs(found - expected) <= 1e-4 * scale
        assert close.all(axis=1).mean() > 0.8


def _smallest(mirror: Mirror, kind: str) -> tuple[int, str]:
    """The smallest possible cost and its unit."""
    (smallest,), _ = Guide(mirror, f"{kind}100%").budget.minimum()
    return int(smallest), "B" if kind else "BOP"
