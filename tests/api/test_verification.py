import json
import math

import numpy as np
import onnx
import pytest

from onnx_cgmq.api import verification
from onnx_cgmq.api.verification import LEAST_AGREEMENT_DB, verify
from onnx_cgmq.errors import AgreementError, BoundError, DataError, ModelError, VerificationError
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.ort import batch_size

LABELS = np.array([0, 1, 2, 0])
IMAGES = np.eye(3, dtype=np.float32)[LABELS]


def linear(weight, output="scores", batch="n"):
    """The float model ``scores = x @ weight``."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], [output], name="matmul")],
        "linear",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, 3])],
        [onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [batch, "c"])],
        [onnx.numpy_helper.from_array(np.asarray(weight, np.float32), "w")],
    )
    opset = [onnx.helper.make_opsetid("", 21)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)


IDENTITY = np.eye(3)
SWAPPED = np.eye(3)[[0, 2, 1]]


def test_verify_of_a_model_with_itself_finds_no_difference():
    check = verify(linear(IDENTITY), linear(IDENTITY), (IMAGES, LABELS), bound="100%")
    assert check.samples == 4
    assert check.class_agreement == check.accuracy == check.reference_accuracy == 1.0
    assert check.max_abs_difference == check.mean_abs_difference == 0.0
    assert (check.bops, check.rbop, check.weight_bytes) == (9 * 32 * 32, 1.0, 36)
    assert check.bound == "100%"
    assert check.within_bound


def test_models_with_large_values_are_compared_in_small_batches(monkeypatch):
    run, sizes = verification.run_batch, []

    def watched(session, batch):
        sizes.append(len(batch.indices))
        return run(session, batch)

    monkeypatch.setattr(verification, "run_batch", watched)
    whole = verify(linear(IDENTITY), linear(SWAPPED), (IMAGES, LABELS))
    assert set(sizes) == {4}
    sizes.clear()
    monkeypatch.setattr(batch_size, "_LARGEST_BYTES", 2 * 3 * 4)
    assert verify(linear(IDENTITY), linear(SWAPPED), (IMAGES, LABELS)) == whole
    assert set(sizes) == {2}


def test_verify_of_another_model_finds_the_differences():
    check = verify(linear(IDENTITY), linear(SWAPPED), (IMAGES, LABELS))
    assert check.class_agreement == check.accuracy == 0.5
    assert check.reference_accuracy == 1.0
    assert check.max_abs_difference == 1.0
    assert check.mean_abs_difference == pytest.approx(4 / 12)
    assert check.outputs["scores"].snr_db == 0.0  # four squares of 1, and four differences of 1
    assert check.bound is check.within_bound is None


def test_verify_notes_operators_that_may_not_be_counted():
    model = linear(IDENTITY, output="h")
    model.opset_import.add(domain="com.microsoft", version=1)
    sample = onnx.helper.make_node("SampleOp", ["h"], ["scores"], domain="com.microsoft")
    model.graph.node.append(sample)
    model.graph.output[0].name = "scores"
    check = verify(linear(IDENTITY), model, IMAGES, bound="100%")
    assert check.class_agreement == 1.0
    (note,) = check.notes
    assert note.startswith("com.microsoft.SampleOp (1 node) is not known")
    assert json.loads(check.to_json())["notes"] == [note]


def test_a_mirror_as_reference_stays_in_training_mode():
    mirror = Mirror(linear(IDENTITY))
    mirror.train()
    check = verify(mirror, linear(IDENTITY), (IMAGES, LABELS))
    assert check.class_agreement == check.reference_accuracy == 1.0
    assert check.mirror_db == math.inf
    assert check.agrees
    assert mirror.training


def test_a_model_that_differs_from_its_mirror_is_an_error():
    with pytest.raises(AgreementError, match="than the mirror"):
        verify(Mirror(linear(IDENTITY)), linear(SWAPPED), (IMAGES, LABELS))


def test_a_float_reference_may_differ_but_optimizations_may_not(monkeypatch):
    check = verify(linear(IDENTITY), linear(SWAPPED), (IMAGES, LABELS))
    assert check.mirror_db is None
    assert check.optimization_db == math.inf
    plain = verification.open_session

    def something_else(model, *, optimize):
        return plain(linear(SWAPPED), optimize=optimize)

    monkeypatch.setattr(verification, "open_session", something_else)
    with pytest.raises(AgreementError, match="optimizations"):
        verify(linear(SWAPPED), linear(IDENTITY), (IMAGES, LABELS))


def test_a_model_that_differs_from_its_mirror_may_be_as_near_to_the_float_model():
    """As where codes of few bits flip: both are as far from the float model, in other places."""
    images = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    mirror, deployed = (linear(IDENTITY + 0.2 * np.eye(3, k=k)) for k in (1, -1))
    with pytest.raises(AgreementError, match="than the mirror"):
        verify(Mirror(mirror), deployed, images)
    check = verify(Mirror(mirror), deployed, images, float_model=linear(IDENTITY))
    assert check.agrees
    assert check.as_near
    assert check.agreement_db < LEAST_AGREEMENT_DB
    worse = linear(IDENTITY + 0.4 * np.eye(3, k=-1))
    with pytest.raises(AgreementError, match="than the mirror"):
        verify(Mirror(mirror), worse, images, float_model=linear(IDENTITY))


def test_what_chance_decides_is_not_judged():
    random = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[n,3] x) => (float[n,3] scores)
        <float[3,3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1}>
        { m = MatMul (x, w)  r = RandomNormalLike <scale = 9.0> (m)  scores = Add (m, r) }"""
    )
    check = verify(Mirror(random), random, (IMAGES, LABELS))
    assert check.mirror_db is check.optimization_db is None
    assert check.agrees


