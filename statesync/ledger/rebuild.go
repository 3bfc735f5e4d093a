package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/statesync"
)

// A rebuild makes a new ledger from the pages of a damaged one. A row may be
// found twice, on a page and on an older one that was not overwritten: the
// later wins, which is the one with the higher seq, acknowledgement or epoch.
type rebuild struct {
	rescued
	*pages
	path string // of the new file
	last        // what was known in memory
	now  time.Time

	c        *sqlite.Conn
	meta     map[string]string
	metaRead bool
	sequence int64           // the highest number given, as the file says; 0: it does not
	places   int64           // the highest place given to what is put aside, likewise
	seen     int64           // the highest number met
	low      int64           // up to here every sink has acknowledged
	dropped  map[int64]int64 // of a workload with changes after head: the number of the one before them
}

// make makes the new file. Changes before from are left behind.
func (r *rebuild) make(from int64) (err error) {
	*r = rebuild{
		rescued: rescued{cause: r.cause, aside: r.aside},
		pages:   r.pages, path: r.path, last: r.last, now: r.now,
		meta: map[string]string{}, dropped: map[int64]int64{},
	}
	if err := removeAll(r.path); err != nil {
		return err
	}
	if err := makeFile(r.path); err != nil {
		return err
	}
	if r.c, err = sqlite.OpenConn(r.path, sqlite.OpenReadWrite); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.c.Close()) }()
	// It is synced once, when it is whole.
	for _, pragma := range []string{"PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF"} {
		if err := sqlitex.ExecuteTransient(r.c, pragma, nil); err != nil {
			return fmt.Errorf("%s: %w", pragma, err)
		}
	}
	if err := sqlitex.ExecuteScript(r.c, schema, nil); err != nil {
		return fmt.Errorf("make tables: %w", err)
	}
	if err := sqlitex.Execute(r.c, "BEGIN", nil); err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return r.scan(r.keep) },
		r.findLow,
		func() error { return r.scan(func(c cell) error { return r.keepChange(c, from) }) },
		r.mend,
		func() error { return fillSince(r.c) },
		r.count,
		r.writeLosses,
		r.writeMeta,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return sqlitex.Execute(r.c, "COMMIT", nil)
}

func (r *rebuild) exec(query string, args ...any) error {
	return sqlitex.Execute(r.c, query, &sqlitex.ExecOptions{Args: args})
}

// tryExec leaves out a row that the tables do not take: what is on a damaged
// page may be anything.
func (r *rebuild) tryExec(query string, args ...any) error {
	if err := r.exec(query, args...); err != nil && sqlite.ErrCode(err).ToPrimary() != sqlite.ResultConstraint {
		return err
	}
	return nil
}

// scan yields the cells of all pages in use.
func (r *rebuild) scan(yield func(cell) error) error {
	unused := r.unused()
	numbers := slices.Sorted(maps.Keys(r.frames))
	inFile := uint32((r.size + int64(r.pageSize) - 1) / int64(r.pageSize))
	numbers = slices.DeleteFunc(numbers, func(n uint32) bool { return n <= inFile })
	r.bad, r.rescued.pages = 0, 0
	buf := make([]byte, r.pageSize)
	one := func(n uint32) error {
		if unused[n] {
			return nil
		}
		r.rescued.pages++
		if err := r.page(n, buf); err != nil {
			r.bad++
			return nil //nolint:nilerr // the page is lost, which is what is counted
		}
		broken, err := r.cells(n, buf, yield)
		if broken {
			r.bad++
		}
		return err
	}
	for n := uint32(1); n <= inFile; n++ {
		if err := one(n); err != nil {
			return err
		}
	}
	for _, n := range numbers {
		if err := one(n); err != nil {
			return err
		}
	}
	return nil
}

