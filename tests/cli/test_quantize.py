from pathlib import Path

import pytest

from onnx_cgmq.api import opened_model, pipeline
from onnx_cgmq.api.drop import Drop
from onnx_cgmq.contract.bits import Granularity
from onnx_cgmq.contract.form import Form
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.errors import BoundError, DataError, ModelError, OutputError, VerificationError
from onnx_cgmq.settings.config import Config, Direction, Effort


@pytest.fixture
def quantize(cli, model, data, tmp_path):
    """Runs ``quantize`` with what it needs and further options."""

    def run(*options):
        output = tmp_path / "out.onnx"
        return cli("quantize", model, "--data", data, "--bound", "12.5%", "-o", output, *options)

    return run


def test_defaults_are_those_of_the_api(quantize, pipeline_run, model, data, tmp_path):
    result = quantize()
    assert result.exit_code == 0, result.output
    assert pipeline_run.called == {
        "model": model,
        "data": str(data),
        "bound": "12.5%",
        "max_drop": None,
        "output": tmp_path / "out.onnx",
        "validation": None,
        "config": Config(),
        "resume": False,
        "log": None,
        "report": None,
    }


def test_every_option_arrives(quantize, pipeline_run, tmp_path):
    options = (
        "--target generic --form native --runtime onnxruntime>=1.23 --compact "
        "--granularity element --activation-granularity channel "
        "--widths 2,4,8 --activation-widths 4,8 --prune "
        "--input-width 8 --direction gradient --no-integer-kernels --no-equalize --effort best "
        "--epochs 3 --batch-size 7 "
        "--learning-rate 0.5 --validation my:data --loss teacher --device cpu --seed 5 "
        f"--time-limit 60 --resume --log {tmp_path / 'm.jsonl'}"
    )
    result = quantize(*options.split())
    assert result.exit_code == 0, result.output
    called = pipeline_run.called
    assert called["config"] == Config(
        target="generic",
        form=Form.NATIVE,
        runtime="onnxruntime>=1.23",
        compact=True,
        granularity=Granularity.ELEMENT,
        activation_granularity=Granularity.CHANNEL,
        widths=(2, 4, 8),
        activation_widths=(4, 8),
        prune=True,
        input_width=8,
        direction=Direction.GRADIENT,
        integer_kernels=False,
        equalize=False,
        effort=Effort.BEST,
        epochs=3,
        batch_size=7,
        learning_rate=0.5,
        loss="teacher",
        device="cpu",
        seed=5,
        time_limit=60,
    )
    assert called["resume"]
    assert called["validation"] == "my:data"
    assert called["log"] == tmp_path / "m.jsonl"


def test_a_target_is_a_name_or_a_file(quantize, pipeline_run, cli, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(cli("targets", "ort-cpu").stdout)
    for target, name in (("ort-cpu", "ort-cpu"), (file, "mine")):
        assert quantize("--target", target).exit_code == 0
        config = pipeline_run.called["config"]
        assert (config.target.name, config.activation_widths) == (name, (8,))


def test_choices_by_name(quantize, pipeline_run, tmp_path):
    (tmp_path / "s.toml").write_text('keep_float = ["head"]\nepochs = 3\n[fix]\nw = 4')
    names = ["--keep-float", "first", "--keep-float", "tail/*", "--fix", "w=8"]
    names += ["--widths-for", "Gemm=2,8", "--shape", "x=1x2"]
    assert quantize(*names, "--config", tmp_path / "s.toml").exit_code == 0
    assert pipeline_run.called["config"] == Config(
        epochs=3,
        keep_float=("head", "first", "tail/*"),
        fix={"w": 8},
        widths_for={"Gemm": (2, 8)},
        shapes={"x": (1, 2)},
    )


@pytest.mark.parametrize(
    "option",
    [
        ("--fix", "w"),
        ("--fix", "w=x"),
        ("--fix", "=8"),
        ("--widths-for", "w=4,"),
        ("--shape", "x=1xn"),
        ("--shape", "1x2"),
    ],
)
def test_names_without_a_value(quantize, pipeline_run, option):
    result = quantize(*option)
    assert result.exit_code == 2
    assert option[0] in result.stderr
    assert pipeline_run.called is None


def test_shows_progress_tables_and_files(quantize, pipeline_run, tmp_path):
    result = quantize()
    assert "float accuracy 99.50%" in result.stderr
    assert "prepare ..." in result.stderr.splitlines()
    assert "epoch 1/2 guided  loss 0.4000  held out 0.3000  accuracy 98.00%" in result.stderr
    assert "RBOP 0.400%  cost 99.0% of bound  bits 2.50 weights, 3.50 activations" in result.stderr
    assert "12.5%: kept" in result.stdout
    assert "96.00% (float 98.00%) in onnxruntime, 100 held out" in result.stdout
    assert "agrees with the float model: 31.2 dB (scores), same class for 99.40%" in result.stdout
    assert "matmul" not in result.stdout
    plan = tmp_path / "out.plan.json"
    assert BitPlan.load(plan).bound == "12.5%"
    assert f"plan      {plan}" in result.stdout.splitlines()


def test_details_stand_between_the_result_and_the_result(quantize, pipeline_run, tmp_path):
    result = quantize("--details")
    before, after = result.stdout.split("Tensors\n")
    assert "matmul" in after
    for summary in (before, after):
        assert "12.5%: kept" in summary
        assert f"model     {tmp_path / 'out.onnx'}" in summary


def test_what_a_run_needs_may_be_in_the_settings(cli, model, data, pipeline_run, tmp_path):
    output = tmp_path / "out.onnx"
    settings = tmp_path / "s.toml"
    text = f"bound = ['12.5%', '200KB']\ndata = '{data}'\noutput = '{output}'\nepochs = 3\n"
    settings.write_text(text)
    assert cli("quantize", model, "--config", settings).exit_code == 0
    called = pipeline_run.called
    assert (called["bound"], called["data"], called["output"]) == (
        "12.5%, 200KB",
        str(data),
        output,
    )
    assert cli("quantize", model, "--config", settings, "--bound", "5%").exit_code == 0
    assert pipeline_run.called["bound"] == "5%"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("", "--bound (or --max-drop) is missing; give it, or 'bound' in the file of --config"),
        ("bound = 5", "bound must be text, not 5"),
        ("bound = []", "--bound (or --max-drop) is missing"),
        ("bound = '5%'\ndata = ['a', 'b']", "data must be one text"),
        ("bound = '5%'", "--data is missing"),
        ("bound = '5%'\ndata = 'd'\n", "-o is missing"),
    ],
)
def test_what_is_missing_is_named(cli, model, pipeline_run, tmp_path, setting, message):
    settings = tmp_path / "s.toml"
    settings.write_text(setting)
    result = cli("quantize", model, "--config", settings)
    assert result.exit_code == 2
    assert message in result.stderr
    assert pipeline_run.called is None


