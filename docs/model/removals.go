package main

// removal says where the counterexample to a rule's absence is found soonest.
type removal struct {
	rules  string // separated by commas: more than one where each alone makes up for the other
	in     string // the start of a configuration's name
	events uint8
	narrow func(c *config) // less of what does not matter; nil: nothing
	long   bool            // too long for every day
	spare  bool            // nothing is lost without these alone: another rule makes up for it
}

// removals returns one for every rule.
func removals() []removal {
	calm := func(c *config) { c.Breaks = 0 }
	history := func(c *config) { c.Breaks, c.Compactions = 0, 0 }
	plain := func(c *config) { c.Suspend = false }
	return []removal{
		{rules: "LowWater", in: "A", events: 2},
		{rules: "FlushTx", in: "A", events: 3},
		{rules: "FlushCommitted", in: "A", events: 2},
		{rules: "LWMBegin", in: "B", events: 2},
		{rules: "PointLast", in: "B", events: 3},
		{rules: "PlaceKept,NoStepBack", in: "A", events: 2},
		{rules: "PlaceKept,FlushQueued", in: "A", events: 2},
		{rules: "PlaceKept", in: "A", events: 2, spare: true}, // the flush behind it waits for all before
		{rules: "FlushQueued", in: "A", events: 2, spare: true},
		{rules: "InitSilent", in: "B", events: 3},
		{rules: "FirstFlush", in: "A", events: 3},
		{rules: "FirstAhead", in: "A", events: 3},
		{rules: "RowInCommit", in: "A", events: 2},
		{rules: "Atomic", in: "A", events: 2},
		{rules: "Tombstone", in: "A", events: 2},
		{rules: "TombObject", in: "A", events: 2},
		{rules: "PruneDurable", in: "B", events: 3},
		{rules: "EmittedRV", in: "A", events: 2},
		{rules: "EmitPerStream", in: "C1", events: 4, narrow: plain},
		{rules: "PendingList", in: "C1", events: 2},
		{rules: "PendKey", in: "A", events: 3},
		{rules: "KeyExclusive", in: "A", events: 2},
		{rules: "HeadOfLine", in: "A", events: 2},
		{rules: "LastDurable", in: "A", events: 2},
		{rules: "ConsistentList", in: "A", events: 3},
		{rules: "DiffUID", in: "A", events: 3},
		{rules: "DiffW", in: "B", events: 3},
		{rules: "RelBlocks", in: "A", events: 2},
		{rules: "RelUnit", in: "A", events: 3},
		{rules: "GapTied", in: "A", events: 3},
		{rules: "KeyReplace", in: "E", events: 3},
		{rules: "DelState", in: "E", events: 3},
		{rules: "PodsNotSuspended", in: "C1", events: 4, narrow: history},
		{rules: "OwnInRow", in: "C1", events: 4, narrow: calm, long: true},
		{rules: "PodLevel", in: "C1", events: 5, narrow: history, long: true},
		{rules: "PodID", in: "C1", events: 5, narrow: history, long: true},
		{rules: "AuditGuard", in: "E", events: 4},
		{rules: "EpochRead", in: "F1", events: 3},
		{rules: "EpochHeld", in: "F1", events: 3},
		{rules: "EpochDrains", in: "F1", events: 3},
		{rules: "EpochEndsFlush", in: "F2", events: 2},
		{rules: "EpochFirst", in: "F1", events: 3},
		{rules: "EpochLists", in: "F1", events: 3},
		{rules: "EpochUnread", in: "F1", events: 2},
		{rules: "EpochFeedsAll", in: "F1", events: 3},
		{rules: "EpochFresh", in: "F1", events: 3},
		{rules: "EpochRevives", in: "F1", events: 3},
		{rules: "LaneKey", in: "D1", events: 3},
		{rules: "AckAfter", in: "D1", events: 2},
		{rules: "AutoInc", in: "D1", events: 2},
	}
}
