"""The names that models of onnx-cgmq carry: domains of operators, and keys of their metadata."""

from __future__ import annotations

from typing import Final

GATED_DOMAIN: Final = "onnx_cgmq"
"""Domain of the gated quantizers, which are functions of the model."""

METADATA_PREFIX: Final = "onnx_cgmq."
"""What all keys of ours in ``metadata_props`` start with."""

PREPARED_KEY: Final = "onnx_cgmq.prepared"
"""Says that a float model has been through ``prepare()``."""

RUNTIME_KEY: Final = "onnx_cgmq.runtime"
"""Holds the oldest onnxruntime to serve, in a model that is not written yet."""

SHAPES_KEY: Final = "onnx_cgmq.shapes"
"""Holds the shapes of inputs at which cost is counted."""

SPEC_KEY: Final = "onnx_cgmq.quantizer"
"""Holds the description of a quantizer, in the ``metadata_props`` of its node."""

LIVE_KEY: Final = "onnx_cgmq.live"
"""Holds the live sets of activations, in a written model."""

PLAN_KEY: Final = "onnx_cgmq.plan"
"""Holds the widths and ranges of tensors, and their names, in a written model."""

FORM_KEY: Final = "onnx_cgmq.form"
"""Holds the form of a written model."""

QUANT_DOMAIN: Final = "qonnx.custom_op.general"
"""Domain of the operators of QONNX."""

QUANT_DOMAINS: Final = (QUANT_DOMAIN, "onnx.brevitas", "finn.custom_op.general")
"""Domains under which exporters have written the quantizers of QONNX."""
