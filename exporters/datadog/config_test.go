package datadog

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestConfigNamesWhatIsWrong(t *testing.T) {
	t.Setenv("DD_AGENT_HOST", "")
	c := Config{Address: "", Tags: map[string]string{"a:b": "c"}, Samples: -1, Timeout: time.Hour}
	err := c.Validate()
	for _, want := range []string{
		"address: got nothing, and neither DD_DOGSTATSD_URL nor DD_AGENT_HOST is set, want unix:///path",
		`tags: got "a:b": "c", want a name without : | and comma`, "samples: got -1, want 1 to 10000", "timeout: got 1h0m0s, want 10ms to 1m",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	for address, want := range map[string]target{
		"unix:///var/run/datadog/dsd.socket": {[]string{"unixgram", "unix"}, "/var/run/datadog/dsd.socket", unixPacket},
		"unixstream:///x":                    {[]string{"unix"}, "/x", unixPacket},
		"[::1]:8125":                         {[]string{"udp"}, "[::1]:8125", udpPacket},
		"udp://agent:8125":                   {[]string{"udp"}, "agent:8125", udpPacket},
	} {
		c.Address = address
		if got, wrong := c.target(); wrong != "" || !cmp.Equal(want, got, cmp.AllowUnexported(target{})) {
			t.Errorf("%s: got %+v %s, want %+v", address, got, wrong, want)
		}
	}
	for _, address := range []string{"unix://x", "http://x:8125", "host", "host:0", ":8125", "host:x"} {
		c.Address = address
		if got, wrong := c.target(); wrong == "" {
			t.Errorf("%s: got %+v, want it refused", address, got)
		}
	}
}

func TestAddressesFromTheEnvironment(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want string
	}{
		{nil, ""},
		{map[string]string{"DD_AGENT_HOST": "node"}, "node:8125"},
		{map[string]string{"DD_AGENT_HOST": "::1", "DD_DOGSTATSD_PORT": "9"}, "[::1]:9"},
		{map[string]string{"DD_AGENT_HOST": "2001:db8::1"}, "[2001:db8::1]:8125"},
		{map[string]string{"DD_AGENT_HOST": "node:9", "DD_DOGSTATSD_PORT": "10"}, "node:9"},
		{map[string]string{"DD_AGENT_HOST": "unix:///x"}, "unix:///x"},
		{map[string]string{"DD_AGENT_HOST": "node", "DD_DOGSTATSD_URL": "unix:///x"}, "unix:///x"},
		{map[string]string{"DD_DOGSTATSD_URL": "udp://node"}, "udp://node:8125"},
	} {
		if got := fromEnvironment(func(name string) string { return tt.env[name] }); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.env, got, tt.want)
		}
	}
}
