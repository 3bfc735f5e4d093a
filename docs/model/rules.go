package main

import (
	"fmt"
	"reflect"
)

// rules says which rules are kept. Each was found because something was lost,
// doubled or out of order without it; the search shows it again for each.
type rules struct {
	// Where the watch goes on, and what is kept for that.
	LowWater       bool // the resume point waits for what is pending or not durable
	FlushTx        bool // it is written only with the objects as of then
	FlushCommitted bool // objects are flushed as of their last committed delta, not as the indexer has them
	LWMBegin       bool // the low-water mark is taken when the flush is, before its first chunk
	PointLast      bool // the resume point is in the last chunk of a flush
	FlushQueued    bool // a flush goes through the committer's queue, behind what was handed over before it
	PlaceKept      bool // a delta that causes nothing keeps its place in that queue
	NoStepBack     bool // a delta that is committed later does not bring back an older object
	InitSilent     bool // what is loaded at a start causes nothing
	FirstFlush     bool // a first list is durable before its first change
	FirstAhead     bool // it is handed over ahead of its deltas

	// A workload's row.
	RowInCommit   bool // it is written in the transaction of its changes
	Atomic        bool // all changes of one delta are one transaction
	Tombstone     bool // it stays for a while after the end
	TombObject    bool // while the object exists, and until the resume point has passed its removal
	PruneDurable  bool // the durable resume point, not that of the flush under way
	EmittedRV     bool // an event at or below the version that last caused a change causes none
	EmitPerStream bool // that version is kept per stream

	// Order.
	PendingList  bool // every delta is kept, not only the newest of a key
	PendKey      bool // pending lists are per key, not per UID
	KeyExclusive bool // one worker at a time holds a key
	HeadOfLine   bool // the committer tries the same entry until it is durable
	LastDurable  bool // after a failed commit it looks for the last durable number first

	// Lists.
	ConsistentList bool // never served from a cache of any age
	DiffUID        bool // the difference is by UID, not by name
	DiffW          bool // and covers the lives that the ledger knows, not only the indexer
	RelBlocks      bool // no live event before the list's deltas are in the pending lists
	RelUnit        bool // the mark does not move while a delta of the list is outstanding
	GapTied        bool // the gap's row comes before the list's deltas, and the mark waits for it
	KeyReplace     bool // another UID under a held key ends the old one first
	DelState       bool // the object inside DELETED is reduced first: its own end wins

	// Folded pods.
	PodsNotSuspended bool // pods do not move a suspended workload
	OwnInRow         bool // suspended is read from the row, not from the owner's object
	PodLevel         bool // pods are checked against the state alone: Running from Queued
	PodID            bool // the ID of a change that a pod caused hashes the owner's emitted version too

	AuditGuard bool // a correction is dropped when its UID ended or its entry changed meanwhile

	// A cluster that was set back.
	EpochRead      bool // the collection's version is read at every reconnect
	EpochHeld      bool // and compared with all that is held: kept objects and rows too, not the resume point alone
	EpochDrains    bool // what is pending is finished first, not dropped
	EpochEndsFlush bool // a flush under way ends: its resume point is of the older epoch
	EpochFirst     bool // the epoch begins before the list, not after it
	EpochLists     bool // no resume point is kept: every stream lists
	EpochUnread    bool // what was kept unread in an older epoch is not fed at a start
	EpochFeedsAll  bool // every listed object is fed: equal versions are not equal objects
	EpochFresh     bool // emitted versions of an older epoch do not count
	EpochRevives   bool // a workload that ended in an older epoch and has not ended in the list lives again

	// Sinks.
	LaneKey  bool // one change of a key is in flight
	AckAfter bool // what is in flight is not stored as acknowledged
	AutoInc  bool // row numbers are never used again
}

// allRules keeps every rule.
func allRules() (r rules) {
	for _, v := range reflect.ValueOf(&r).Elem().Fields() {
		v.SetBool(true)
	}
	return r
}

// remove removes the rule of this name.
func (r *rules) remove(name string) error {
	f := reflect.ValueOf(r).Elem().FieldByName(name)
	if !f.IsValid() {
		return fmt.Errorf("remove rule: got %q, want one of %v", name, ruleNames())
	}
	f.SetBool(false)
	return nil
}

// ruleNames returns the names of all rules, in the order of their declaration.
func ruleNames() (names []string) {
	for f := range reflect.TypeFor[rules]().Fields() {
		names = append(names, f.Name)
	}
	return names
}
