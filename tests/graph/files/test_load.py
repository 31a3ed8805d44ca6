from __future__ import annotations

import os
import stat

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.errors import ModelError, OutputError
from onnx_cgmq.graph.files.load import load_model, save_model


def small_model() -> onnx.ModelProto:
    w = numpy_helper.from_array(np.arange(600, dtype=np.float32).reshape(20, 30), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 20])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 30])
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")
    graph = helper.make_graph([node], "g", [x], [y], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture
def external(tmp_path):
    path = tmp_path / "big.onnx"
    onnx.save(
        small_model(), path, save_as_external_data=True, location="big.data", size_threshold=0
    )
    return path


def point_to(path, location):
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(proto.SerializeToString())


def weight(model: ir.Model):
    return model.graph.initializers["w"].const_value.numpy()


def test_path_proto_and_graph_give_the_same(tmp_path):
    proto = small_model()
    onnx.save(proto, tmp_path / "m.onnx")
    for source in (tmp_path / "m.onnx", str(tmp_path / "m.onnx"), proto, load_model(proto)):
        model = load_model(source)
        assert [node.name for node in model.graph] == ["mm"]
        np.testing.assert_array_equal(weight(model), np.arange(600).reshape(20, 30))


def test_the_callers_model_is_not_shared():
    mine = load_model(small_model())
    loaded = load_model(mine)
    loaded.graph.remove(next(iter(loaded.graph)), safe=False)
    loaded.metadata_props["a"] = "b"
    assert len(mine.graph) == 1
    assert not mine.metadata_props


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere\.onnx does not exist; check the path"):
        load_model(tmp_path / "nowhere.onnx")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is a folder; give the ONNX file"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"not an onnx file at all", b"PK\x03\x04 zip", b"\xff" * 64])
def test_a_file_that_is_not_onnx_is_refused(tmp_path, content):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.onnx is not .*ONNX.*again"):
        load_model(path)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.onnx"
    path.touch()
    with pytest.raises(ModelError, match=r"empty\.onnx is not an ONNX model: it has no graph"):
        load_model(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    content = small_model().SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"cut\.onnx is not"):
        load_model(path)


def test_an_invalid_proto_is_refused_with_the_reason():
    proto = small_model()
    proto.graph.node[0].input[1] = "nowhere"
    with pytest.raises(ModelError, match=r"ModelProto is not a valid ONNX model: .*nowhere"):
        load_model(proto)


def test_external_data_is_read_beside_the_model(external, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    np.testing.assert_array_equal(weight(load_model(external)), np.arange(600).reshape(20, 30))


def test_missing_external_data_is_refused(external):
    (external.parent / "big.data").unlink()
    with pytest.raises(ModelError, match=r"big\.onnx.*'w' is missing.*'big\.data'.*copy it there"):
        load_model(external)


def test_truncated_external_data_is_refused(external):
    data = external.parent / "big.data"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"'w' is truncated: 'big\.data' has 100 bytes, 2,400"):
        load_model(external)


@pytest.mark.parametrize("location", ["../secret.data", "sub/../../secret.data", "/etc/hostname"])
def test_external_data_outside_of_the_folder_is_refused(external, location):
    (external.parent.parent / "secret.data").write_bytes(bytes(2400))
    point_to(external, location)
    with pytest.raises(ModelError, match=r"big\.onnx.*'w'"):
        load_model(external)


def test_the_error_on_external_data_outside_says_what_to_do(external):
    point_to(external, "../secret.data")
    with pytest.raises(ModelError, match=r"outside the model's folder.*move the data file beside"):
        load_model(external)


def test_external_data_behind_a_link_is_refused(external, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.data"
    outside.write_bytes(bytes(2400))
    (external.parent / "link.data").symlink_to(outside)
    point_to(external, "link.data")
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_model(external)


def test_missing_external_data_of_a_proto_is_refused(external, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    proto = onnx.load(external, load_external_data=False)
    with pytest.raises(ModelError, match="or give the path of the model's file"):
        load_model(proto)


def test_save_includes_external_data(external, tmp_path_factory):
    target = tmp_path_factory.mktemp("other") / "one.onnx"
    save_model(load_model(external), target)
    assert [file.name for file in target.parent.iterdir()] == ["one.onnx"]
    np.testing.assert_array_equal(weight(load_model(target)), np.arange(600).reshape(20, 30))


def test_save_over_its_own_source(external):
    save_model(load_model(external), external)
    np.testing.assert_array_equal(weight(load_model(external)), np.arange(600).reshape(20, 30))


def test_save_splits_a_model_that_is_too_large_for_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr("onnx_cgmq.graph.files.load._PROTO_LIMIT", 1000)
    model = load_model(small_model())
    save_model(model, tmp_path / "large.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    np.testing.assert_array_equal(weight(load_model(tmp_path / "large.onnx")), weight(model))


def test_saved_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    save_model(load_model(small_model()), tmp_path / "m.onnx")
    modes = {stat.S_IMODE(os.stat(file).st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_text("old")

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OutputError, match=r"can't write .*m\.onnx: No space left on device"):
        save_model(load_model(small_model()), path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_save_into_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(OutputError, match="check its folder"):
        save_model(load_model(small_model()), tmp_path / "no" / "m.onnx")


@pytest.mark.parametrize("location", ["big.data", "sub/big.data"])
def test_a_model_is_judged_alike_with_and_without_external_data(tmp_path, location):
    (tmp_path / "sub").mkdir()
    proto = small_model()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert load_model(proto).graph.outputs[0].shape is None
    path = tmp_path / "big.onnx"
    onnx.save(proto, path, save_as_external_data=True, location=location, size_threshold=0)
    loaded = load_model(path)
    assert loaded.graph.outputs[0].shape is None
    np.testing.assert_array_equal(weight(loaded), np.arange(600).reshape(20, 30))
    wrong = small_model()
    wrong.graph.node[0].op_type = "Mystery"
    with pytest.raises(ModelError, match="Mystery"):
        load_model(wrong)
    onnx.save(wrong, path, save_as_external_data=True, location=location, size_threshold=0)
    with pytest.raises(ModelError, match="Mystery"):
        load_model(path)


def test_maps_are_refused_with_a_way_out():
    proto = small_model()
    proto.graph.node.append(
        helper.make_node(
            "ZipMap", ["y"], ["p"], domain="ai.onnx.ml", classlabels_int64s=[*range(30)]
        )
    )
    element = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    maps = helper.make_value_info("p", helper.make_sequence_type_proto(element))
    proto.graph.output.append(maps)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    with pytest.raises(ModelError, match=r"output 'p' is a sequence of maps .* zipmap=False"):
        load_model(proto)