def test_verify_without_labels_has_no_accuracy():
    check = verify(linear(IDENTITY), linear(IDENTITY), IMAGES)
    assert check.class_agreement == 1.0
    assert check.accuracy is check.reference_accuracy is None


def test_verify_without_class_scores_has_no_class_agreement():
    one = np.ones((3, 1))
    check = verify(linear(2 * one), linear(one), IMAGES)
    assert check.class_agreement is None
    assert check.max_abs_difference == 1.0


def test_class_scores_need_not_be_the_first_output():
    model = linear(IDENTITY)
    argmax = onnx.helper.make_node("ArgMax", ["scores"], ["class"], axis=1, keepdims=0)
    model.graph.node.append(argmax)
    model.graph.output.insert(
        0, onnx.helper.make_tensor_value_info("class", onnx.TensorProto.INT64, ["n"])
    )
    check = verify(model, model, (IMAGES, LABELS))
    assert check.accuracy == check.class_agreement == 1.0
    with pytest.raises(DataError, match="label 7 of sample 0"):
        verify(model, with_classes(model), (IMAGES, LABELS + 7))


def with_classes(model):
    """The same model, but its output says how many classes there are."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 3
    return model


def test_verify_does_not_count_padding_samples():
    deployed, reference = linear(SWAPPED, batch=3), linear(IDENTITY, batch=3)
    check = verify(reference, deployed, (IMAGES, LABELS))
    assert check.samples == 4
    assert check.class_agreement == 0.5


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("50%", r"\(100.000% of the float model\), but the bound '50%' allows 4,608 bit"),
        ("35B", "36 bytes of weights"),
    ],
)
def test_verify_refuses_a_model_that_breaks_the_bound(bound, message):
    with pytest.raises(VerificationError, match=message):
        verify(linear(IDENTITY), linear(IDENTITY), IMAGES, bound=bound)


def test_verify_accepts_a_model_that_keeps_a_bound_on_size():
    assert verify(linear(IDENTITY), linear(IDENTITY), IMAGES, bound="size:100%").within_bound


def test_verify_refuses_wrong_bounds_and_wrong_references():
    with pytest.raises(BoundError):
        verify(linear(IDENTITY), linear(IDENTITY), IMAGES, bound="little")
    with pytest.raises(ModelError, match="different outputs"):
        verify(linear(IDENTITY, output="other"), linear(IDENTITY), IMAGES)
    with pytest.raises(ModelError, match=r"output 'scores' has shape \[4, 3\]"):
        verify(linear(np.ones((3, 2))), linear(IDENTITY), IMAGES)


def test_check_as_json():
    check = verify(linear(IDENTITY), linear(SWAPPED), (IMAGES, LABELS))
    document = json.loads(check.to_json())
    assert document["class_agreement"] == 0.5
    assert document["outputs"]["scores"]["snr_db"] == 0.0
    assert document["optimization_db"] is None  # infinite
    assert "\n" not in check.to_json(indent=None)
