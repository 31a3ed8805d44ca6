from __future__ import annotations

import pytest

from onnx_cgmq.errors import ConfigError
from onnx_cgmq.settings import load_target

TARGET = """
[weights]
widths = [2, 4, 32]
[activations]
widths = [4, 8]
"""
TABLE = """
[cost]
unit = "cycles"
float = 16
activations = [4, 8]
[cost.weights]
2 = [0.5, 1]
4 = [1, 2.5]
"""


@pytest.fixture
def written(tmp_path):
    def write(table):
        path = tmp_path / "mine.toml"
        path.write_text(TARGET + table)
        return path

    return write


def test_a_table_is_rows_of_weights_and_columns_of_activations(written) -> None:
    target = load_target(written(TABLE))
    assert target.cost.unit == "cycles"
    assert float(target.cost.price(2, 8)) == 1
    assert float(target.cost.price(4, 8)) == 2.5
    assert load_target(target.model_dump(mode="json")) == target
    assert load_target(written("\n" + target.cost.to_toml())) == target


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("4 = [1, 2.5]", "4 = [1, 0.9]", "4-bit weights and 8-bit activations cost 0.9, less than"),
        ("4 = [1, 2.5]", "4 = [0.4, 2.5]", "4-bit weights and 4-bit activations cost 0.4, less"),
        ("float = 16", "float = 2", "cost 2.5, more than float"),
        ("4 = [1, 2.5]", "4 = [1]", "the row of 4-bit weights has 1 costs for 2 widths"),
        ("4 = [1, 2.5]", "", "weights of 4 bits are allowed but have no costs"),
        ("4 = [1, 2.5]", "4 = [1, inf]", "must be a finite number, not inf"),
        ("4 = [1, 2.5]", "4 = [1, nan]", "must be a finite number, not nan"),
        ("2 = [0.5, 1]", "2 = [0, 1]", "greater than 0"),
        ("2 = [0.5, 1]", '2 = ["a", 1]', "must be a finite number, not 'a'"),
        ("activations = [4, 8]", "activations = [8, 4]", "must be widths above 0, ascending"),
        ("activations = [4, 8]", "activations = [4, 16]", "activations of 8 bits are allowed but"),
        ("2 = [0.5, 1]\n4 = [1, 2.5]", "4 = [1, 2.5]\n2 = [0.5, 1]", "weights .* ascending"),
        ('unit = "cycles"', "", "cost.unit: Field required"),
    ],
)
def test_tables_on_which_no_guarantee_can_rest(written, before, after, reason) -> None:
    assert before in TABLE
    with pytest.raises(ConfigError, match=rf"mine\.toml: .*{reason}"):
        load_target(written(TABLE.replace(before, after)))
