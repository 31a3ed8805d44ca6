from __future__ import annotations

import json

import pytest

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.encodings import Encoding
from onnx_cgmq.contract.given_plan import given_plan
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.errors import ConfigError
from tests.contract.test_encodings import ENTRY, tensor

AIMET = {"version": "1.0.0", "activation_encodings": [ENTRY], "param_encodings": []}
OVERRIDES = {"t": [{"quant_type": "QUInt8", "scale": 0.5, "zero_point": 3}]}
PLAN = BitPlan(tensors={"t": tensor("t")})


@pytest.mark.parametrize(
    ("content", "own"), [(AIMET, False), (OVERRIDES, False), (json.loads(PLAN.to_json()), True)]
)
def test_a_file_is_told_by_its_fields(tmp_path, content, own) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps(content))
    from_file, from_content = given_plan(path), given_plan(content)
    assert from_file.own is from_content.own is own
    assert from_file.encodings["t"].width == 8
    assert str(path) in from_file.source


def test_a_plan_is_taken_as_it_is() -> None:
    given = given_plan(PLAN)
    assert given.own
    assert given_plan(given) is given
    assert given_plan(None) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON: .*give a plan of onnx-cgmq"),
        ("[1]", "is not a JSON object; give a plan"),
        ("{}", "has no width for any tensor"),
        ('{"tensors": {}}', "bit plan version None"),
        ('{"t": 3}', "tensor 't': .*not a list of objects"),
        (json.dumps(AIMET | {"version": "3"}), "version '3'"),
        (json.dumps(AIMET | {"activation_encodings": [ENTRY | {"bw": 7}]}), "'t': 7 bits"),
        ("\xff", "is not JSON"),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(tmp_path, text, message) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=f"plan .*bad.json:? .*{message}"):
        given_plan(path)


def test_a_file_that_is_not_there_and_what_is_no_plan_are_errors(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json can't be read: No such file"):
        given_plan(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="the plan is a int; give a plan"):
        given_plan(3)


def test_a_plan_that_encodings_can_not_say_is_an_error() -> None:
    with pytest.raises(ConfigError, match="the plan: tensor 't' has widths 0"):
        given_plan(BitPlan(tensors={"t": tensor("t", widths=0)}))


def test_it_can_be_part_of_a_fingerprint() -> None:
    fields = given_plan(OVERRIDES).model_dump(mode="json")
    again = Encoding.model_validate(fields["encodings"]["t"])
    assert (again.role, float(again.step)) == (Role.ACTIVATION, 0.5)
