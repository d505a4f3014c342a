"""One HTML page about models: what they are worth and cost, layer by layer, and how they came about."""

from tfprune.html_report.page import write_report

__all__ = ["write_report"]
