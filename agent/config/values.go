package config

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
)

// A Path is a file or folder. In the file it may be relative to the
// configuration file's folder; decoded it is joined with it. Empty stays empty.
type Path string

func (p Path) in(dir string) Path {
	if p == "" || filepath.IsAbs(string(p)) {
		return p
	}
	return Path(filepath.Join(dir, string(p)))
}

// Bytes is an amount of memory or disk, written as 2GiB, 64MB or 4096.
type Bytes int64

// byteUnits are the units of Bytes, larger ones first, binary before decimal. Read-only.
var byteUnits = [...]struct {
	name string
	size int64
}{
	{"TiB", 1 << 40},
	{"TB", 1e12},
	{"GiB", 1 << 30},
	{"GB", 1e9},
	{"MiB", 1 << 20},
	{"MB", 1e6},
	{"KiB", 1 << 10},
	{"KB", 1e3},
	{"kB", 1e3},
	{"B", 1},
}

var errBytes = errors.New("not an amount of bytes, want a number with a unit such as 2GiB or 64MB")

// UnmarshalText reads a whole number with a unit; none means bytes.
func (b *Bytes) UnmarshalText(text []byte) error {
	digits, size := strings.TrimSpace(string(text)), int64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(digits, u.name); ok {
			digits, size = strings.TrimRight(rest, " "), u.size
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || int64(n) > math.MaxInt64/size {
		return errBytes
	}
	*b = Bytes(int64(n) * size)
	return nil
}

// String gives the amount in the largest binary unit that divides it.
func (b Bytes) String() string {
	for _, u := range byteUnits {
		if strings.HasSuffix(u.name, "iB") && b != 0 && int64(b)%u.size == 0 {
			return fmt.Sprintf("%d%s", int64(b)/u.size, u.name)
		}
	}
	return fmt.Sprintf("%dB", int64(b))
}
