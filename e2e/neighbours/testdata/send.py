"""Sends tasks: send.py QUEUE NAME COUNT [ARGUMENT]."""

import sys

import tasks

queue, name, count, *args = sys.argv[1:]
args = [int(a) if a.isdigit() else a for a in args]
for _ in range(int(count)):
    getattr(tasks, name).apply_async(args, queue=queue)