// keep takes what is not a change.
func (r *rebuild) keep(c cell) error {
	v := c.values
	for _, value := range v {
		if s, ok := value.(string); ok && !utf8.ValidString(s) {
			return nil
		}
	}
	switch shape := c.shape(); {
	case !c.table && shape == "TT":
		return r.keepMeta(v[0].(string), v[1].(string))
	case !c.table && (shape == "TII" || shape == "TIITIIIIIITIIIII"):
		return r.keepCursor(v)
	case c.table && shape == "TI":
		r.keepSequence(v[0].(string), v[1].(int64))
	case c.table && shape == "NTTITTTIIITT", c.table && shape == "NTITTITITIIIIT", !c.table && shape == "TIIT":
		return r.keepApart(c.rowid, v, shape)
	case c.table && shape == "NTTIIT":
		return r.tryExec("INSERT OR REPLACE INTO streams(id, name, definition, version, at, lost) VALUES(?, ?, ?, ?, ?, ?)",
			c.rowid, v[1], v[2], v[3], v[4], statesync.GapLedgerLost)
	case c.table && shape == "IIIT":
		return r.exec("INSERT INTO losses(first, last, at, cause) VALUES(?, ?, ?, ?)", v...)
	case c.table && strings.HasPrefix(shape, "NTTTTT"):
		return r.keepWorkload(c.rowid, v, shape)
	}
	return nil
}

func (r *rebuild) keepMeta(key, value string) error {
	r.metaRead = true
	switch key {
	case "format":
		if value != "1" && value != "2" && value != "3" && value != fmt.Sprint(format) {
			return fmt.Errorf("ledger has format %s, want %d: it was written by another version of outrider", value, format)
		}
	case metaRescued, metaRescuedAt, metaCursorsLost:
	default:
		if before := r.meta[key]; len(value) > len(before) || len(value) == len(before) && value > before {
			r.meta[key] = value
		}
	}
	return nil
}

// keepCursor takes a cursor of format 3 or later, or of an earlier one. Of two the later
// counts whole: it is the one that more was saved of.
func (r *rebuild) keepCursor(v []any) error {
	if len(v) == 3 {
		return r.tryExec(`INSERT INTO cursors(sink, since, acked, skipped, begun) VALUES(?1, ?2, ?3, ?2, ?2)
			ON CONFLICT DO UPDATE SET acked = max(acked, excluded.acked)`, v...)
	}
	const columns = "sink, since, acked, position, skipped, marked_previous, marked, marked_changes, marked_skipped, marked_waiting, detached, detached_at, gaps, saves, saved, begun"
	names := strings.Split(columns, ", ")
	sets := make([]string, 0, len(names))
	for _, name := range names[1:] {
		sets = append(sets, name+" = excluded."+name)
	}
	return r.tryExec(fmt.Sprintf(`INSERT INTO cursors(%s) VALUES(?%s) ON CONFLICT DO UPDATE SET %s
		WHERE excluded.acked > acked OR excluded.acked = acked AND excluded.saves >= saves`,
		columns, strings.Repeat(", ?", len(names)-1), strings.Join(sets, ", ")), v...)
}

func (r *rebuild) keepSequence(table string, n int64) {
	switch table {
	case "changes":
		r.sequence = max(r.sequence, n)
	case "aside":
		r.places = max(r.places, n)
	}
}

