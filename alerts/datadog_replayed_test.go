package alerts

// What the agent and the model say of the same series. Where they differ by more than
// the minute of an evaluation, docs/alerts.md says why.

// replayedLevels are rules on levels. Read-only.
var replayedLevels = map[string]replayed{
	"a level alerts and is over": {
		rule:    `{series: a, crit: "~:10", warn: "~:5"}`,
		series:  []string{"a q:x = 1*60 7*60 20*60 1*60"},
		agent:   "warn 10m0s-20m0s, fail 20m0s-30m0s",
		datadog: "warn 11m0s-21m0s, alert 21m0s-31m0s",
	},
	"a level that is outside for a moment": {
		rule:   `{series: a, crit: "~:10", for: 5m}`,
		series: []string{"a = 1*60 20*12 1*60"},
	},
	"a level that is outside for as long as for": {
		rule:    `{series: a, crit: "~:10", for: 5m}`,
		series:  []string{"a = 1*60 20*60 1*60"},
		agent:   "fail 15m0s-20m0s",
		datadog: "alert 15m0s-21m0s",
	},
	"a level that begins outside": {
		rule:    `{series: a, crit: "~:10", for: 5m}`,
		series:  []string{"a = 20*60 1*60"},
		agent:   "fail 5m0s-10m0s",
		datadog: "alert 5m0s-11m0s",
	},
	"a floor": {
		rule:    `{series: a, crit: "10:"}`,
		series:  []string{"a = 20*60 1*60 20*60"},
		agent:   "fail 10m0s-20m0s",
		datadog: "alert 11m0s-21m0s",
	},
	"a level that recovers slowly": {
		rule:    `{series: a, crit: "~:10", crit_clear: "~:3", warn: "~:5", warn_clear: "~:2"}`,
		series:  []string{"a = 1*60 20*60 8*60 4*60 2*60"},
		agent:   "fail 10m0s-40m0s",
		datadog: "alert 11m0s-41m0s",
	},
	"a level that is kept": {
		rule:    `{series: a, crit: "~:10", keep_for: 10m}`,
		series:  []string{"a = 1*60 20*30 1*30 20*30 1*120"},
		agent:   "fail 10m0s-35m0s",
		datadog: "alert 11m0s-35m0s",
	},
	"a level that is kept after for": {
		rule:    `{series: a, crit: "~:10", for: 2m, keep_for: 10m}`,
		series:  []string{"a = 1*60 20*60 1*120"},
		agent:   "fail 12m0s-30m0s",
		datadog: "alert 12m0s-21m0s", // what is kept is what has no for
	},
	"the worst of several": {
		rule:    `{series: a, crit: "~:10"}`,
		series:  []string{"a q:x = 1*120", "a q:y = 1*60 20*30 1*30"},
		agent:   "fail 10m0s-15m0s",
		datadog: "alert 11m0s-16m0s",
	},
	"a sum by a tag": {
		rule:    `{series: a, aggregate: sum, by: [q], crit: "~:10"}`,
		series:  []string{"a q:x n:1 = 6*120", "a q:x n:2 = 1*60 6*30 1*30", "a q:y n:1 = 6*120"},
		agent:   "fail 10m0s-15m0s",
		datadog: "alert 11m0s-16m0s",
	},
	"a series that goes away while it alerts": {
		rule:    `{series: a, crit: "~:10"}`,
		series:  []string{"a = 1*60 20*60 _*600"},
		agent:   "fail 10m0s-25m0s",
		datadog: "alert 11m0s-1h20m0s", // by timeout_h
	},
	"a series without a tag that is grouped by": {
		rule:    `{series: a, aggregate: max, by: [q], crit: "~:10"}`,
		series:  []string{"a = 20*120"},
		agent:   "fail 0s-",
		datadog: "", // monitors do not see it
	},
}

// replayedRates are rules on rates. Read-only.
var replayedRates = map[string]replayed{
	"any drop": {
		rule:    `{series: a_total, rate: 5m, crit: "0"}`,
		series:  []string{"a_total = +0*60 +3*1 +0*60"},
		agent:   "fail 10m0s-15m0s",
		datadog: "alert 11m0s-16m0s",
	},
	"a rate": {
		rule:    `{series: a_total, rate: 5m, warn: "0.02", crit: "0.2"}`,
		series:  []string{"a_total = +0*60 +3*30 +0*60"},
		agent:   "warn 10m20s-13m20s, fail 13m20s-16m30s, warn 16m30s-19m30s",
		datadog: "warn 11m0s-14m0s, alert 14m0s-17m0s, warn 17m0s-20m0s",
	},
	"a rate for some time": {
		rule:    `{series: a_total, rate: 5m, crit: "0.2", for: 5m}`,
		series:  []string{"a_total = +0*60 +3*90 +0*60"},
		agent:   "fail 18m20s-26m30s",
		datadog: "alert 17m0s-29m0s", // over window and for together
	},
	"one failure where it must go on failing": {
		rule:   `{series: a_total, rate: 10m, crit: "0", for: 10m}`,
		series: []string{"a_total = +0*60 +1*1 +0*120"},
	},
	"a failure now and then": {
		rule:    `{series: a_total, rate: 10m, crit: "0", for: 10m}`,
		series:  []string{"a_total = +0*60 +1*1 +0*29 +1*1 +0*29 +1*1 +0*29 +1*1 +0*120"},
		agent:   "fail 20m0s-35m0s",
		datadog: "alert 16m0s-41m0s",
	},
	"too low a rate": {
		rule:    `{series: a_total, rate: 5m, crit: "0.1:"}`,
		series:  []string{"a_total = +2*60 +0*60 +2*60"},
		agent:   "fail 12m30s-22m20s",
		datadog: "alert 13m0s-23m0s",
	},
	"a rate that is too low only because it begins": {
		rule:   `{series: a_total, rate: 5m, crit: "0.1:"}`,
		series: []string{"a_total = _*31 +2*60"},
	},
}

