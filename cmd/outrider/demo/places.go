package demo

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
)

// leastRoom is what the temporary folder must have free: enough to begin with.
const leastRoom = 256 << 20

// places are where the parts of a run are.
type places struct {
	Folder                string // of everything below
	Public, Debug, Status string // the agent's addresses
	Kubeconfig            string
	Receiver              string // the receiver's address; empty: it reads a file
	Sink                  string
	Batch                 int
}

func (p *places) config() string  { return filepath.Join(p.Folder, "outrider.yaml") }
func (p *places) cluster() string { return filepath.Join(p.Folder, "cluster") }
func (p *places) key() string     { return filepath.Join(p.Folder, "hook.key") }
func (p *places) changes() string { return filepath.Join(p.Folder, "changes.ndjson") }

// The temporary folder's errors name TMPDIR, because that is what can be done
// about them.
func makeFolder() (string, error) {
	dir, err := os.MkdirTemp("", "outrider-demo-")
	if err != nil {
		return "", fmt.Errorf("make a temporary folder: %w; want a folder that can be written to in TMPDIR", err)
	}
	// What is printed of it is of use in another folder too.
	if dir, err = filepath.Abs(dir); err != nil {
		return "", fmt.Errorf("find the temporary folder: %w", err)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err == nil {
		err = enough(dir, int64(fs.Bavail)*int64(fs.Bsize)) //nolint:unconvert // their types differ from system to system
		if err != nil {
			_ = os.Remove(dir)
			return "", err
		}
	}
	return dir, nil
}

func enough(dir string, free int64) error {
	if free >= leastRoom {
		return nil
	}
	return fmt.Errorf("room in %s: got %d MiB free, want %d MiB; set TMPDIR to a folder with more", filepath.Dir(dir), free>>20, leastRoom>>20)
}

// writeKey makes the key with which the agent signs its requests.
func (p *places) writeKey() ([]byte, error) {
	key := make([]byte, 24)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	text := "whsec_" + base64.StdEncoding.EncodeToString(key) + "\n"
	if err := os.WriteFile(p.key(), []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write the key: %w", err)
	}
	return key, nil
}

// listen chooses the agent's addresses: those of its defaults, or free ones
// where another process has them.
func (p *places) listen() error {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for _, a := range []struct {
		address *string
		usual   string
	}{{&p.Public, "127.0.0.1:9610"}, {&p.Debug, "127.0.0.1:9611"}, {&p.Status, "127.0.0.1:9612"}} {
		l, err := net.Listen("tcp", a.usual)
		if err != nil {
			if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
				return fmt.Errorf("find a free port: %w", err)
			}
		}
		held = append(held, l)
		*a.address = l.Addr().String()
	}
	return nil
}

// writeConfig writes the agent's configuration, and returns it.
func (p *places) writeConfig() (string, error) {
	var b bytes.Buffer
	if err := configuration.Execute(&b, p); err != nil {
		return "", fmt.Errorf("write the configuration: %w", err)
	}
	if err := os.WriteFile(p.config(), b.Bytes(), 0o600); err != nil {
		return "", fmt.Errorf("write the configuration: %w", err)
	}
	return b.String(), nil
}

// Its lines fit a terminal of 80 columns, indented. Without the rule, a busy machine
// would be paged for minutes because of the beginning, when all workloads are told
// of at once.
var configuration = template.Must(template.New("outrider.yaml").Parse(`service: demo
data_dir: ./agent
listen: {public: "{{.Public}}", debug: "{{.Debug}}",
         status: "{{.Status}}"}
log: {level: warn}
alerts: {without: [delivery-latency]}
collectors:
  - {name: machine, host: {}}
  - {name: go, runtime: {}}
{{- if .Receiver}}
neighbours:
  - {name: platform, metrics: "http://{{.Receiver}}/stats"}
pipelines:
  - {name: changes, neighbour: platform, unit: changes,
     in: {series: platform_changes_received_total},
     out: {series: platform_changes_recorded_total},
     drops: {series: platform_changes_refused_total, by: reason},
     queued: {series: platform_changes_waiting}}
exporters:
  - {name: tsdb, opentsdb: {url: "http://{{.Receiver}}"}}
checks:
  - {name: receiver, category: email,
     http: {url: "http://{{.Receiver}}"}}
{{- end}}
statesync:
  kubeconfig: ./cluster/{{.KubeconfigName}}
  kinds:
    - Pod
    - Job
    - Deployment
    - kind: {group: sim.outrider.dev, version: v1,
             resource: trainings, name: Training}
      cel:
        queued: object.?status.?phase.orValue("") in ["", "Pending"]
        running: object.status.phase == "Running"
        succeeded: object.status.phase == "Succeeded"
        failed: object.status.phase == "Failed"
  sinks:
    - name: platform
{{- if eq .Sink "file"}}
      file: {path: ./changes.ndjson}
{{- else}}
      webhook: {url: "http://{{.Receiver}}/changes",
                secret_file: ./hook.key{{if gt .Batch 1}}, batch: {{.Batch}}{{end}}}
{{- end}}
`))

// KubeconfigName is the file's name in the cluster's folder.
func (p *places) KubeconfigName() string { return filepath.Base(p.Kubeconfig) }

// indent sets a text off from what is around it.
func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n    ")
}