// keepApart takes a row of what is kept for one sink, if it will be understood
// when it is read: else the new file would be found to be damaged, and the next.
func (r *rebuild) keepApart(id int64, v []any, shape string) error {
	understood := func(skipped any, known bool) bool {
		_, err := decodeSkips(skipped.(string))
		if err == nil && known {
			return true
		}
		r.unread++
		return false
	}
	switch shape {
	case "TIIT":
		if !understood(v[3], true) {
			return nil
		}
		return r.tryExec("INSERT OR REPLACE INTO told(sink, workload, seq, skipped) VALUES(?, ?, ?, ?)", v...)
	case "NTTITTTIIITT":
		if !understood(v[10], isAside(v[4].(string), v[11].(string), v[8].(int64))) {
			return nil
		}
		return r.tryExec(`INSERT INTO aside(id, sink, lane, n, what, uid, cause, first, seq, previous, skipped, body)
			VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, append([]any{id}, v[1:]...)...)
	}
	if !understood(v[8], tells(v[6].(string), v[5].(int64))) {
		return nil
	}
	return r.tryExec(`INSERT INTO dead_letters(id, sink, n, uid, lane, seq, body, previous, skipped, initial, tries, first, last, error)
		VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, append([]any{id}, v[1:]...)...)
}

// keepWorkload takes a row in the order of columns of format 2, or in that of
// format 1, with the columns that migrations have added at its end, as far as it
// was written since.
func (r *rebuild) keepWorkload(id int64, v []any, shape string) error {
	const (
		columns  = "id, uid, kind, namespace, name, labels, "
		orderOf1 = "state, reason, seq, rv, suspended, last, gone, stream, epoch, started, suspension, removed, since"
	)
	order := "stream, state, reason, epoch, seq, rv, suspended, started, suspension, last, gone, removed, since"
	switch shape {
	case "NTTTTTTTTIIIIIIIII":
		v = append(v, int64(0))
	case "NTTTTTTTTIIIIIIIIII":
	case "NTTTTTTTIIIII":
		order = orderOf1
		v = append(v, "", int64(1), int64(0), int64(0), int64(0), int64(0))
	case "NTTTTTTTIIIIITIIII":
		order = orderOf1
		v = append(v, int64(0))
	case "NTTTTTTTIIIIITIIIII":
		order = orderOf1
	default:
		return nil
	}
	if !isLabels(v[5].(string)) {
		return nil
	}
	names := strings.Split(columns+order, ", ")
	sets := make([]string, 0, len(names))
	for _, name := range names[1:] {
		sets = append(sets, name+" = excluded."+name)
	}
	return r.tryExec(fmt.Sprintf(`INSERT INTO workloads(%s) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT(id) DO UPDATE SET %s WHERE excluded.seq > seq OR excluded.seq = seq AND excluded.gone > gone`,
		strings.Join(names, ", "), strings.Join(sets, ", ")), append([]any{id}, v[1:]...)...)
}

// isAside reports whether a row of the table aside is one of those that there
// are, with the body that it needs.
func isAside(what, body string, seq int64) bool {
	switch what {
	case asideParked, asideSkipped:
		return true
	case asideInitial, asideReplay, asideGap:
		return tells(body, seq)
	}
	return false
}

func isLabels(s string) bool {
	var labels map[string]string
	return json.Unmarshal([]byte(s), &labels) == nil
}

// tells reports whether a body is a change of that seq.
func tells(body string, seq int64) bool {
	var told statesync.Change
	return utf8.ValidString(body) && json.Unmarshal([]byte(body), &told) == nil && told.Seq == seq && told.Workload.UID != ""
}

// keepChange takes a change, unless it comes after head.
func (r *rebuild) keepChange(c cell, from int64) error {
	if !c.table || c.shape() != "NIIIIT" {
		return nil
	}
	workload, seq, body := c.values[1].(int64), c.values[2].(int64), c.values[5].(string)
	if c.rowid <= 0 || !tells(body, seq) {
		return nil
	}
	if r.durable >= 0 && c.rowid > r.durable {
		previous := c.values[3].(int64)
		if before, ok := r.dropped[workload]; !ok || previous < before {
			r.dropped[workload] = previous
		}
		return nil
	}
	if r.durable < 0 && r.sequence > 0 && c.rowid > r.sequence {
		return nil
	}
	r.seen = max(r.seen, c.rowid)
	if c.rowid < from {
		if parked, err := readNumber(r.c, fmt.Sprintf("SELECT count(*) FROM aside WHERE n = %d AND what = 'parked'", c.rowid)); parked == 0 || err != nil {
			return err
		}
	}
	return r.exec("INSERT INTO changes(n, workload, seq, previous, recorded, body) VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
		append([]any{c.rowid}, c.values[1:]...)...)
}

// findLow finds up to where every sink that is not detached has settled, or
// retention has deleted; -1: not known.
func (r *rebuild) findLow() (err error) {
	for sink, acked := range r.acked {
		if err := r.exec(`INSERT INTO cursors(sink, since, acked, skipped, begun) VALUES(?1, ?2, ?2, ?2, ?2)
			ON CONFLICT DO UPDATE SET acked = max(acked, excluded.acked)`, sink, acked); err != nil {
			return err
		}
	}
	if r.low, err = readNumber(r.c, "SELECT coalesce(min(acked), -1) FROM cursors WHERE detached = ''"); err != nil {
		return err
	}
	if pruned, err := strconv.ParseInt(r.meta[metaPruned], 10, 64); err == nil {
		r.low = max(r.low, pruned)
	} else if r.metaRead {
		r.low = max(r.low, 0)
	}
	for _, query := range []string{"SELECT coalesce(max(acked), 0) FROM cursors", "SELECT coalesce(max(last), 0) FROM workloads", "SELECT coalesce(max(last), 0) FROM losses"} {
		n, err := readNumber(r.c, query)
		if err != nil {
			return err
		}
		r.seen = max(r.seen, n)
	}
	return nil
}

// mend brings rows and changes together where a page of one was lost, or is
// an older one.
func (r *rebuild) mend() error {
	for id, previous := range r.dropped {
		if err := r.exec("UPDATE workloads SET last = ? WHERE id = ? AND last > ?", previous, id, r.durable); err != nil {
			return err
		}
	}
	return sqlitex.Execute(r.c,
		`SELECT c.workload, c.n, c.body FROM changes c LEFT JOIN workloads w ON w.id = c.workload
		 WHERE w.id IS NULL OR w.seq < c.seq ORDER BY c.n`,
		&sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			var c statesync.Change
			if err := json.Unmarshal([]byte(s.ColumnText(2)), &c); err != nil {
				return fmt.Errorf("change %d: %w", s.ColumnInt64(1), err)
			}
			return r.rowFrom(s.ColumnInt64(0), s.ColumnInt64(1), &c)
		}})
}

