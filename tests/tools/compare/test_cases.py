from __future__ import annotations

from pathlib import Path

import pytest

from tools.compare.cases import OUTPUTS, RULES, Run, Verdict, examine, runs_of, write_table

PRINTED = """=== c49own: float 5000 bytes
   ORT quantize_static 8/8: {'y': 20.0} 4000 bytes
   generic  size:25%  rc=0 1.0s SQNR {'y': 20.1} 900 bytes int 5/5
=== c49shared: float 5000 bytes
   generic  size:25%  rc=7 1.0s MSG: error: the model costs 1,000 B
 and more
"""


def test_runs_are_read_with_their_block_and_message() -> None:
    one, other = runs_of(PRINTED)
    assert (one.block, one.what, one.code) == ("c49own", "generic  size:25%", 0)
    assert (other.block, other.code) == ("c49shared", 7)
    assert other.text.endswith("and more")


def test_a_run_that_fails_is_named() -> None:
    assert RULES["49"](runs_of(PRINTED)).startswith("c49shared generic  size:25%: exit 7")
    assert RULES["49"](runs_of(PRINTED)[:1]) == ""
    assert RULES["49"]([]) == "the script made no run"


@pytest.mark.parametrize(
    ("number", "run", "is_right"),
    [
        ("01", Run("c01", "ort-cpu 6.25%", 0, " int 1/2 FLOAT: fc"), False),
        ("19", Run("c19b", "generic 6.25%", 3, " weight 'w' has NaN at [0]"), True),
        ("19", Run("c19b", "generic 6.25%", 0, " SQNR"), False),
        ("19", Run("c19a", "generic 6.25%", 4, " NaN in sample 7"), True),
        ("20", Run("c20a", "generic  6.25%", 0, " SQNR {'y': 12.8} 1 bytes"), True),
        ("20", Run("c20a", "generic  6.25%", 0, " SQNR {'y': 2.5} 1 bytes"), False),
        ("34", Run("", "id_range", 70, " index out of range"), False),
        ("34", Run("", "ok", 0, ""), True),
        ("34", Run("", "floatlabel", 4, " numpy.argmax(labels, axis=1)"), False),
        ("34", Run("", "floatlabel", 4, " labels.astype('int64')"), True),
        ("34", Run("", "extra", 4, " ['filename']; rename the arrays"), False),
        ("34", Run("", "extra", 4, " leave out ['filename']"), True),
        ("20", Run("c20a", "generic  6.25%", 0, " SQNR {'y': 2.5} weight_ranges = ..."), True),
        ("23", Run("c23f", "generic  6.25%", 4, " convert it with astype('uint8')"), False),
        ("23", Run("c23f", "generic  6.25%", 4, " divided by 255"), True),
        ("29", Run("c29b", "generic  6.25%", 3, " no tensors of type STRING"), False),
        ("29", Run("c29d", "generic  6.25%", 3, " output 'probabilities': zipmap=False"), True),
        ("46", Run("c46", "generic  6.25%", 0, " int 1/2\nnote: please report this"), False),
        ("42", Run("c42a", "generic 3%", 0, " a smaller --learning-rate may help"), False),
    ],
)
def test_rules(number, run, is_right) -> None:
    assert (RULES[number]([run]) == "") is is_right


def test_a_model_without_batch_axis_is_as_good_as_one_with_it() -> None:
    runs = [Run("c48b", "generic 3%", 0, " SQNR {'y': 20.0}")]
    reference = Run("c48ref", "generic 3%", 0, " SQNR {'y': 30.0}")
    assert RULES["48"](runs) == ""
    assert "20.0 dB, with a batch axis 30.0 dB" in RULES["48"]([*runs, reference])


def test_paths_that_clash_are_refused() -> None:
    refused = "(a) -o a FIFO\n  exit 6: error: it is a FIFO\n  kept\n" * 6
    assert OUTPUTS["16"](refused) == ""
    assert "REPLACED" in OUTPUTS["16"](refused + "  REPLACED by a regular file\n")
    assert "'0'" in OUTPUTS["16"](refused.replace("exit 6", "exit 0", 1))
    assert OUTPUTS["16"]("") == "0 calls instead of 6"


def test_scripts_may_use_names_that_modules_had(tmp_path) -> None:
    folder = tmp_path / "reliability"
    folder.mkdir()
    script = folder / "02-old.py"
    script.write_text(
        "import sys\nfrom onnx_cgmq.plan import BitPlan\nassert sys.argv == [__file__]\n"
    )
    assert examine(script).wrong == ""


def test_scripts_that_exit_with_1_are_wrong(tmp_path) -> None:
    folder = tmp_path / "reliability"
    folder.mkdir()
    right, wrong = folder / "01-right.py", folder / "02-wrong.py"
    right.write_text("print('fine')")
    wrong.write_text(
        "import os; print(f'two names changed in {os.getcwd()}/m.onnx'); raise SystemExit(1)"
    )
    verdicts = [examine(right), examine(wrong)]
    assert [verdict.wrong for verdict in verdicts] == ["", "two names changed in m.onnx\n"]
    table = write_table(verdicts)
    assert "1 of 2 scripts" in table
    assert "| reliability/02-wrong | WRONG | two names changed in m.onnx |" in table


def test_rows_are_short() -> None:
    row = Verdict("wild/01-a", "x | y\n" * 200, 1.0).row()
    assert len(row) < 250
    assert row.count("|") == 4


def test_every_rule_has_a_number() -> None:
    assert all(number.isdigit() for number in RULES)
    assert Path("wild/06-name-clash.py").name.split("-")[0] in RULES
