package checks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// DNSConfig describes a name and what it must stand for.
//
// healthcheck.DNSResolveCheck wants any address, from the system's resolver, with
// a time of its own instead of a context; this kind asks by itself.
type DNSConfig struct {
	Name string `yaml:"name" required:"true"`
	Type string `yaml:"type" default:"A"` // A, AAAA, CNAME, MX, TXT or SRV

	// Server is asked instead of the system's resolver, which also reads
	// /etc/hosts and adds the system's search domains: host or host:port.
	Server string `yaml:"server"`

	// Expect are records that must be among the answers: addresses, names, texts,
	// of MX "10 mail.example" or the name alone, of SRV "10 5 443 a.example",
	// "a.example:443" or the name alone.
	Expect []string `yaml:"expect"`
	Min    int      `yaml:"min" default:"1"` // how many records there must be

	Limits // of the time to the answer, in seconds
}

// dnsTypes are the types that can be asked for. Read-only.
var dnsTypes = []string{"A", "AAAA", "CNAME", "MX", "TXT", "SRV"}

const maxExpected = 100

// Validate is asked when the configuration is read.
func (c *DNSConfig) Validate() error {
	var errs []error
	wrong := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	if !validHost(c.Name) {
		wrong("name", snippet(c.Name, 100), "a name such as db.example.org")
	}
	if !slices.Contains(dnsTypes, c.Type) {
		wrong("type", snippet(c.Type, 20), "one of "+strings.Join(dnsTypes, ", "))
	}
	if _, ok := dnsServer(c.Server); c.Server != "" && !ok {
		wrong("server", snippet(c.Server, 100), "host or host:port, such as 10.0.0.2")
	}
	if c.Min < 1 || c.Min > maxExpected {
		wrong("min", strconv.Itoa(c.Min), fmt.Sprintf("1 to %d", maxExpected))
	}
	if len(c.Expect) > maxExpected {
		wrong("expect", strconv.Itoa(len(c.Expect))+" records", fmt.Sprintf("at most %d", maxExpected))
	}
	return errors.Join(errs...)
}

func validHost(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > 253 || strings.ContainsAny(name, " \t\r\n/:") {
		return false
	}
	return !slices.ContainsFunc(strings.Split(name, "."), func(label string) bool { return label == "" || len(label) > 63 })
}

// dnsServer adds the usual port where there is none.
func dnsServer(text string) (address string, ok bool) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), "53"
	}
	n, err := strconv.Atoi(port)
	ok = err == nil && n >= 1 && n <= 65535 && (net.ParseIP(host) != nil || validHost(host))
	return net.JoinHostPort(host, port), ok
}

// Build implements [Builder].
func (c *DNSConfig) Build(env Env) (Checker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	d := &dnsCheck{DNSConfig: c, now: env.Now, lookup: lookupSystem}
	if c.Server != "" {
		address, _ := dnsServer(c.Server)
		d.lookup = func(ctx context.Context, typ, name string) ([]string, error) {
			return lookupServer(ctx, address, typ, name)
		}
	}
	return d, nil
}

// A dnsCheck looks up a name.
type dnsCheck struct {
	*DNSConfig
	now    func() time.Time
	lookup func(ctx context.Context, typ, name string) ([]string, error)
}

// Check implements [Checker].
func (d *dnsCheck) Check(ctx context.Context) verdict.Result {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	what, begun := d.Type+" of "+d.Name, d.now()
	if d.Server != "" {
		what += " from " + d.Server
	}
	records, err := d.lookup(ctx, d.Type, d.Name)
	if err != nil {
		return refused(ctx, what, err)
	}
	slices.Sort(records)
	r := answered(fmt.Sprintf("%s: %s", what, showRecords(records)), d.now().Sub(begun), d.Limits)
	r.Measures = append(r.Measures, verdict.Measure{Label: "records", Value: float64(len(records)), Crit: strconv.Itoa(d.Min) + ":"})
	if len(records) < d.Min {
		r.Status, r.Message = verdict.Fail, fmt.Sprintf("%s: got %s, want at least %d", what, showRecords(records), d.Min)
	}
	for _, want := range d.Expect {
		if !slices.ContainsFunc(records, func(got string) bool { return sameRecord(d.Type, got, want) }) {
			r.Status, r.Message = verdict.Fail, fmt.Sprintf("%s: got %s, want %s among them", what, showRecords(records), snippet(want, 80))
			break
		}
	}
	return r
}

// showRecords shows at most five.
func showRecords(records []string) string {
	const most = 5
	var shown []string
	for _, r := range records[:min(most, len(records))] {
		shown = append(shown, snippet(r, 60))
	}
	text := strings.Join(shown, ", ")
	switch more := len(records) - most; {
	case more > 0:
		return fmt.Sprintf("%s and %d more", text, more)
	case text == "":
		return "no record"
	}
	return text
}

// sameRecord compares a record with what is expected, which may be less than whole.
func sameRecord(typ, got, want string) bool {
	switch typ {
	case "TXT":
		return got == want
	case "A", "AAAA":
		a, b := net.ParseIP(got), net.ParseIP(want)
		return a != nil && a.Equal(b)
	}
	want = plainName(want)
	fields := strings.Fields(got)
	switch {
	case got == want || len(fields) > 0 && fields[len(fields)-1] == want:
		return true
	case typ == "SRV" && len(fields) == 4:
		return fields[3]+":"+fields[2] == want
	}
	return false
}

// plainName is a name in the one way that it is compared and shown.
func plainName(name string) string {
	if name == "." {
		return name
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// lookupSystem asks the system's resolver.
func lookupSystem(ctx context.Context, typ, name string) (records []string, err error) {
	r := net.DefaultResolver
	switch typ {
	case "A", "AAAA":
		network := map[string]string{"A": "ip4", "AAAA": "ip6"}[typ]
		ips, failed := r.LookupIP(ctx, network, name)
		for _, ip := range ips {
			records = append(records, ip.String())
		}
		err = failed
	case "CNAME":
		var to string
		if to, err = r.LookupCNAME(ctx, name); plainName(to) != plainName(name) {
			records = []string{plainName(to)} // the name itself means that there is none
		}
	case "MX":
		all, failed := r.LookupMX(ctx, name)
		for _, mx := range all {
			records = append(records, mxRecord(mx.Pref, mx.Host))
		}
		err = failed
	case "SRV":
		_, all, failed := r.LookupSRV(ctx, "", "", name)
		for _, s := range all {
			records = append(records, srvRecord(s.Priority, s.Weight, s.Port, s.Target))
		}
		err = failed
	default:
		records, err = r.LookupTXT(ctx, name)
	}
	failed, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case len(records) > 0: // an error beside them names records that are malformed
		return records, nil
	case isDNS && failed.IsNotFound:
		return nil, nil
	case isDNS && !failed.IsTimeout:
		return nil, errors.New(failed.Err)
	}
	return nil, err
}

func mxRecord(preference uint16, host string) string {
	return fmt.Sprintf("%d %s", preference, plainName(host))
}

func srvRecord(priority, weight, port uint16, target string) string {
	return fmt.Sprintf("%d %d %d %s", priority, weight, port, plainName(target))
}
