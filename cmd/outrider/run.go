package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/agent"
	"github.com/outrider-agent/outrider/agent/listen"
	"github.com/outrider-agent/outrider/checks"
	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync/controller"
	"github.com/outrider-agent/outrider/statesync/kube"
	"github.com/outrider-agent/outrider/statesync/sinks"
)

// A sidecar shares the memory of what it rides beside, and has little to do: it
// collects garbage sooner than Go does by default. With state sync it has more to
// do, and more memory is asked for anyway.
const (
	sidecarGC   = 5
	startIsOver = 5 * time.Second
)

func runCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the agent",
		Long: `Run the agent until SIGTERM or Ctrl-C. It stops within 5 seconds; what is not
delivered yet stays in the data directory and is delivered after the next start.
On SIGHUP it reads the configuration again and applies what changed in sinks,
neighbours, checks, collectors, pipelines and exporters (see outrider reload); a file
with mistakes changes nothing.

Where to look while it runs (defaults; "listen" in the configuration):
  http://127.0.0.1:9610/healthz    the digest         http://127.0.0.1:9610/metrics
  http://127.0.0.1:9611/debug/pprof/                  nc 127.0.0.1 9612   the status text`,
		Example: "  outrider run -c outrider.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := load(path)
			if err != nil {
				return err
			}
			return runAgent(c.Context(), path, s)
		},
	}
	c.Flags().StringVarP(&path, "config", "c", defaultConfig, "configuration file")
	return c
}

// runAgent runs until ctx ends. It reads the file at path, which s was read
// from, again when it is told to.
func runAgent(ctx context.Context, path string, s *settings) (err error) {
	// From now on, so that no hang-up ends an agent that starts.
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	defer signal.Stop(hangUps)
	log := logger(s)
	for _, w := range s.Warnings {
		log.Warn("configuration", "warning", w)
	}
	auth, err := loadAuth(s)
	if err != nil {
		return usageError(err)
	}
	reg := metrics.NewRegistry()
	o := agent.Options{
		Service: s.Service, Version: version, Build: build(),
		Listen: agent.Listen{Public: s.Listen.Public, Debug: s.Listen.Debug, Status: s.Listen.Status},
		Auth:   auth, Log: log, Registry: reg,
		Configuration: func() (*agent.Configuration, error) { return reread(path, s) },
	}
	if s.DataDir != "" {
		dir, err := agent.OpenDataDir(string(s.DataDir), s.Service)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, dir.Close()) }()
		o.DataDir = dir.Path()
	}
	series, err := newSeries(s, reg, log)
	if err != nil {
		return err
	}
	o.Components, o.MetricsHandler = series.components(), series.page(log)
	var living checks.Workloads
	if s.Has(controller.Section) {
		kube.LogTo(log)
		c, err := stateSync(s, o.DataDir, reg, log)
		if err != nil {
			return fmt.Errorf("state sync: %w", err)
		}
		o.Components = append(o.Components, c)
		living = &workloads{of: c, now: time.Now}
	}
	verdicts, err := newVerdicts(s, reg, series, living, log)
	if err != nil {
		return err
	}
	o.Components = append(o.Components, verdicts)
	a, err := agent.New(o)
	if err != nil {
		return err
	}
	verdicts.Attach(a.Runner())
	series.exporter.Attach(func() []exporters.Verdict { return told(a.Runner()) })
	if !s.Has(controller.Section) && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(sidecarGC)
	}
	settled := time.AfterFunc(startIsOver, func() {
		if err := forgetStart(); err != nil {
			log.Info("memory of the start is kept", "err", err)
		}
	})
	defer settled.Stop()
	log.Info("outrider starts", "version", version, "service", s.Service, "configuration", s.Path)
	defer context.AfterFunc(ctx, func() { log.Info("outrider stops", "cause", context.Cause(ctx)) })()
	if err := runReloading(ctx, a, hangUps); err != nil {
		return err
	}
	log.Info("outrider has stopped")
	return nil
}

// loadAuth reads the files that say who may read.
func loadAuth(s *settings) (*listen.Auth, error) {
	return listen.LoadAuth(listen.AuthOptions{
		WebConfig:            string(s.Listen.WebConfig),
		BearerTokens:         string(s.Listen.BearerTokens),
		AllowUnauthenticated: s.Listen.AllowUnauthenticated,
	})
}

// runReloading runs the agent, and reloads it on each hang-up.
func runReloading(ctx context.Context, a *agent.Agent, hangUps <-chan os.Signal) error {
	listening, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		for {
			select {
			case <-hangUps:
				_, _ = a.Reload(listening) // the agent logs what came of it
			case <-listening.Done():
				return
			}
		}
	})
	return a.Run(ctx)
}

func stateSync(s *settings, dir string, reg *metrics.Registry, log *slog.Logger) (*controller.Controller, error) {
	return controller.New(controller.Options{
		Config: s.statesync, Dir: dir, UserAgent: "outrider/" + version, OpenSink: sinks.Open,
		Registry: reg, Logger: log, Now: time.Now,
	})
}

// logger writes to standard error, as the file says.
func logger(s *settings) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.Log.Level)); err != nil {
		level = slog.LevelInfo // the configuration has been checked
	}
	o := &slog.HandlerOptions{Level: level}
	if s.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}
