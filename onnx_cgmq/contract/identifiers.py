"""The names that models of onnx-cgmq carry: domains of operators, and keys of their metadata."""

from __future__ import annotations

from typing import Final

GATED_DOMAIN: Final = "onnx_cgmq"
"""The domain of the gated quantizers, which are functions in the model."""

METADATA_PREFIX: Final = "onnx_cgmq."
"""The beginning of all keys of onnx-cgmq in ``metadata_props``."""

PREPARED_KEY: Final = "onnx_cgmq.prepared"
"""Marks a float model that ``prepare()`` made."""

RUNTIME_KEY: Final = "onnx_cgmq.runtime"
"""Holds the oldest onnxruntime that is to run the model, until the model is written."""

SHAPES_KEY: Final = "onnx_cgmq.shapes"
"""Holds the shapes of inputs with which cost is counted."""

SPEC_KEY: Final = "onnx_cgmq.quantizer"
"""Holds the spec of a quantizer, in the ``metadata_props`` of its node."""

LIVE_KEY: Final = "onnx_cgmq.live"
"""Holds the live sets of activations, in a written model."""

PLAN_KEY: Final = "onnx_cgmq.plan"
"""Holds the embedded plan of a written model: widths and ranges, and names of tensors."""

FORM_KEY: Final = "onnx_cgmq.form"
"""Holds the form of a written model (``ort``, ``native``, ``qonnx``)."""

QUANT_DOMAIN: Final = "qonnx.custom_op.general"
"""The domain of the operators of QONNX."""

QUANT_DOMAINS: Final = (QUANT_DOMAIN, "onnx.brevitas", "finn.custom_op.general")
"""The domains under which exporters write the quantizers of QONNX."""
