from __future__ import annotations

import numpy as np
import pytest

from onnx_cgmq.errors import UnsupportedOperatorError
from tests.support.referee import assert_like_onnxruntime, parse, run_mirror

POOL = "pool_int64s=[2,3,5,4,5,6,7,8,6,7,2,3,5], ngram_counts=[0,4,10]"


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("lengths", [(1, 1), (2, 2), (1, 3), (3, 3)])
@pytest.mark.parametrize("skips", [0, 1, 5])
@pytest.mark.parametrize("shape", ["9", "2,9"])
def test_same_as_onnxruntime(mode: str, lengths: tuple[int, int], skips: int, shape: str) -> None:
    body = (
        f'y = TfIdfVectorizer<mode="{mode}", {POOL}, max_skip_count={skips}, '
        f"min_gram_length={lengths[0]}, max_gram_length={lengths[1]}, "
        "ngram_indexes=[0,1,2,3,4,5,6,7], weights=[1.0,2.0,0.5,3.0,1.5,1.0,4.0,0.25]>(x)"
    )
    model = parse(f"int64[{shape}] x", "float y", body, 9)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    x = np.array([[2, 3, 5, 6, 7, 8, 2, 3, 5], [5, 5, 1, 6, 6, 7, 7, 4, 2]])
    assert_like_onnxruntime(model, {"x": x if "," in shape else x[0]})


def test_weights_of_a_doubtful_order_are_refused() -> None:
    body = (
        'y = TfIdfVectorizer<mode="TFIDF", pool_int64s=[1,2], ngram_counts=[0], max_skip_count=0, '
        "min_gram_length=1, max_gram_length=1, ngram_indexes=[1,0], weights=[1.0,2.0]>(x)"
    )
    with pytest.raises(UnsupportedOperatorError, match="order of the outputs"):
        run_mirror(parse("int64[2] x", "float[2] y", body, 9), {"x": np.array([1, 2])})
