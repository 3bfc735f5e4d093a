"""A program with a queue and stock metrics, as anybody writes one.

It does what each line on its input says, and answers with what it knows itself.
"""

import collections
import json
import sys

from prometheus_client import Counter, Gauge, Histogram, start_http_server

RECEIVED = Counter("orders_received", "Orders that came in.")
DONE = Counter("orders_done", "Orders that were done.")
DROPPED = Counter("orders_dropped", "Orders that were given up.", ["reason"])
RETRIED = Counter("orders_retried", "Orders that were tried again.", ["cause"])
DEPTH = Gauge("orders_depth", "Orders that wait.")
SECONDS = Histogram("order_seconds", "How long an order took.")

queue = collections.deque()
DEPTH.set_function(lambda: len(queue))
known = collections.Counter()

start_http_server(int(sys.argv[1]), addr="127.0.0.1")
for line in sys.stdin:
    what, count, why = line.split()
    for _ in range(int(count)):
        known[what, why] += 1
        if what == "receive":
            queue.append("order")
            RECEIVED.inc()
        elif what == "work":
            queue.popleft()
            SECONDS.observe(0.01)
            DONE.inc()
        elif what == "drop":
            queue.popleft()
            DROPPED.labels(why).inc()
        elif what == "retry":
            queue.rotate()
            RETRIED.labels(why).inc()
        elif what == "lose":  # a bug, as programs have them
            queue.popleft()
    told = {f"{what}/{why}".removesuffix("/-"): n for (what, why), n in known.items()}
    print(json.dumps({**told, "waits": len(queue)}), flush=True)
