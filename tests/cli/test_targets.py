from onnx_cgmq.settings import built_in_targets, load_target


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
