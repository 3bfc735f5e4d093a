package listen

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Verified credentials are remembered for a minute: a scraper that polls each
// second must not cost a bcrypt each time. Wrong ones never are, so that they
// cannot push good ones out.
const (
	rememberFor  = time.Minute
	rememberMost = 128
)

// Passwords that are not remembered are checked one at a time, and not faster
// than this: bcrypt is slow on purpose, and the cores belong to the neighbour.
const (
	checkInterval = 100 * time.Millisecond
	checkBurst    = 20
)

// users checks the basic_auth_users of a web configuration.
type users struct {
	hashes  map[string]string
	unknown string // the hash that an unknown user is checked against, so that timing names no users
	key     []byte // of this process: what is remembered means nothing outside of it
	now     func() time.Time
	limit   *bucket

	bcrypt sync.Mutex // one check at a time

	mu         sync.Mutex
	remembered map[[sha256.Size]byte]time.Time // until when
}

func newUsers(hashes map[string]string, now func() time.Time) (*users, error) {
	cost := bcrypt.MinCost
	for user, hash := range hashes {
		c, err := bcrypt.Cost([]byte(hash))
		if err != nil {
			return nil, fmt.Errorf("basic_auth_users: %s: %w", user, err)
		}
		cost = max(cost, c)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails, says its documentation
	unknown, err := bcrypt.GenerateFromPassword(key, cost)
	if err != nil {
		return nil, fmt.Errorf("basic_auth_users: %w", err)
	}
	return &users{
		hashes: hashes, unknown: string(unknown), key: key, now: now,
		limit: newBucket(checkInterval, checkBurst, now), remembered: map[[sha256.Size]byte]time.Time{},
	}, nil
}

// known are the hashes, by user.
func (u *users) known() map[string]string {
	if u == nil {
		return nil
	}
	return u.hashes
}

func (u *users) check(user, password string) access {
	hash, known := u.hashes[user]
	if !known {
		hash = u.unknown
	}
	fingerprint := u.fingerprint(user, hash, password)
	if u.isRemembered(fingerprint) {
		return granted
	}
	if !u.limit.take() {
		return busy
	}
	u.bcrypt.Lock()
	err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	u.bcrypt.Unlock()
	if err != nil || !known {
		return refused
	}
	u.remember(fingerprint)
	return granted
}

// fingerprint names credentials. Each part goes in with its length, because
// parts that are only joined can be shifted into each other (CVE-2022-46146).
func (u *users) fingerprint(parts ...string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, u.key)
	for _, p := range parts {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		mac.Write([]byte(p))
	}
	return [sha256.Size]byte(mac.Sum(nil))
}

func (u *users) isRemembered(f [sha256.Size]byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.now().Before(u.remembered[f])
}

func (u *users) remember(f [sha256.Size]byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	if len(u.remembered) >= rememberMost {
		for old, until := range u.remembered {
			if !now.Before(until) {
				delete(u.remembered, old)
			}
		}
	}
	if len(u.remembered) < rememberMost {
		u.remembered[f] = now.Add(rememberFor)
	}
}

// A bucket lets one event pass each interval, and burst of them at once.
type bucket struct {
	interval time.Duration
	burst    int
	now      func() time.Time

	mu   sync.Mutex
	full time.Time // when the bucket will be full again
}

func newBucket(interval time.Duration, burst int, now func() time.Time) *bucket {
	return &bucket{interval: interval, burst: burst, now: now}
}

func (b *bucket) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if b.full.Before(now) {
		b.full = now
	}
	if b.full.Sub(now) > time.Duration(b.burst-1)*b.interval {
		return false
	}
	b.full = b.full.Add(b.interval)
	return true
}
