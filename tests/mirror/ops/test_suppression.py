from __future__ import annotations

import numpy as np
import pytest

from tests.support.referee import assert_like_onnxruntime, parse, run_mirror

SIGNATURE = "float[2,n,4] b, float[2,3,n] s, int64[1] limit, float[1] iou, float[1] least"


def _feeds(seed: int, *, centred: bool, limit: int = 4, iou: float = 0.3) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    boxes = generator.random((2, 30, 4), dtype=np.float32)
    if centred:
        boxes[..., 2:] *= 0.5
    scores = generator.random((2, 3, 30), dtype=np.float32)
    scores[:, 1] = scores[:, 1].round(1)  # of equal scores the first box goes first
    return {
        "b": boxes,
        "s": scores,
        "limit": np.array([limit]),
        "iou": np.array([iou], np.float32),
        "least": np.array([0.4], np.float32),
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("limit", "iou"), [(4, 0.3), (100, 0.5), (2, 0.0), (0, 0.5)])
def test_same_as_onnxruntime(seed: int, centred: bool, limit: int, iou: float) -> None:
    body = f"y = NonMaxSuppression<center_point_box={int(centred)}>(b, s, limit, iou, least)"
    model = parse(SIGNATURE, "int64[k,3] y", body, 11)
    assert_like_onnxruntime(model, _feeds(seed, centred=centred, limit=limit, iou=iou))


def test_scores_need_no_threshold() -> None:
    feeds = _feeds(0, centred=False)
    del feeds["least"]
    signature = SIGNATURE.rsplit(",", 1)[0]
    body = "y = NonMaxSuppression(b, s, limit, iou)"
    assert_like_onnxruntime(parse(signature, "int64[k,3] y", body, 10), feeds)


def test_nothing_is_kept_without_a_limit_or_boxes() -> None:
    model = parse("float[1,n,4] b, float[1,1,n] s", "int64[k,3] y", "y = NonMaxSuppression(b, s)")
    for count in (0, 2):
        boxes = np.ones((1, count, 4), np.float32)
        (y,) = run_mirror(model, {"b": boxes, "s": np.ones((1, 1, count), np.float32)})
        assert y.shape == (0, 3)