def test_shows_stages(quantize, pipeline_run, only_json):
    pipeline_run.staged = True
    result = quantize("--effort", "fast")
    lines = result.stderr.splitlines()
    assert "float accuracy 99.50%" in lines
    assert "calibrated  held out 0.3000  accuracy 98.00%  1.2 s" in lines
    assert "reconstructed  held out 0.2000  2.5 s" in lines
    assert "epoch" not in result.stderr
    pipeline_run.reason = "interrupted"
    assert "interrupted: " in quantize("--effort", "fast").stderr


def test_an_effort_that_there_is_not(quantize, pipeline_run):
    result = quantize("--effort", "huge")
    assert result.exit_code == 2
    assert "'fast', 'normal', 'best'" in result.stderr
    assert pipeline_run.called is None


def test_accuracy_is_shown_without_agreement_too(quantize, pipeline_run):
    pipeline_run.float_agreement = None
    result = quantize()
    assert "97.00% (float 99.50%) in onnxruntime, 200 held out" in result.stdout
    assert "agrees" not in result.stdout


def test_several_bounds_are_one_text(quantize, pipeline_run):
    result = quantize("--bound", "200KB", "--bound", "cost:25%, activations:3KB")
    assert result.exit_code == 0, result.output
    assert pipeline_run.called["bound"] == "12.5%, 200KB, cost:25%, activations:3KB"
    assert "12.5%, 200KB, cost:25%, activations:3KB: kept" in result.stdout


def test_quiet_shows_nothing(quantize, pipeline_run):
    result = quantize("--quiet")
    assert result.exit_code == 0
    assert result.output == ""


def test_json_is_all_of_stdout(quantize, pipeline_run, only_json, tmp_path):
    result = quantize("--json")
    document = only_json(result)
    assert document["complete"]
    assert document["cost"]["rbop"] == 0.125
    assert document["check"]["accuracy"] == 0.97
    assert document["float_accuracy"] == 0.995
    assert document["float_agreement"]["outputs"]["scores"]["snr_db"] == 31.2
    assert document["float_agreement"]["same_class"] == 0.994
    assert document["files"]["model"] == str(tmp_path / "out.onnx")
    assert document["file_bytes"] == (tmp_path / "out.onnx").stat().st_size
    assert document["tensors"][0]["mean_bits"] == 4
    assert "epoch" in result.stderr


@pytest.mark.parametrize(("reason", "code"), [("interrupted", 130), ("time limit", 0)])
def test_stopped_early_says_what_was_written(quantize, pipeline_run, only_json, reason, code):
    pipeline_run.reason = reason
    result = quantize("--json", "--epochs", "12")
    assert result.exit_code == code
    assert f"{reason} after 1.5 of 2 epochs" in result.stderr
    assert "best model so far that keeps the bound" in result.stderr
    assert only_json(result)["reason"] == reason


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelError("not ONNX"), 3),
        (DataError("not data"), 4),
        (BoundError("too small"), 5),
        (OutputError("disk full"), 6),
        (VerificationError("over"), 7),
        (RuntimeError("a bug"), 70),
        (MemoryError(), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(quantize, monkeypatch, only_json, error, code):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, "quantize", fail)
    result = quantize("--json")
    assert result.exit_code == code
    assert "error: " in result.stderr
    assert str(error) in result.stderr
    assert "Traceback" not in result.output
    assert only_json(result)["error"]["exit_code"] == code


