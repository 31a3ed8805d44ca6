"""The page: text is escaped, nothing is loaded, and a real browser shows it without an error."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from onnx_cgmq.contract.bits import Granularity, Role
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.inspection import NodeReport, Report, TensorReport
from onnx_cgmq.reporting import page
from onnx_cgmq.reporting.html_report import html_report
from onnx_cgmq.reporting.page import (
    Cell,
    Fact,
    Facts,
    Page,
    Row,
    Section,
    Sentences,
    Table,
    check_report_packages,
)

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")

EVIL = "<script>alert(1)</script>&\"'"


def report_of(layers: int, name: str = "layer/{}/weight") -> Report:
    """A report on as many layers, each with a weight of 4 and an activation of 8 bits."""

    def tensor(name: str, role: Role, bits: int) -> TensorReport:
        return TensorReport(
            name, role, Granularity.TENSOR, (8, 8), np.array(bits), {bits: 64}, float(bits),
            (-1.0, 1.0), 1 / layers, f"INT{bits}", 32,
        )  # fmt: skip

    tensors = {}
    nodes = []
    for layer in range(layers):
        weight, activation = name.format(layer), f"{name.format(layer)} in"
        tensors[activation] = tensor(activation, Role.ACTIVATION, 8)
        tensors[weight] = tensor(weight, Role.WEIGHT, 4)
        kernel, reason = (
            (Kernel.FLOAT, f"because of {weight}") if layer % 2 else (Kernel.INTEGER, "")
        )
        nodes.append(
            NodeReport(
                f"{name.format(layer)} node",
                "Conv",
                (activation, weight),
                64 + layer,
                2048,
                0.03,
                (8.0, 4.0),
                kernel,
                reason,
            )
        )
    notes = (f"a note on {name.format(0)}",)
    return Report(tensors, tuple(nodes), 64 * layers, 2048 * layers, 0.03, 32 * layers, notes)


class Elements(HTMLParser):
    """Collects the elements and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_are_escaped() -> None:
    html = html_report(report_of(3, EVIL + " {}"), command=["onnx-cgmq", EVIL])
    elements = Elements(html)
    assert EVIL not in html
    assert [tag for tag, _ in elements.tags].count("script") == 1
    assert f"a note on {EVIL} 0" in elements.text
    assert f"{EVIL} 2: 4 bits" in elements.text  # what a bar of the chart shows
    assert not [attr for _, attrs in elements.tags for attr in attrs if attr.startswith("on")]


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = html_report(report_of(3))
    links = [
        attrs.get(name)
        for _, attrs in Elements(html).tags
        for name in ("src", "href", "xlink:href", "data")
        if attrs.get(name)
    ]
    assert {link for link in links if not link.startswith("#")} == {"data:,"}
    urls = set(re.findall(r"https?://[^\"' )]+", html))
    assert urls == {"http://www.w3.org/2000/svg"}  # a name, not a place
    assert not re.search(r"@import|url\((?!#)", html)


def test_names_of_elements_are_unique_and_links_lead_somewhere() -> None:
    tags = Elements(html_report(report_of(4))).tags
    targets = [
        attrs["id"] for tag, attrs in tags if "id" in attrs and tag not in ("path", "clippath")
    ]
    assert len(targets) == len(set(targets))
    links = {str(attrs["href"]) for tag, attrs in tags if tag == "a"}
    assert len(links) == 5 + 8  # sections, and a bar for each tensor
    assert links <= {f"#{target}" for target in targets}


def calls_of_python(layers: int) -> int:
    """How many functions of Python run while the page of a report is made."""
    report = report_of(layers)
    count = 0

    def add(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(add)
    try:
        html_report(report)
    finally:
        sys.setprofile(before)
    return count


def test_the_work_grows_no_faster_than_the_layers() -> None:
    calls_of_python(5)  # loads and compiles what is kept
    assert calls_of_python(160) < 5 * calls_of_python(40)


def test_five_hundred_layers() -> None:
    html = html_report(report_of(500))
    assert len(html) < 1_500_000
    assert html.count("<tr id=") == 1000


def test_summary_counts_kernels_and_bytes() -> None:
    text = Elements(html_report(report_of(5))).text
    assert "3 of 5" in text
    assert "the others: 2 float" in text
    assert "in floats 1,280, 8.0 times as many" in text
    assert "because of layer/3/weight" in text


def test_any_section_can_be_made_of_blocks() -> None:
    table = Table(["width", "loss#"], [Row([Cell("8 bits"), Cell("0.5", 0.5, bar=0.25)])])
    blocks = [Facts([Fact("seed", "3", good=False)]), Sentences(["One."]), table]
    html = Page("title", [Section("curve", "A curve", blocks)]).html()
    assert '<section id="curve">' in html
    assert '<td data-key="0.5" class="number">0.5<i class="bar " style="width:25%">' in html
    assert '<div class="bad">' in html


def test_missing_packages_are_named(monkeypatch) -> None:
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"jinja2 and matplotlib.*onnx-cgmq\[report\]"):
        check_report_packages()
    with pytest.raises(ConfigError, match="pip install"):
        html_report(report_of(1))


@pytest.fixture
def browser(tmp_path):
    """Shows a page in Chromium; gives the page as its script left it, and what it complained of."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium is installed")

    def show(html: str) -> tuple[str, str]:
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        done = subprocess.run(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                f"--user-data-dir={tmp_path}", "--dump-dom", path.as_uri(),
            ],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        return done.stdout, "\n".join(
            line for line in done.stderr.splitlines() if "CONSOLE" in line
        )

    return show


@pytest.mark.slow
def test_a_browser_shows_it_and_sorts(browser) -> None:
    html = html_report(report_of(12, EVIL + " {}"))
    click = """<script>
    const seen = [];
    const heads = [...document.querySelectorAll("#kernels th button")];
    const click = name => {
      const head = heads.find(button => button.textContent === name);
      head.click();
      const column = heads.indexOf(head);
      const body = head.closest("table").tBodies[0];
      seen.push([...body.rows].map(row => row.cells[column].textContent).join(" "));
    };
    click("MACs"); click("MACs"); click("node");
    document.title = JSON.stringify(seen.map(text => text.replaceAll(/<.*?'/g, "")));
    const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
    document.body.dataset.wide = wide;
    document.body.dataset.chart = document.querySelector(".chart svg").clientHeight > 100;
    </script></body>"""
    shown, complaints = browser(html.replace("</body>", click))
    assert complaints == ""
    title = re.findall("<title>(.*?)</title>", shown)[0]
    macs = [str(64 + layer) for layer in range(12)]
    assert " ".join(reversed(macs)) in title  # numbers go down at first
    assert " ".join(macs) in title
    assert "1 node  2 node" in title  # not 1, 10, 11
    assert 'data-wide="false"' in shown
    assert 'data-chart="true"' in shown
