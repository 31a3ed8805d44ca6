import pytest


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


def test_inspect_says_why(cli, model, only_json):
    result = cli("inspect", model, "--why", "w", "--why", "matm*")
    assert result.exit_code == 0, result.output
    assert "'w' gets a quantizer, because MatMul 'matmul' multiplies it" in result.stdout
    assert "'matmul' runs in integers" in result.stdout
    (decision,) = only_json(cli("inspect", model, "--why", "w", "--json"))
    assert decision["verdict"] == "QUANTIZED"


def test_inspect_knows_nothing_of_other_names(cli, model):
    result = cli("inspect", model, "--why", "other")
    assert result.exit_code == 2
    assert "'*' shows all" in result.stderr


def test_debug_shows_decisions(cli, model):
    shown = cli("inspect", model, "--why", "w", "--debug").stderr
    assert "debug: 'matmul' runs in integers" in shown
    assert "debug:" not in cli("inspect", model, "--why", "w").stderr


def test_verify_shows_agreement(cli, model, data):
    result = cli("verify", model, model, "--data", data)
    assert result.exit_code == 0, result.output
    assert "100.00% (reference 100.00%)" in result.stdout
    assert "same class" in result.stdout
    assert "no difference (scores) with the reference" in result.stdout


def test_verify_json(cli, model, data, only_json):
    document = only_json(cli("verify", model, model, "--data", data, "--bound", "100%", "--json"))
    assert document["accuracy"] == document["class_agreement"] == 1.0
    assert document["within_bound"]


def test_verify_fails_over_the_bound(cli, model, data, only_json):
    result = cli("verify", model, model, "--data", data, "--bound", "50%", "--json")
    assert result.exit_code == 7
    assert "allows" in result.stderr
    assert only_json(result)["error"]["type"] == "VerificationError"


def test_verify_keeps_all_bounds_and_counts_by_the_table(cli, model, data, only_json, tmp_path):
    target = tmp_path / "mine.toml"
    table = '[cost]\nunit = "pJ"\nfloat = 0.5\nactivations = [8]\n[cost.weights]\n8 = [0.1]\n'
    target.write_text(f"[weights]\nwidths = [8, 32]\n[activations]\nwidths = [8, 32]\n{table}")
    verify = ("verify", model, model, "--data", data, "--target", target, "--bound")
    document = only_json(cli(*verify, "100%", "--bound", "cost:3pJ", "--json"))
    assert document["bound"] == "100%, cost:3pJ"
    assert (document["table_cost"], document["table_unit"]) == (3.0, "pJ")
    assert "3 pJ by the target's table" in cli(*verify, "cost:3").stdout
    result = cli(*verify, "100%", "--bound", "cost:2.9")
    assert result.exit_code == 7
    assert "costs 3 pJ (100.000% of the float model), but the bound 'cost:2.9'" in result.stderr
    assert cli(*verify[:-3], "--bound", "cost:3").exit_code == 5


def test_bad_files(cli, data, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    assert cli("inspect", bad).exit_code == 3
    assert cli("verify", bad, bad, "--data", data).exit_code == 3


def test_data_that_does_not_fit(cli, model, tmp_path):
    result = cli("verify", model, model, "--data", tmp_path / "missing.npz")
    assert result.exit_code == 4
    assert "missing.npz: no such file" in result.stderr


def test_inspect_writes_a_report(cli, model, tmp_path, monkeypatch, only_json):
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    monkeypatch.setattr("sys.argv", ["onnx-cgmq", "inspect", "float.onnx", "--report", "out.html"])
    path = tmp_path / "out.html"
    result = cli("inspect", model, "--report", path, "--json")
    assert result.exit_code == 0, result.output
    assert only_json(result)["rbop"] == 1.0
    assert str(path) in result.stderr
    html = path.read_text(encoding="utf-8")
    assert "<h1>float.onnx</h1>" in html
    assert "onnx-cgmq inspect float.onnx --report out.html" in html


def test_a_report_never_replaces_what_is_read(cli, model, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    before = model.read_bytes()
    result = cli("inspect", model, "--report", model)
    assert result.exit_code == 6
    assert "the report" in result.stderr
    assert "is the model itself" in result.stderr
    assert model.read_bytes() == before
    assert cli("inspect", model, "--report", tmp_path / "none" / "out.html").exit_code == 6
    assert cli("inspect", model, "--why", "w", "--report", tmp_path / "out.html").exit_code == 2


def test_a_report_without_its_packages(cli, model, tmp_path, monkeypatch):
    monkeypatch.setattr("onnx_cgmq.reporting.page.find_spec", lambda name: None)
    result = cli("inspect", model, "--report", tmp_path / "out.html")
    assert result.exit_code == 2
    assert "pip install 'onnx-cgmq[report]'" in result.stderr
    assert list(tmp_path.iterdir()) == [model]
