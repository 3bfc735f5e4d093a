package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// The pages of a ledger's file are read here without SQLite, which gives up a
// whole table for one bad page of its tree. The format is
// https://www.sqlite.org/fileformat2.html; the rules:
//   - A frame of the WAL is good when its checksum goes on from the one that
//     the frame before has stored. So the frames after a bad one are still
//     good, where SQLite would end.
//   - A bad frame is left out: a row that was altered is worse than one that
//     is known to be lost. What the page held before is taken instead.
//   - Good frames count up to the last one that commits.
//   - A bad frame with two commits after it is damage: each commit is synced
//     before the next begins. With fewer it is what a crash leaves.

const (
	fileMagic    = "SQLite format 3\x00"
	walMagic     = 0x377f0682 // the lowest bit says that checksums are big endian
	walHeader    = 32
	frameHeader  = 24
	smallestPage = 512
	largestPage  = 1 << 16
)

// errDamaged says that the file is not what the ledger has written.
var errDamaged = errors.New("damaged")

// pages reads the pages of a database as the last commit left them.
type pages struct {
	db, wal   *os.File // wal is nil when there is none
	size      int64    // of db
	pageSize  int
	usable    int              // bytes of a page that hold data
	count     uint32           // pages of the database; as far as can be told
	frames    map[uint32]int64 // the offset in the WAL of a page's newest good content
	walHurt   bool             // frames are bad that were good once
	headError error            // what is wrong with the first page
}

// openPages opens the database at path. It must not be called while this
// process has a connection to it: see [makeFile].
func openPages(path string) (_ *pages, err error) {
	p := &pages{frames: map[uint32]int64{}}
	if p.db, err = os.Open(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	info, err := p.db.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is %s, want a file", path, info.Mode())
	}
	p.size = info.Size()
	p.wal, err = os.Open(path + "-wal")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := p.readHead(); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	if p.wal != nil {
		if err := p.readWAL(); err != nil {
			return nil, fmt.Errorf("read WAL: %w", err)
		}
	}
	return p, nil
}

func (p *pages) close() {
	_ = p.db.Close() // only read
	if p.wal != nil {
		_ = p.wal.Close()
	}
}

// readHead takes from the first page how large pages are and how many there
// should be.
func (p *pages) readHead() error {
	p.pageSize, p.usable = pageBytes, pageBytes
	p.count = uint32((p.size + pageBytes - 1) / pageBytes)
	head := make([]byte, 100)
	if n, err := p.db.ReadAt(head, 0); errors.Is(err, io.EOF) {
		p.headError = fmt.Errorf("it has %d bytes, want a header of 100", n)
		return nil
	} else if err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint16(head[16:]))
	if size == 1 {
		size = largestPage
	}
	reserved := int(head[20])
	if string(head[:16]) != fileMagic || size < smallestPage || size&(size-1) != 0 || reserved > 32 {
		p.headError = fmt.Errorf("it begins with %.16q, pages of %d bytes, want %q", head[:16], size, fileMagic)
		return nil
	}
	p.pageSize, p.usable = size, size-reserved
	p.count = uint32((p.size + int64(size) - 1) / int64(size))
	if changed, valid := head[24:28], head[92:96]; bytes.Equal(changed, valid) {
		p.count = max(binary.BigEndian.Uint32(head[28:]), 1)
	}
	return nil
}

// readWAL finds the good frames.
func (p *pages) readWAL() error {
	head := make([]byte, walHeader)
	if _, err := p.wal.ReadAt(head, 0); errors.Is(err, io.EOF) {
		return nil // nothing was ever written
	} else if err != nil {
		return err
	}
	var order binary.ByteOrder = binary.LittleEndian
	magic := binary.BigEndian.Uint32(head)
	if magic&1 != 0 {
		order = binary.BigEndian
	}
	seed := [2]uint32{binary.BigEndian.Uint32(head[24:]), binary.BigEndian.Uint32(head[28:])}
	salts := bytes.Clone(head[16:24])
	if size := int(binary.BigEndian.Uint32(head[8:])); magic&^1 == walMagic && checksum(order, [2]uint32{}, head[:24]) == seed && size >= smallestPage && size <= largestPage {
		if p.headError != nil {
			p.pageSize, p.usable = size, size
		}
	} else {
		// The frames say what the header said.
		p.walHurt, order, salts = true, binary.LittleEndian, nil
	}
	return p.readFrames(order, seed, salts)
}