def test_debug_shows_the_traceback(quantize, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(pipeline, "quantize", fail)
    result = quantize("--debug")
    assert result.exit_code == 70
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--widths", "two"], "not a list of widths"),
        (["--widths", "2,3"], "invalid settings"),
        (["--target", "ort-cpu", "--widths", "16"], "no weights of 16 bits"),
        (["--target", "ort"], "did you mean 'ort-cpu'"),
        (["--prune"], "would remove whole layers"),
        (["--epochs", "0"], "epochs"),
        (["--granularity", "layer"], "--granularity"),
        (["--form", "tflite"], "--form"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_wrong_usage(quantize, pipeline_run, options, message):
    result = quantize(*options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert pipeline_run.called is None


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("-o", "float model"),
        ("--log", "float model"),
        ("--log", "data"),
        ("-o", "file of settings"),
    ],
)
def test_nothing_that_is_read_is_overwritten(quantize, model, data, tmp_path, option, what):
    settings = tmp_path / "s.toml"
    settings.write_text("epochs = 1")
    path = {"float model": model, "data": data, "file of settings": settings}[what]
    before = path.read_bytes()
    result = quantize("--config", settings, option, path)
    assert result.exit_code == 6
    assert f"is the {what} itself; write to another file" in result.stderr
    assert path.read_bytes() == before


def test_missing_files_are_named(cli, data, tmp_path):
    output = Path(tmp_path) / "o.onnx"
    result = cli("quantize", "nowhere.onnx", "--data", data, "--bound", "1%", "-o", output)
    assert result.exit_code == 3
    assert "nowhere.onnx" in result.stderr


def test_report(cli, model, data, pipeline_run, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    out, report = tmp_path / "out.onnx", tmp_path / "out.html"
    run = ("quantize", model, "--data", data, "--bound", "50%", "-o", out, "--report")
    result = cli(*run, report)
    assert result.exit_code == 0, result.output
    assert f"report    {report}" in result.stdout
    assert "<h1>out.onnx</h1>" in report.read_text(encoding="utf-8")


def test_a_report_that_replaces_a_file_is_refused_before_there_is_work_to_lose(
    cli, model, data, tmp_path, monkeypatch
):
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    loads = []
    load = opened_model.load_model
    monkeypatch.setattr(opened_model, "load_model", lambda path: loads.append(path) or load(path))
    monkeypatch.setattr(opened_model, "prepare", None)  # it would fail if a run went on
    out = tmp_path / "out.onnx"
    run = ("quantize", model, "--data", data, "--bound", "50%", "-o", out, "--report")
    for other in (model, data, out, tmp_path / "out.plan.json", tmp_path / "out.checkpoint"):
        refused = cli(*run, other)
        assert refused.exit_code == 6
        assert "itself" in refused.stderr
    assert cli(*run, out.with_suffix(".log"), "--log", out.with_suffix(".log")).exit_code == 6
    assert loads == [model] * 2  # for what the model and the data are; the others are alike


def test_report_without_its_packages(cli, model, data, pipeline_run, tmp_path, monkeypatch):
    monkeypatch.setattr("onnx_cgmq.reporting.page.find_spec", lambda name: None)
    run = ("quantize", model, "--data", data, "--bound", "50%", "-o", tmp_path / "out.onnx")
    result = cli(*run, "--report", tmp_path / "out.html")
    assert result.exit_code == 2
    assert "pip install 'onnx-cgmq[report]'" in result.stderr
    assert pipeline_run.called is None


def test_a_drop_takes_the_place_of_a_bound(cli, pipeline_run, model, data, tmp_path):
    output = tmp_path / "out.onnx"
    done = cli("quantize", model, "--data", data, "--max-drop", "2%:class", "-o", output)
    assert done.exit_code == 0, done.output
    assert (pipeline_run.called["bound"], pipeline_run.called["max_drop"]) == (None, "2%:class")


def test_a_drop_that_is_kept_is_shown(quantize, pipeline_run, only_json):
    pipeline_run.drop = Drop("1%", "0.50% ± 0.70% of accuracy lost", 0.005, 0.007, True, 100)
    assert "max drop  1%: kept, 0.50% ± 0.70% of accuracy lost" in quantize().stdout
    document = only_json(quantize("--json"))
    assert document["drop"]["kept"] is True


def test_a_drop_that_is_not_kept_has_its_own_exit_code(quantize, pipeline_run, tmp_path):
    pipeline_run.drop = Drop("snr:30dB", "21.0 dB", 21.0, None, False, 100)
    done = quantize()
    assert done.exit_code == 9
    assert "snr:30dB is not kept: 21.0 dB" in done.stderr
    assert (tmp_path / "out.onnx").exists()
    assert quantize("--quiet").exit_code == 9


def test_neither_a_bound_nor_a_drop(cli, model, data, tmp_path):
    done = cli("quantize", model, "--data", data, "-o", tmp_path / "out.onnx")
    assert done.exit_code == 2
    assert "--max-drop" in done.stderr