// replayedOthers are rules of the other functions. Read-only.
var replayedOthers = map[string]replayed{
	"a share": {
		rule:    `{series: a_total, share: {all: b_total, window: 5m}, crit: "0.5"}`,
		series:  []string{"a_total = +0*60 +3*60 +0*60", "b_total = +4*180"},
		agent:   "fail 13m20s-21m30s",
		datadog: "alert 14m0s-22m0s",
	},
	"a share of too little": {
		rule:   `{series: a_total, share: {all: b_total, window: 5m, least: 600}, crit: "0.5"}`,
		series: []string{"a_total = +0*60 +3*60 +0*60", "b_total = +4*180"},
	},
	"a share that is too low": {
		rule:    `{series: a_total, share: {all: b_total, window: 5m, least: 100}, warn: "0.9:", crit: "0.5:"}`,
		series:  []string{"a_total = +4*60 +0*60 +4*60", "b_total = +4*180"},
		agent:   "warn 10m30s-12m30s, fail 12m30s-22m20s, warn 22m20s-24m20s",
		datadog: "warn 11m0s-13m0s, alert 13m0s-23m0s, warn 23m0s-25m0s",
	},
	"a share that is too low of too little": {
		rule:   `{series: a_total, share: {all: b_total, window: 5m, least: 600}, crit: "0.5:"}`,
		series: []string{"a_total = +4*60 +0*60 +4*60", "b_total = +4*180"},
	},
	"a share over a long window and a short one": {
		rule:    `{series: a_total, share: {all: b_total, window: 30m, short: 5m}, crit: "0.1"}`,
		series:  []string{"a_total = +0*180 +4*60 +0*300", "b_total = +4*540"},
		agent:   "fail 33m0s-44m20s",
		datadog: "alert 34m0s-1h7m0s", // a monitor has one window
	},
	"nothing of a share moves any more": {
		rule:    `{series: a_total, share: {all: b_total, window: 5m}, crit: "0.5"}`,
		series:  []string{"a_total = +3*60 +0*120", "b_total = +4*60 +0*120"},
		agent:   "fail 10s-14m50s",
		datadog: "alert 2m0s-", // 0 of 0 is no value, and what has none stays
	},
	"a change of a level": {
		rule:    `{series: a, change: {shift: 15m}, aggregate: sum, crit: "~:0"}`,
		series:  []string{"a = 5*180 6*180"},
		agent:   "fail 30m0s-45m0s",
		datadog: "alert 31m0s-46m0s",
	},
	"a change that is only a beginning": {
		rule:   `{series: a, change: {shift: 15m}, aggregate: sum, crit: "~:0"}`,
		series: []string{"a = _*60 5*300"},
	},
	"a change of a rate by half": {
		rule:    `{series: a_total, change: {shift: 20m, window: 5m, ratio: true}, crit: "-0.5:"}`,
		series:  []string{"a_total = +4*240 +1*180"},
		agent:   "fail 43m20s-1h3m10s",
		datadog: "alert 44m0s-1h4m0s",
	},
	"a change of a rate that is only a beginning": {
		rule:   `{series: a_total, change: {shift: 20m, window: 5m}, crit: "~:0.1"}`,
		series: []string{"a_total = _*60 +4*300"},
	},
	"the most of a window": {
		rule:    `{series: a, quantile: {q: 1, window: 10m}, crit: "~:10"}`,
		series:  []string{"a = 1*90 20*1 1*120"},
		agent:   "fail 15m0s-25m10s",
		datadog: "alert 16m0s-26m0s",
	},
	"a staleness": {
		rule:    `{series: a, staleness: 5m}`,
		series:  []string{"a = 1*60 _*60 1*60"},
		agent:   "fail 15m0s-20m0s",
		datadog: "no data 15m0s-21m0s",
	},
	"an absence": {
		rule:    `{series: a, absence: 5m}`,
		series:  []string{"a = 1*60 _*60 1*60"},
		agent:   "fail 15m0s-20m0s",
		datadog: "no data 15m0s-21m0s",
	},
	"data that is missing": {
		rule:    `{series: a, crit: "~:10", witness: b}`,
		series:  []string{"a = 1*60 _*120 1*60"},
		datadog: "no data 20m0s-31m0s", // in the agent the check on it says so
	},
}
