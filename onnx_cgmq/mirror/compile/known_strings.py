"""The strings that attributes of standard operators may have.

Any other string is refused, so that it is not taken for a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from onnx_cgmq.mirror.core.registry import Context

_KNOWN: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset(texts.split())
    for name, texts in {
        "approximate": "none tanh",
        "auto_pad": "NOTSET SAME_UPPER SAME_LOWER VALID",
        "coordinate_transformation_mode": "align_corners asymmetric half_pixel "
        "half_pixel_symmetric output_half_pixel pytorch_half_pixel tf_crop_and_resize "
        "tf_half_pixel_for_nn",
        "direction": "LEFT RIGHT bidirectional forward reverse",
        "keep_aspect_ratio_policy": "not_larger not_smaller stretch",
        "mode": "CRD DCR IDF TF TFIDF avg bicubic bilinear circular constant cubic edge linear max "
        "nearest reflect wrap",
        "nearest_mode": "ceil floor round_prefer_ceil round_prefer_floor simple",
        "norm": "L1 L2 MAX",
        "padding_mode": "border reflection zeros",
        "reduction": "add max mean min mul none sum",
    }.items()
}


def unknown_text(context: Context) -> str | None:
    """Says which string attribute of a standard operator has an unknown value, if any.

    The checker of onnx does not check these, and a handler may compare with one of two words only.
    """
    for name, known in _KNOWN.items():
        text = context.attributes.get(name, "")
        if isinstance(text, (str, bytes)) and text and text not in known:
            return f"its attribute {name} = {text!r} is unknown"
    return None
