package collectors

// presets are mappings of programs that many run. Each was written from what the
// program itself said, which testdata/presets has. A term that the program does
// not tell is left out, and so is not known. Read-only.
var presets = map[string]Pipeline{
	// client-go's, as of a controller. Keys that wait already are not added again,
	// and the queue never gives one up. How many are worked on it does not say,
	// but how many were taken and how many were done.
	"workqueue": {
		Unit: "keys", Target: "name",
		In:  ofSeries("workqueue_adds_total"),
		Out: ofSeries("workqueue_work_duration_seconds"),
		Queued: &Term{
			Sum:  []Selection{{Series: "workqueue_depth"}, {Series: "workqueue_queue_duration_seconds"}},
			Less: []Selection{{Series: "workqueue_work_duration_seconds"}},
		},
		Retries: ofSeries("workqueue_retries_total"),
		Drops:   &Term{none: true},
	},

	// celery-exporter by Hodovic. An item is a message: a task that is tried again
	// is sent again. What was sent is only told where task_send_sent_event is set.
	// In the queue are the messages that are in the broker, and those that workers
	// have and are not done with; one that is delivered twice upsets the balance.
	"celery": {
		Unit: "tasks", Target: "queue_name",
		In:  &Term{Selection: Selection{Series: "celery_task_sent_total", optional: true}},
		Out: &Term{Sum: []Selection{{Series: "celery_task_succeeded_total"}, {Series: "celery_task_retried_total"}}},
		Queued: &Term{
			Sum: []Selection{{Series: "celery_queue_length"}, {Series: "celery_task_received_total"}},
			Less: []Selection{
				{Series: "celery_task_succeeded_total"},
				{Series: "celery_task_retried_total"},
				{Series: "celery_task_failed_total"},
				{Series: "celery_task_rejected_total"},
				{Series: "celery_task_revoked_total"},
			},
		},
		Retries: ofSeries("celery_task_retried_total"),
		Drops: &Term{Sum: []Selection{
			{Series: "celery_task_failed_total", By: "exception", As: "failed"},
			{Series: "celery_task_rejected_total", As: "rejected"},
			{Series: "celery_task_revoked_total", As: "revoked"},
		}},
	},

	// sidekiq-prometheus-exporter by Strech. Each try is counted as processed. How
	// many jobs came in, and how many were given up since, nothing says.
	"sidekiq": {
		Unit: "jobs",
		Out:  &Term{Selection: Selection{Series: "sidekiq_processed_jobs_total"}, Less: []Selection{{Series: "sidekiq_failed_jobs_total"}}},
		Queued: &Term{Sum: []Selection{
			{Series: "sidekiq_enqueued_jobs"},
			{Series: "sidekiq_busy_workers"},
			{Series: "sidekiq_retry_jobs"},
			{Series: "sidekiq_scheduled_jobs"},
		}},
		Oldest: ofSeries("sidekiq_queue_latency_seconds"),
	},

	// A consumer's fetcher, by Micrometer. The lag is that of partitions from which
	// something was read since they were assigned.
	"kafka_consumer": {
		Unit: "records", Target: "topic",
		Out:    ofSeries("kafka_consumer_fetch_manager_records_consumed_total"),
		Queued: ofSeries("kafka_consumer_fetch_manager_records_lag"),
	},

	// A thread pool, by Micrometer. Tasks that it refuses it does not count.
	"java_executor": {
		Unit: "tasks", Target: "name",
		Out:    ofSeries("executor_completed_tasks_total"),
		Queued: &Term{Sum: []Selection{{Series: "executor_queued_tasks"}, {Series: "executor_active_threads"}}},
	},
}

func ofSeries(series string) *Term { return &Term{Selection: Selection{Series: series}} }
