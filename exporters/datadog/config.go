package datadog

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
)

// What is not configured.
const (
	defaultSamples = 100
	defaultTimeout = time.Second
)

// Config describes where DogStatsD listens.
//
// Counters are sent as counts of what came since the reading before, gauges as
// they stand, histograms and timers as distributions: each bucket's middle once,
// with the sample rate that makes it count as often as it was seen. What is late
// counts when it arrives: DogStatsD's lines have no time. The names of counters end
// in .count, as Datadog's OpenMetrics check (V2) names them when it reads /metrics
// with histogram_buckets_as_distributions: so all names are the same on both ways.
type Config struct {
	// Address is unix:///path (datagrams, or a stream where the socket is one),
	// unixgram:///path, unixstream:///path or host:port (UDP). Empty: what
	// DD_DOGSTATSD_URL or DD_AGENT_HOST say. Of what is lost on the way nothing
	// is known with UDP.
	Address string `yaml:"address"`

	Tags map[string]string `yaml:"tags"` // of all series; a series' own win

	// Samples is how many values a distribution is sent as in one reading. With
	// up to as many buckets a value is at most 0.55 % off; beyond it buckets are
	// put together two by two, and each time that doubles.
	Samples int `yaml:"samples" default:"100"`

	// OriginDetection adds what the client knows of the container (its ID or its
	// cgroup's inode, DD_ENTITY_ID, DD_EXTERNAL_ENV), so that the Agent adds the
	// tags that it has for it. DD_ORIGIN_DETECTION_ENABLED=false overrides it.
	OriginDetection bool `yaml:"origin_detection"`

	Timeout time.Duration `yaml:"timeout" default:"1s"` // of a packet
}

// Validate implements the configuration's check.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	if _, got := c.target(); got != "" {
		wrong("address", got, "unix:///path, unixgram:///path, unixstream:///path or host:port")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Tags)) {
		value := c.Tags[name]
		if name == "" || name != clean(name, tagName) || value == "" || value != clean(value, tagValue) {
			wrong("tags", fmt.Sprintf("%q: %q", name, value), "a name without : | and comma, and a value without | and comma")
		}
	}
	if c.Samples < 1 || c.Samples > 10_000 {
		wrong("samples", strconv.Itoa(c.Samples), "1 to 10000")
	}
	if c.Timeout < 10*time.Millisecond || c.Timeout > time.Minute {
		wrong("timeout", c.Timeout.String(), "10ms to 1m")
	}
	return errors.Join(errs...)
}

// target returns where to send, or what is wrong with the address.
func (c *Config) target() (target, string) {
	address := c.Address
	if address == "" {
		if address = fromEnvironment(os.Getenv); address == "" {
			return target{}, "nothing, and neither DD_DOGSTATSD_URL nor DD_AGENT_HOST is set"
		}
	}
	for _, scheme := range []struct {
		prefix   string
		networks []string
	}{
		{"unix://", []string{"unixgram", "unix"}},
		{"unixgram://", []string{"unixgram"}},
		{"unixstream://", []string{"unix"}},
	} {
		if path, ok := strings.CutPrefix(address, scheme.prefix); ok {
			if !strings.HasPrefix(path, "/") {
				return target{}, fmt.Sprintf("%q, whose path does not begin with /", address)
			}
			return target{scheme.networks, path, unixPacket}, ""
		}
	}
	address = strings.TrimPrefix(address, "udp://")
	host, port, err := net.SplitHostPort(address)
	if n, badPort := strconv.ParseUint(port, 10, 16); err != nil || badPort != nil || n == 0 || host == "" || strings.Contains(host, "/") {
		return target{}, strconv.Quote(address)
	}
	return target{[]string{"udp"}, address, udpPacket}, ""
}

// fromEnvironment is where Datadog's own clients send to without an address.
func fromEnvironment(getenv func(string) string) string {
	const port = "8125"
	if url := getenv("DD_DOGSTATSD_URL"); url != "" {
		if host, ok := strings.CutPrefix(url, "udp://"); ok && !strings.Contains(host, ":") {
			url += ":" + port
		}
		return url
	}
	host := getenv("DD_AGENT_HOST")
	if host == "" {
		return ""
	}
	// A whole address is taken as such too.
	if strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return host
	}
	return net.JoinHostPort(host, cmp.Or(getenv("DD_DOGSTATSD_PORT"), port))
}