// readFrames reads all frames; salts of nil are taken from the first.
func (p *pages) readFrames(order binary.ByteOrder, seed [2]uint32, salts []byte) error {
	type frame struct {
		page    uint32
		content int64
	}
	var open []frame // good ones since the last commit
	bad, commits := false, 0
	buf := make([]byte, frameHeader+p.pageSize)
	for at := int64(walHeader); ; at += int64(len(buf)) {
		if _, err := p.wal.ReadAt(buf, at); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if salts == nil {
			salts = bytes.Clone(buf[8:16])
		}
		stored := [2]uint32{binary.BigEndian.Uint32(buf[16:]), binary.BigEndian.Uint32(buf[20:])}
		sum := checksum(order, checksum(order, seed, buf[:8]), buf[frameHeader:])
		seed = stored
		if sum != stored || !bytes.Equal(buf[8:16], salts) {
			bad = true
			continue
		}
		open = append(open, frame{binary.BigEndian.Uint32(buf), at + frameHeader})
		size := binary.BigEndian.Uint32(buf[4:])
		if size == 0 {
			continue
		}
		if bad {
			commits++
		}
		p.count = size
		for _, f := range open {
			p.frames[f.page] = f.content
		}
		open = open[:0]
	}
	p.walHurt = p.walHurt || commits > 1
	return nil
}

// checksum goes on with a checksum of the WAL over b, a multiple of 8 bytes.
func checksum(order binary.ByteOrder, s [2]uint32, b []byte) [2]uint32 {
	for ; len(b) >= 8; b = b[8:] {
		s[0] += order.Uint32(b) + s[1]
		s[1] += order.Uint32(b[4:]) + s[0]
	}
	return s
}

// check returns what is wrong with the file as a whole, wrapping errDamaged:
// what SQLite finds late, or takes for an empty database or the end of the
// WAL.
func (p *pages) check() error {
	if _, ok := p.frames[1]; !ok && p.headError != nil {
		return fmt.Errorf("%w: %w", errDamaged, p.headError)
	}
	if p.headError != nil && p.size == 0 {
		return fmt.Errorf("%w: %w", errDamaged, p.headError) // SQLite would delete the WAL
	}
	if p.walHurt {
		return fmt.Errorf("%w: the WAL is not what was written", errDamaged)
	}
	for n := uint32(p.size/int64(p.pageSize)) + 1; n <= p.count; n++ {
		if _, ok := p.frames[n]; !ok {
			return fmt.Errorf("%w: it has %d bytes, want %d pages of %d", errDamaged, p.size, p.count, p.pageSize)
		}
	}
	return nil
}

// page reads a page into buf, which is pageSize long.
func (p *pages) page(n uint32, buf []byte) error {
	from, at := p.db, int64(n-1)*int64(p.pageSize)
	if content, ok := p.frames[n]; ok {
		from, at = p.wal, content
	}
	got, err := from.ReadAt(buf, at)
	if errors.Is(err, io.EOF) && got > 0 {
		clear(buf[got:])
		return nil
	}
	return err
}

// unused returns the pages of the freelist: what they hold was deleted.
func (p *pages) unused() map[uint32]bool {
	out := map[uint32]bool{}
	buf := make([]byte, p.pageSize)
	if p.page(1, buf) != nil || string(buf[:16]) != fileMagic {
		return out
	}
	for trunk := binary.BigEndian.Uint32(buf[32:]); trunk > 1 && trunk <= p.count && !out[trunk]; trunk = binary.BigEndian.Uint32(buf) {
		if p.page(trunk, buf) != nil {
			break
		}
		leaves := binary.BigEndian.Uint32(buf[4:])
		if int64(leaves) > int64(p.usable/4-2) {
			break
		}
		out[trunk] = true
		for i := range leaves {
			out[binary.BigEndian.Uint32(buf[8+4*i:])] = true
		}
	}
	return out
}
