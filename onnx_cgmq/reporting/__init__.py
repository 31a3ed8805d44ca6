"""Makes an HTML page of a result or a report: one file that opens without a network."""

from onnx_cgmq.reporting.html_report import html_report
from onnx_cgmq.reporting.page import check_report_packages

__all__ = ["check_report_packages", "html_report"]
