import pytest

from onnx_cgmq.api import measured_costs
from onnx_cgmq.settings import built_in_targets, load_target
from onnx_cgmq.settings.cost_table import CostTable

TABLE = CostTable(unit="ns", float=0.25, activations=(8,), weights={4: (0.01,), 8: (0.02,)})


def test_list(cli):
    result = cli("targets")
    assert result.exit_code == 0
    for name in built_in_targets():
        assert name in result.stdout
        assert load_target(name).description in result.stdout


def test_one_is_shown_as_a_file_to_start_from(cli, tmp_path):
    result = cli("targets", "qonnx")
    assert result.exit_code == 0
    path = tmp_path / "qonnx.toml"
    path.write_text(result.stdout)
    assert load_target(path) == load_target("qonnx")


def test_unknown(cli):
    result = cli("targets", "nativ")
    assert result.exit_code == 2
    assert "did you mean 'native'" in result.stderr


@pytest.fixture
def measured(monkeypatch):
    """Stands in for the measurement: has the arguments of the last one."""
    given = {}

    def measure_costs(*, progress, **settings):
        given.update(settings)
        progress("timing")
        return TABLE

    monkeypatch.setattr(measured_costs, "measure_costs", measure_costs)
    return given


def test_measured_costs_are_added_to_the_file_that_they_are_measured_for(cli, measured, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[weights]\nwidths = [4, 8]\n[activations]\nwidths = [8]\n")
    result = cli("targets", path, "--measure")
    assert result.exit_code == 0
    assert measured == {"target": str(path)}
    assert "timing" in result.stderr
    with path.open("a") as file:
        file.write(result.stdout)
    assert load_target(path).cost == TABLE


def test_what_is_measured_may_be_given(cli, measured):
    options = ("--widths", "2,4", "--activation-widths", "4,8", "--rounds", "3")
    assert cli("targets", "--measure", *options).exit_code == 0
    assert measured == {"widths": (2, 4), "activation_widths": (4, 8), "rounds": 3}


def test_widths_without_measurement_are_a_mistake(cli):
    result = cli("targets", "ort-cpu", "--widths", "4")
    assert result.exit_code == 2
    assert "--measure" in result.stderr
