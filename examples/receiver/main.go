// Command receiver is a receiver of the webhook that proves that it has everything, and says what is missing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `receiver takes what outrider's webhook sends, and proves that it has everything.

It checks signatures, drops repeats, follows seq, previous and skipped of each
workload, and counts by marks. GET / shows how it stands, GET /report says it
as JSON. When it is interrupted it prints the report.

  receiver --secret-file hook.key
  receiver --secret-file new.key --old-secret-file hook.key   # while the key is changed
  receiver --secret-file hook.key --store changes.ndjson      # survives a restart
  receiver --listen 127.0.0.1:0                               # any port, no signatures

The store is a file of events, one a line, that grows for ever; outrider
ledger verify --against reads it too. Without one a receiver that is started
again has lost everything: its report is of what came since, and says from which
number on. Then give it a new sink.

In memory it keeps about 400 bytes for each workload that lives, or ended
within --forget, and runs of the numbers that marks may still count.

Exit code 0: nothing is missing that is not accounted for; 1: something is, or
the store failed; 2: a wrong command line.

`

type options struct {
	listen    string
	secret    string
	oldSecret string
	store     string
	forget    time.Duration
	maxBody   int64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the command: it serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("receiver", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.listen, "listen", "127.0.0.1:18080", "`address` to listen on")
	flags.StringVar(&o.secret, "secret-file", "", "`file` with the key of the signatures; none: they are not checked")
	flags.StringVar(&o.oldSecret, "old-secret-file", "", "`file` with the key before, which is good too")
	flags.StringVar(&o.store, "store", "", "`file` to keep the events in; none: they are in memory")
	flags.DurationVar(&o.forget, "forget", 24*time.Hour, "how long after its end a workload is remembered")
	flags.Int64Var(&o.maxBody, "max-body", 16<<20, "`bytes` of a request at most")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "receiver: got an argument %q, want flags only\n", flags.Arg(0))
		return 2
	case o.forget <= 0 || o.maxBody <= 0:
		fmt.Fprintln(stderr, "receiver: --forget and --max-body must be more than 0")
		return 2
	case o.oldSecret != "" && o.secret == "":
		fmt.Fprintln(stderr, "receiver: --old-secret-file needs --secret-file")
		return 2
	}
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	whole, err := serve(ctx, o, stdout, logger)
	if err != nil {
		logger.Error("stopped", "err", err)
		return 1
	}
	if !whole {
		return 1
	}
	return 0
}

// serve answers requests until ctx ends or the store fails, and then prints
// the report.
func serve(ctx context.Context, o options, stdout io.Writer, logger *slog.Logger) (whole bool, err error) {
	var keys [][]byte
	for _, path := range []string{o.secret, o.oldSecret} {
		if path == "" {
			continue
		}
		key, err := readKey(path)
		if err != nil {
			return false, err
		}
		keys = append(keys, key)
	}
	notes, err := openNotebook(o.store, o.forget, time.Now)
	if err != nil {
		return false, err
	}
	defer notes.close()
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return false, fmt.Errorf("listen: %w", err)
	}
	s := &server{notes: notes, keys: keys, maxBody: o.maxBody, logger: logger}
	// Requests outlive ctx until they are answered: their context is their own.
	surface := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	taking, stopTaking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTaking()
	served, taken := make(chan error, 1), make(chan error, 1)
	go func() { served <- surface.Serve(listener) }()
	go func() { taken <- notes.run(taking) }()
	fmt.Fprintf(stdout, "listening on http://%s\n", listener.Addr())
	if len(keys) == 0 {
		logger.Warn("signatures are not checked: give --secret-file")
	}

	select {
	case <-ctx.Done():
		patience, cancel := context.WithTimeout(taking, 5*time.Second)
		err = surface.Shutdown(patience)
		cancel()
		stopTaking()
		err = errors.Join(err, <-taken)
	case err = <-taken:
		err = errors.Join(err, surface.Close())
	case err = <-served:
		stopTaking()
		err = errors.Join(err, <-taken)
	}
	r := notes.report(reportRuns)
	return r.Whole, errors.Join(err, r.WriteText(stdout))
}
