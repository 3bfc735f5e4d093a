package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
)

const (
	defaultPort = 9610
	defaultPath = "/healthz"
)

// digestFlags are those of the plugin.
type digestFlags struct {
	host, path      string
	port            uint16
	useTLS, version bool
	within          seconds
	verbose         int
	category, group string
	check           checkFlag
	leaveOut        string // what the names of checks begin with
	judge           judge

	credentials
	fanOut
}

// seconds is a duration, as people write it or as Nagios does.
type seconds time.Duration

func (s *seconds) String() string { return time.Duration(*s).String() }
func (s *seconds) Type() string   { return "duration" }

// Set implements the flag.
func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if n, notNumber := strconv.ParseFloat(text, 64); notNumber == nil && n < 1e6 {
		d, err = time.Duration(n*float64(time.Second)), nil
	}
	if err != nil || d < time.Millisecond || d > time.Hour {
		return errors.New("want 1ms to 1h, such as 10 or 10s")
	}
	*s = seconds(d)
	return nil
}

// checkDigestCommand is the Nagios plugin, and runs the kind digest once when it
// is given that kind's mapping.
func checkDigestCommand(kinds config.Kinds) *cobra.Command {
	f := digestFlags{within: seconds(10 * time.Second)}
	c := &cobra.Command{
		Use:   "digest [URL]",
		Short: "Ask an application for its digest: the Nagios plugin",
		Long: `Ask an application for its digest and say it as a Nagios plugin does: one line
with performance data, first what broke last, and more lines with -v. This program
is the plugin, too, when it is called by the name check_digest:

  ln -s /usr/bin/outrider /usr/lib/nagios/plugins/check_digest

Exit code 0, 1, 2 or 3 for a digest that says pass, warn, fail or unknown. An
application that refuses, resets or does not answer in time is 2. 3 is what tells
nothing about it: a wrong password or certificate, a name that does not resolve,
an answer that is no digest, a wrong command line. A redirect is not followed.

With --warn or --crit the figure of one check is judged here, by these ranges,
whatever the agent itself makes of it. A level that the service has had, and that
is HARD, is left only within the clear range. A check that passes without a figure
is 0; one that is unknown, late or not there is 3. So is an agent that does not
answer: the service outrider-agent, which asks for the check runner, tells of that.

With --fan-out each check's result is written to the command file of Nagios, too,
for a passive service named as the check is. The exit code is the digest's, or
that of a fan-out that failed when it is worse.`,
		Example: `  outrider check digest http://127.0.0.1:9610
  outrider check digest unix:/run/outrider.sock
  check_digest -H 10.0.0.1 -S --ca-file ca.pem --auth-file /etc/nagios/outrider.auth
  check_digest -H 10.0.0.1 --category email -t 10 -v
  check_digest -H 10.0.0.1 --check alert/ledger-space --warn 0.8 --crit 0.95
  check_digest -H 10.0.0.1 --check alert/ledger-space --crit 0.95 --crit-clear 0.9 \
    --last CRITICAL --last-type HARD`,
		RunE: func(c *cobra.Command, args []string) error {
			if _, known := kinds["digest"]; known && len(args) > 0 && strings.HasPrefix(strings.TrimSpace(args[0]), "{") {
				return checkKind(c, "digest", args, kinds, time.Duration(f.within))
			}
			return f.run(c, args)
		},
	}
	flags := c.Flags()
	flags.StringVarP(&f.host, "hostname", "H", "", "host to ask, instead of a URL")
	flags.Uint16VarP(&f.port, "port", "p", defaultPort, "its port")
	flags.StringVarP(&f.path, "url", "u", defaultPath, "path of the digest")
	flags.BoolVarP(&f.useTLS, "ssl", "S", false, "ask over TLS")
	flags.VarP(&f.within, "timeout", "t", "seconds, or a duration, for all of it")
	flags.CountVarP(&f.verbose, "verbose", "v", "a line for each check; -vv says more of each")
	flags.BoolVarP(&f.version, "version", "V", false, "print the version")
	flags.StringVar(&f.caFile, "ca-file", "", "certificates to trust, in PEM, instead of the system's")
	flags.StringVar(&f.certFile, "cert", "", "certificate to show, in PEM")
	flags.StringVar(&f.keyFile, "key", "", "its key, in PEM")
	flags.StringVar(&f.serverName, "server-name", "", "name to be in the server's certificate, instead of the host's")
	flags.BoolVar(&f.insecure, "insecure", false, "trust any certificate")
	flags.StringVar(&f.authFile, "auth-file", "", "file with user:password or a bearer token, mode 0640 or less")
	flags.StringVar(&f.category, "category", "", "page, email or all (default page)")
	flags.Var(&f.check, "check", "name of the only check to ask about")
	flags.StringVar(&f.group, "group", "", "only checks of this probe: live, ready or startup")
	flags.StringVar(&f.leaveOut, "without", "", "leave out checks whose names begin so, but not the unknown and late ones")
	f.judge.addFlags(c)
	flags.StringVar(&f.file, "fan-out", "", "command file of Nagios, for a passive result of each check")
	flags.StringVar(&f.fanOut.host, "fan-out-host", "", "host_name of these results")
	flags.StringVar(&f.prefix, "fan-out-prefix", "", "what the names of their services begin with")
	return c
}

