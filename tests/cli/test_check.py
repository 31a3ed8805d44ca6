def test_inspect_shows_widths_and_cost(cli, model):
    result = cli("inspect", model)
    assert result.exit_code == 0, result.output
    assert "matmul" in result.stdout
    assert "100.000%" in result.stdout


def test_inspect_at_a_shape(cli, model, only_json):
    macs = only_json(cli("inspect", model, "--shape", "x=5x2", "--json"))["macs"]
    assert macs == 5 * only_json(cli("inspect", model, "--json"))["macs"]
    assert cli("inspect", model, "--shape", "z=5x2").exit_code == 2


def test_inspect_json(cli, model, only_json):
    document = only_json(cli("inspect", model, "--json"))
    assert document["rbop"] == 1.0
    assert document["nodes"][0]["name"] == "matmul"


def test_verify_shows_agreement(cli, model, data):
    result = cli("verify", model, model, "--data", data)
    assert result.exit_code == 0, result.output
    assert "100.00% (reference 100.00%)" in result.stdout
    assert "same class" in result.stdout


def test_verify_json(cli, model, data, only_json):
    document = only_json(cli("verify", model, model, "--data", data, "--bound", "100%", "--json"))
    assert document["accuracy"] == document["class_agreement"] == 1.0
    assert document["within_bound"]


def test_verify_fails_over_the_bound(cli, model, data, only_json):
    result = cli("verify", model, model, "--data", data, "--bound", "50%", "--json")
    assert result.exit_code == 7
    assert "allows" in result.stderr
    assert only_json(result)["error"]["type"] == "VerificationError"


def test_bad_files(cli, data, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    assert cli("inspect", bad).exit_code == 3
    assert cli("verify", bad, bad, "--data", data).exit_code == 3


def test_data_that_does_not_fit(cli, model, tmp_path):
    result = cli("verify", model, model, "--data", tmp_path / "missing.npz")
    assert result.exit_code == 4
    assert "missing.npz: no such file" in result.stderr
