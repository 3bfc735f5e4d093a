"""Runs Datadog's OpenMetrics check (V2) once and prints what it submits.

Standard input has the check's instance, standard output a list of
[kind, name, value, tags]. Of a histogram there is one entry a bucket.
"""

import json
import sys

from datadog_checks.base import OpenMetricsBaseCheckV2
from datadog_checks.base.stubs import aggregator

KINDS = {aggregator.GAUGE: "gauge", aggregator.MONOTONIC_COUNT: "counter"}

error = OpenMetricsBaseCheckV2("outrider", {}, [json.load(sys.stdin)]).run()
if error:
    sys.exit(error)

submitted = []
for name in aggregator.metric_names:
    for m in aggregator.metrics(name):
        submitted.append([KINDS.get(m.type, str(m.type)), m.name, m.value, sorted(m.tags)])
for buckets in aggregator._histogram_buckets.values():
    for b in buckets:
        tags = [t for t in b.tags if not t.startswith(("lower_bound:", "upper_bound:"))]
        submitted.append(["histogram", b.name, b.value, sorted(tags)])
json.dump(submitted, sys.stdout)
