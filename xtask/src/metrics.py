# Reads metrics back with the parsers of Prometheus' own client library, and compares them with the
# JSON document of the same buffers. Fails if they differ.
import collections, json, os, sys

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser as text

world = sys.argv[1]


def read(name):
    return open(os.path.join(world, name), encoding="utf-8", newline="").read()


def samples(families):
    """The samples of families, by name and labels. None may come twice."""
    found = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, key
            found[key] = sample.value
    return found


older = samples(text.text_string_to_metric_families(read("metrics.txt")))
newer = samples(openmetrics.text_string_to_metric_families(read("metrics.openmetrics")))
buffers = json.loads(read("metrics.json"))["buffers"]


def sums(name, label):
    found = collections.Counter()
    for (called, labels), value in older.items():
        if called == name:
            found[dict(labels)[label]] += int(value)
    return dict(found)


def same(what, one, other):
    assert one == other, (what, one, other)
    print(f"   {what}: the same by the parser of Prometheus' client library")


exporters, costs = collections.Counter(), collections.Counter()
for buffer in buffers:
    exporters[buffer["exporter"]] += 1
    costs[buffer["kind"]] += buffer["size"]
same("both forms", older, newer)
counted = {name.replace("\\\\", "\\"): count for name, count in sums("lsbuf_dmabufs", "exporter").items()}
known = {"a\nb\x1b": r"a\x0ab\x1b", 'q"}': 'q"}'}
same("dma-bufs by exporter", counted, {known.get(name, name): count for name, count in exporters.items()})
known_costs = {kind: cost for kind, cost in sums("lsbuf_cost_bytes", "kind").items() if cost}
same("cost by kind", known_costs, dict(costs))
same("parts of workloads", sum(sums("lsbuf_workload_pss_bytes", "unit").values()), sum(costs.values()))
