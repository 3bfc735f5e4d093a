"""A Celery application as anybody writes one: nothing in it knows of metrics.

What each task did goes to the file that TASK_LOG names, a line each: this is what
the tests compare the series with.
"""

import os
import time

from celery import Celery, current_task

app = Celery("tasks", broker=os.environ["BROKER"])
app.conf.task_send_sent_event = True


def log(what):
    with open(os.environ["TASK_LOG"], "a", encoding="ascii") as f:
        f.write(current_task.request.delivery_info["routing_key"] + " " + what + "\n")


@app.task
def works():
    log("succeeded")


@app.task
def fails(kind):
    log("failed/" + kind)
    raise {"ValueError": ValueError, "KeyError": KeyError}[kind](kind)


@app.task(bind=True)
def tries(self, times):
    if self.request.retries < times:
        log("retried")
        raise self.retry(countdown=0, max_retries=times)
    log("succeeded")


@app.task
def waits(path):
    while not os.path.exists(path):
        time.sleep(0.02)
    log("succeeded")
