package collectors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

// HostConfig describes the machine that the agent runs on. What its kernel, or
// the container around the agent, does not have is left out.
//
// The patterns are regular expressions (RE2) and must match a whole name. At
// most 250 disks, file systems and interfaces each are read.
type HostConfig struct {
	Proc string `yaml:"proc" default:"/proc"`
	// Root is where the host's root is mounted. With another than /, the file
	// systems are those of process 1 below Proc.
	Root string `yaml:"root" default:"/"`
	// Groups are what is read: cpu, kernel, memory, paging, pressure, disk,
	// filesystem, network, protocols, sockets, conntrack, nfs. Empty: all.
	Groups []string `yaml:"groups"`

	ExcludeDevices    string `yaml:"exclude_devices" default:"(z?ram|loop|fd|(h|s|v|xv)d[a-z]+|(nvme[0-9]+n|mmcblk)[0-9]+p)[0-9]+"`
	ExcludeMounts     string `yaml:"exclude_mounts" default:"/(dev|proc|sys|run/(credentials|user|containerd|docker|netns)|var/lib/(docker|containerd|containers/storage|kubelet))(/.*)?"`
	ExcludeInterfaces string `yaml:"exclude_interfaces" default:"(veth|cali|lxc|ifb|dummy|kube-ipvs|nodelocaldns).*"`
}

// maxHostItems bounds the series of each metric.
const maxHostItems = 250

// Validate is asked when the configuration is read.
func (c *HostConfig) Validate() error {
	var errs []error
	for key, pattern := range map[string]string{
		"exclude_devices": c.ExcludeDevices, "exclude_mounts": c.ExcludeMounts, "exclude_interfaces": c.ExcludeInterfaces,
	} {
		if _, err := wholeName(pattern); err != nil {
			errs = append(errs, &config.FieldError{Key: key, Got: err.Error(), Want: "a regular expression (RE2)"})
		}
	}
	for i, name := range c.Groups {
		if !slices.ContainsFunc(hostGroups, func(g hostGroup) bool { return g.name == name }) {
			errs = append(errs, &config.FieldError{Key: fmt.Sprintf("groups[%d]", i), Got: name, Want: "one of " + strings.Join(hostGroupNames(), ", ")})
		}
	}
	return errors.Join(errs...)
}

// wholeName compiles a pattern that must match all of a name. An empty one
// matches none.
func wholeName(pattern string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(pattern); err != nil || pattern == "" {
		return nil, err
	}
	return regexp.Compile("^(?:" + pattern + ")$")
}

// Descs are the metrics that the kind can give.
func (c *HostConfig) Descs() []metrics.Desc { return hostDescs.list() }

// Build implements [Builder].
func (c *HostConfig) Build(env Env) (Collector, error) {
	h := &host{
		proc: strings.TrimRight(c.Proc, "/"), root: c.Root, log: env.Log, now: env.Now,
		found: newFindings(hostDescs), mounts: newMountProber(statfs),
	}
	for _, p := range []struct {
		to      **regexp.Regexp
		pattern string
	}{{&h.noDevice, c.ExcludeDevices}, {&h.noMount, c.ExcludeMounts}, {&h.noInterface, c.ExcludeInterfaces}} {
		re, err := wholeName(p.pattern)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", p.pattern, err)
		}
		*p.to = re
	}
	var err error
	if h.procfs, err = procfs.NewFS(c.Proc); err != nil {
		return nil, fmt.Errorf("open the kernel's files: %w", err)
	}
	// It wants the place of sysfs too, of which nothing is read here.
	if h.block, err = blockdevice.NewFS(c.Proc, c.Proc); err != nil {
		return nil, fmt.Errorf("open the kernel's files: %w", err)
	}
	for _, g := range hostGroups {
		if len(c.Groups) == 0 || slices.Contains(c.Groups, g.name) {
			h.groups = append(h.groups, g)
		}
	}
	return h, nil
}

// A hostGroup is what can be left out as a whole.
type hostGroup struct {
	name string
	read func(*host) error
}

// hostGroups are all. The file systems, which are asked first, are read last.
// Read-only.
var hostGroups = []hostGroup{
	{"cpu", (*host).readCPU},
	{"kernel", (*host).readKernel},
	{"memory", (*host).readMemory},
	{"paging", (*host).readPaging},
	{"pressure", (*host).readPressure},
	{"disk", (*host).readDisks},
	{"network", (*host).readInterfaces},
	{"protocols", (*host).readProtocols},
	{"sockets", (*host).readSockets},
	{"conntrack", (*host).readConntrack},
	{"nfs", (*host).readNFS},
	{"filesystem", nil}, // has its own way: it can hang
}

func hostGroupNames() []string {
	var out []string
	for _, g := range hostGroups {
		out = append(out, g.name)
	}
	slices.Sort(out)
	return out
}

type host struct {
	proc, root                     string
	noDevice, noMount, noInterface *regexp.Regexp // nil: none is left out
	groups                         []hostGroup
	log                            *slog.Logger

	procfs procfs.FS
	block  blockdevice.FS
	files  files
	found  *findings
	mounts *mountProber

	now         func() time.Time
	listed      time.Time // when the TCP sockets were, for the last time
	states      tcpStates
	haveStates  bool
	toldSockets bool // that there are too many to list
}

// patience is how long a file system may take, where the deadline leaves that
// much.
const patience = 2 * time.Second

// Collect implements [Collector].
func (h *host) Collect(ctx context.Context) ([]metrics.Family, error) {
	var errs []error
	var wait func(context.Context) error
	for _, g := range h.groups {
		if g.read == nil {
			var err error
			wait, err = h.askFilesystems()
			errs = append(errs, err)
		}
	}
	for _, g := range h.groups {
		if g.read == nil {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			errs = append(errs, fmt.Errorf("read group %s: %w", g.name, err))
			break
		}
		errs = append(errs, g.read(h))
	}
	if wait != nil {
		errs = append(errs, wait(ctx))
	}
	return h.found.take(), errors.Join(errs...)
}

// path is the place of one of the kernel's files.
func (h *host) path(name string) string { return h.proc + "/" + name }

// leaveOut reports whether a name is one that the user does not want.
func leaveOut(pattern *regexp.Regexp, name string) bool {
	return pattern != nil && pattern.MatchString(name)
}

// bounded cuts what exceeds the bound on series, and says so.
func bounded[T any](path, key string, items []T) ([]T, error) {
	if len(items) <= maxHostItems {
		return items, nil
	}
	return items[:maxHostItems], fmt.Errorf("read %s: got %d, want %d at most: the others are left out; choose with %s", path, len(items), maxHostItems, key)
}