// rowFrom makes or moves a workload's row to where a change has left it. The
// resourceVersion is not known; a repeat is then told by the state.
func (r *rebuild) rowFrom(id, n int64, c *statesync.Change) error {
	labels, err := json.Marshal(c.Workload.Labels)
	if err != nil {
		return fmt.Errorf("encode labels: %w", err)
	}
	var since any // nil: as it was
	if moves(c) {
		since = seconds(c.Occurred)
	}
	// The stream is that of its like.
	return r.tryExec(
		`INSERT INTO workloads(id, uid, kind, namespace, name, labels, stream, state, reason, epoch, seq, rv,
		 suspended, started, suspension, last, gone, removed, since)
		 VALUES(?1, ?2, ?3, ?4, ?5, ?6, coalesce((SELECT stream FROM workloads WHERE kind = ?3 AND kind != ?7 AND stream != ''
		 ORDER BY namespace = ?4 DESC LIMIT 1), ''), ?8, ?9, ?10, ?11, 0, 0, 0, 0, ?12, 0, 0, coalesce(?13, 0))
		 ON CONFLICT(id) DO UPDATE SET state = excluded.state, reason = excluded.reason, epoch = excluded.epoch,
		 seq = excluded.seq, last = excluded.last, gone = 0, since = coalesce(?13, since)`,
		id, c.Workload.UID, c.Workload.Kind, c.Workload.Namespace, c.Workload.Name, string(labels), statesync.StreamKind,
		string(c.To), c.Reason, c.Epoch, c.Seq, n, since)
}