// run asks and prints. Whatever holds it up, it ends soon after the deadline.
func (f *digestFlags) run(c *cobra.Command, args []string) error {
	if f.version {
		return report{status: verdict.Unknown, text: fmt.Sprintf("%s of outrider %s", pluginName, version)}.print(c.OutOrStdout())
	}
	t, err := f.target(args)
	if err != nil {
		return refuse(c, err)
	}
	within := time.Duration(f.within)
	ctx, cancel := context.WithTimeout(c.Context(), within)
	defer cancel()
	done := make(chan report, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- report{status: verdict.Unknown, text: fmt.Sprintf("%s: panic: %v%s", t.shown, p, place())}
			}
		}()
		done <- f.report(ctx, t)
	}()
	var r report
	select {
	case r = <-done:
	case <-ctx.Done():
		// What asks should have seen it as well: a file on a server that is gone
		// does not.
		select {
		case r = <-done:
		case <-time.After(100 * time.Millisecond):
			r = f.failed(t, interrupted(ctx, within))
		}
	}
	return r.print(c.OutOrStdout())
}

// target is the address that arguments and flags make.
func (f *digestFlags) target(args []string) (*target, error) {
	switch f.category {
	case "", "page", "email", "all":
	default:
		return nil, fmt.Errorf("--category: got %q, want page, email or all", f.category)
	}
	if !strings.HasPrefix(f.path, "/") {
		return nil, fmt.Errorf("--url: got %q, want a path such as %s", f.path, defaultPath)
	}
	if len(args) > 1 || len(args) == 1 && f.host != "" {
		return nil, errors.New("got more than one address, want a URL or -H")
	}
	scheme := "http://"
	if f.useTLS {
		scheme = "https://"
	}
	path := cmp.Or(f.path, defaultPath)
	address := scheme + net.JoinHostPort(cmp.Or(strings.Trim(f.host, "[]"), "127.0.0.1"), strconv.Itoa(int(f.port)))
	if len(args) == 1 {
		address = args[0]
	}
	t, err := parseTarget(address, path)
	switch {
	case err != nil:
		return nil, err
	case t.url.Scheme == "http" && (f.needTLS() || f.useTLS):
		return nil, errors.New("got flags about TLS for an address without, want https:// or -S with -H")
	case f.leaveOut != "" && f.check.name != "":
		return nil, errors.New("--without: got --check, too, want one or the other")
	}
	return t, cmp.Or(f.judge.validate(f), f.fanOut.validate())
}

// report asks.
func (f *digestFlags) report(ctx context.Context, t *target) report {
	trust, err := f.tls()
	if err != nil {
		return f.failed(t, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.query(t), nil)
	if err != nil {
		return f.failed(t, err)
	}
	req.Header.Set("Accept", "application/health+json")
	req.Header.Set("User-Agent", pluginName+"/"+version)
	if err := f.authorize(req); err != nil {
		return f.failed(t, err)
	}
	started := time.Now()
	d, err := ask(t.client(trust), req, time.Duration(f.within))
	if err != nil {
		return f.failed(t, err)
	}
	now := time.Now()
	if f.judge.on() {
		return f.judged(d, t, now.Sub(started))
	}
	if f.leaveOut != "" {
		d.without(f.leaveOut)
	}
	r := d.summary(t, f.what(), f.verbose, now.Sub(started), time.Duration(f.within), now)
	if f.file == "" {
		return r
	}
	if err := f.send(ctx, now, d.rows); err != nil {
		r.status = verdict.Worse(r.status, verdict.Unknown)
		r.text = fmt.Sprintf("fan-out: %v; %s", err, r.text)
	}
	return r
}

// failed is the report that there is no digest. Whoever judges a figure has none then,
// and knows nothing.
func (f *digestFlags) failed(t *target, err error) report {
	r := report{status: verdict.Unknown, text: fmt.Sprintf("%s: %v", t.shown, err)}
	answer, ok := errors.AsType[*failedAnswer](err)
	switch {
	case ok && !f.judge.on():
		r.status = answer.status
	case ok && strings.HasPrefix(answer.text, saysNoCheck):
		r.text = t.shown + ": " + notThere(f.check.name)
	}
	return r
}

// saysNoCheck is how it is told that the agent does not have a check.
const saysNoCheck = "status 404 that begins with no check "

// query is the address with what is asked for.
func (f *digestFlags) query(t *target) string {
	u := *t.url
	q := u.Query()
	category := f.category
	if category == "" && f.check.name != "" {
		category = "all" // a name says enough
	}
	for key, value := range map[string]string{"category": category, "check": f.check.name, "group": f.group} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if !q.Has("category") {
		q.Set("category", string(verdict.Page))
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// what says which checks they are.
func (f *digestFlags) what() string {
	text := cmp.Or(f.category, string(verdict.Page)) + " checks"
	if f.category == "all" || f.category == "" && f.check.name != "" {
		text = "checks"
	}
	if f.group != "" {
		text += " of group " + f.group
	}
	return text
}

// place is where a panic began, for a report.
func place() string {
	for skip := 3; ; skip++ {
		pc, _, line, ok := runtime.Caller(skip)
		if !ok {
			return ""
		}
		if name := runtime.FuncForPC(pc).Name(); !strings.HasPrefix(name, "runtime.") {
			return fmt.Sprintf(" at %s:%d", name[strings.LastIndexByte(name, '/')+1:], line)
		}
	}
}
