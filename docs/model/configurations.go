package main

// config is one bounded world to search.
type config struct {
	Name                         string
	Keys, UIDs                   uint8
	Events, Long                 uint8 // events of the API server, every day and in a long run; 0: the same
	Crashes, Breaks, Compactions uint8
	SetBacks                     uint8 // of the whole cluster; of a single stream only
	Drops, Audits                uint8 // events that the API server loses; audits beyond those that are needed
	Pods                         bool  // a second stream, folded into the first
	Chunks                       bool  // a flush is two entries
	Sink, Retention              bool
	Suspend                      bool // workloads are suspended and resumed
	Touch                        bool // MODIFIED without a change of state
	PendingBound, QueueBound     uint8
	Rules                        rules
}

func (c *config) streams() uint8 {
	if c.Pods {
		return 2
	}
	return 1
}

// configurations returns the worlds that are searched, all rules kept.
func configurations() []config {
	cs := []config{
		{Name: "A1 one key, two UIDs, two crashes, 410", Keys: 1, UIDs: 2, Events: 3, Long: 4, Crashes: 2, Breaks: 1, Compactions: 1, Retention: true, Suspend: true, Touch: true, QueueBound: 3},
		{Name: "B1 two keys, flush in chunks, crash, 410", Keys: 2, UIDs: 2, Events: 3, Long: 4, Crashes: 1, Compactions: 1, Chunks: true, Retention: true, QueueBound: 2},
		{Name: "C1 pods folded into a job, crash, 410", Keys: 1, UIDs: 1, Events: 3, Long: 4, Crashes: 1, Breaks: 1, Compactions: 1, Pods: true, Suspend: true, QueueBound: 3},
		{Name: "C2 pods, two UIDs of one key, 410", Keys: 1, UIDs: 2, Events: 3, Long: 4, Crashes: 1, Compactions: 1, Pods: true, QueueBound: 2},
		{Name: "C3 a pod that changes without consequence, 410", Keys: 1, UIDs: 1, Events: 3, Long: 4, Crashes: 1, Compactions: 1, Pods: true, Touch: true, QueueBound: 2},
		{Name: "E1 the API server loses an event, audit", Keys: 1, UIDs: 2, Events: 4, Crashes: 1, Drops: 1, Audits: 2, QueueBound: 2},
		{Name: "F1 the cluster is set back, crash", Keys: 1, UIDs: 2, Events: 3, Long: 4, Crashes: 1, SetBacks: 1, Suspend: true, QueueBound: 2},
		{Name: "F2 set back, flush in chunks, 410", Keys: 2, UIDs: 2, Events: 2, Crashes: 1, Compactions: 1, SetBacks: 1, Chunks: true, QueueBound: 2},
		{Name: "D1 a sink, one key, two UIDs, crash", Keys: 1, UIDs: 2, Events: 3, Crashes: 1, Sink: true, Retention: true, QueueBound: 2},
		{Name: "D2 a sink, two keys, crash", Keys: 2, UIDs: 2, Events: 3, Crashes: 1, Sink: true, Retention: true, QueueBound: 2},
	}
	for i := range cs {
		cs[i].PendingBound, cs[i].Rules = 3, allRules()
	}
	return cs
}