func (r *rebuild) count() (err error) {
	for table, n := range map[string]*int64{"changes": &r.changes, "workloads": &r.workloads, "cursors": &r.cursors, "streams": &r.streams} {
		if *n, err = readNumber(r.c, "SELECT count(*) FROM "+table); err != nil {
			return err
		}
	}
	return nil
}

// writeLosses sets the number from which the ledger goes on, and finds which
// are missing.
func (r *rebuild) writeLosses() error {
	top := max(r.sequence, r.seen)
	if r.durable >= 0 {
		top = r.durable
	}
	oldest, err := readNumber(r.c, "SELECT coalesce(min(n), 0) FROM changes WHERE n NOT IN (SELECT n FROM aside WHERE what = 'parked')")
	if err != nil {
		return err
	}
	switch {
	case top == 0 && r.workloads == 0 && r.cursors == 0:
		// Nothing tells which numbers were given: these were not.
		top = r.now.UnixMilli()
		r.low = top
	case r.low < 0:
		r.low = max(oldest-1, 0)
	}
	known, err := readLosses(r.c)
	if err != nil {
		return err
	}
	next := r.low + 1
	err = sqlitex.Execute(r.c, "SELECT n FROM changes WHERE n > ? ORDER BY n", &sqlitex.ExecOptions{
		Args: []any{r.low},
		ResultFunc: func(s *sqlite.Stmt) error {
			n := s.ColumnInt64(0)
			r.lost = append(r.lost, uncovered(span{next, n - 1}, known)...)
			next = n + 1
			return nil
		},
	})
	if err != nil {
		return err
	}
	r.lost = append(r.lost, uncovered(span{next, top}, known)...)
	r.rescued.head = top
	for _, s := range r.lost {
		if err := r.exec("INSERT INTO losses(first, last, at, cause) VALUES(?, ?, ?, ?)", s.first, s.last, r.now.UnixNano(), r.cause.Error()); err != nil {
			return err
		}
	}
	if err := r.exec("DELETE FROM sqlite_sequence WHERE name IN ('changes', 'aside')"); err != nil {
		return err
	}
	return r.exec(`INSERT INTO sqlite_sequence(name, seq) VALUES('changes', ?1),
		('aside', max(?2, (SELECT coalesce(max(id), 0) FROM aside)))`, top, max(r.places, r.place))
}

// writeMeta begins a new epoch.
func (r *rebuild) writeMeta() error {
	old, err := strconv.ParseInt(r.meta["epoch"], 10, 64)
	switch {
	case err == nil && old > 0:
		r.epoch = old + 1
	case !r.metaRead || r.meta["cluster"] != "":
		r.epoch = r.now.Unix() // epochs are counted from 1: this one was not used
	}
	if r.epoch > 0 {
		r.meta["epoch"] = fmt.Sprint(r.epoch)
	}
	if r.meta["cluster"] == "" {
		if err := r.clusterFromChanges(); err != nil {
			return err
		}
	}
	r.meta["format"] = fmt.Sprint(format)
	r.meta[metaCursorsLost] = "maybe"
	r.meta[metaPruned] = fmt.Sprint(r.low)
	r.meta[metaRescuedAt] = r.now.UTC().Format(time.RFC3339)
	r.meta[metaRescued] = r.String()
	for key, value := range r.meta {
		if err := r.exec("INSERT INTO meta(key, value) VALUES(?, ?)", key, value); err != nil {
			return err
		}
	}
	return nil
}

// clusterFromChanges takes the cluster from the last change.
func (r *rebuild) clusterFromChanges() error {
	return sqlitex.Execute(r.c, "SELECT body FROM changes ORDER BY n DESC LIMIT 1", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error {
			var c statesync.Change
			if err := json.Unmarshal([]byte(s.ColumnText(0)), &c); err != nil {
				return err
			}
			if c.Cluster != "" {
				r.meta["cluster"] = c.Cluster
			}
			return nil
		},
	})
}
