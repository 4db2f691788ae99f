"""Prometheus's expressions against the text of a scrape: parsed by a library, few evaluated here.

What an alert rule may be is kept so simple that its truth can be told from one text: a selector
compared with a number, or two of these with ``and``.
"""

import json
import operator
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

FOLDER = Path(__file__).parents[1] / "deploy/observability"
RULES: dict[str, str] = {
    rule["alert"]: rule["expr"]
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
QUERIES: list[str] = [
    target["expr"]
    for panel in json.loads((FOLDER / "board.json").read_text())["panels"]
    for target in panel.get("targets", ())
]
COMPARISONS = {"<": operator.lt, ">": operator.gt}
INNER = ("expr", "lhs", "rhs", "args", "vector_selector")


def samples(*texts: str) -> list[Sample]:
    """Return every sample of the texts."""
    families: Iterable[Metric] = (
        family for text in texts for family in text_string_to_metric_families(text)
    )
    return [sample for family in families for sample in family.samples]


def selectors(expression: str) -> Iterator[promql.VectorSelector]:
    """Yield what an expression selects, at any depth."""
    return _below(promql.parse(expression))


def _below(node: Any) -> Iterator[promql.VectorSelector]:
    if isinstance(node, promql.VectorSelector):
        yield node
    for name in INNER:
        inner = getattr(node, name, None)
        for child in inner if isinstance(inner, list) else [inner]:
            if child is not None:
                yield from _below(child)


def selected(selector: promql.VectorSelector, found: list[Sample]) -> list[Sample]:
    """Return the samples that ``selector`` selects."""
    matchers = selector.matchers.matchers
    return [
        sample
        for sample in found
        if sample.name == selector.name and all(_matches(m, sample) for m in matchers)
    ]


def _matches(matcher: promql.Matcher, sample: Sample) -> bool:
    # A label that is not there is the same as an empty one.
    equal = sample.labels.get(matcher.name, "") == matcher.value
    match matcher.op:
        case promql.MatchOp.Equal:
            return equal
        case promql.MatchOp.NotEqual:
            return not equal
        case other:
            raise NotImplementedError(other)


def firing(found: list[Sample]) -> set[str]:
    """Return the alerts whose expression holds for any sample, whatever their ``for`` is."""
    return {
        alert for alert, expression in RULES.items() if _holding(promql.parse(expression), found)
    }


def _holding(rule: Any, found: list[Sample]) -> list[Sample]:  # its types know no comparisons
    if str(rule.op) == "and":
        labels = [sample.labels for sample in _holding(rule.rhs, found)]
        return [sample for sample in _holding(rule.lhs, found) if sample.labels in labels]
    if rule.lhs.name == "up":
        return []  # Prometheus's own: whether a scrape was answered
    compare = COMPARISONS[str(rule.op)]
    return [s for s in selected(rule.lhs, found) if compare(s.value, rule.rhs.val)]
