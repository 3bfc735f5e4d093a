package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write the golden files")

// issue is the configuration that the documentation shows.
const issue = `service: platform-sync
data_dir: ./outrider-data
listen: {public: 127.0.0.1:9610, debug: 127.0.0.1:9611, status: 127.0.0.1:9612}
statesync:
  kubeconfig: ./kubeconfig          # empty: in-cluster, then ~/.kube/config
  namespaces: [load]                # empty: all
  kinds: [Pod, Job]
  sinks:
    - name: platform
      webhook: {url: "http://127.0.0.1:18080/changes", secret_file: ./hook.key}
    - name: archive
      file: {path: ./changes.ndjson}
`

func write(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadTheDocumentedFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "hook.key", "s3cret\n", 0o600)
	path := write(t, dir, "outrider.yaml", issue, 0o600)
	var s fakeSections
	got, err := Load(path, s.options(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := &File{
		Path: path, Dir: dir, Service: "platform-sync", DataDir: Path(dir + "/outrider-data"),
		Listen: Listen{Public: "127.0.0.1:9610", Debug: "127.0.0.1:9611", Status: "127.0.0.1:9612"},
		Log:    Log{Level: "info", Format: "text"},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(File{})); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	webhook := &fakeWebhook{URL: "http://127.0.0.1:18080/changes", Window: 64}
	webhook.SecretFile = NewSecretFile(Path(dir+"/hook.key"), []byte("s3cret"))
	wantSync := fakeStatesync{
		Kubeconfig: Path(dir + "/kubeconfig"), Namespaces: []string{"load"},
		Kinds: []fakeKind{{Kind: "Pod"}, {Kind: "Job"}},
		Sinks: []Item{
			{Name: "platform", Kind: "webhook", Config: webhook, Line: 9, Key: "statesync.sinks[0]"},
			{Name: "archive", Kind: "file", Config: &fakeFile{Path(dir + "/changes.ndjson")}, Line: 11, Key: "statesync.sinks[1]"},
		},
		Ledger: fakeLedger{MaxSize: 2 << 30, Sync: true, Every: 5 * time.Millisecond, Batch: 16, Ratio: 0.5},
	}
	if diff := cmp.Diff(wantSync, s.statesync, cmpopts.IgnoreUnexported(Item{})); diff != "" {
		t.Errorf("statesync (-want +got):\n%s", diff)
	}
	for section, want := range map[string]bool{"statesync": true, "listen": true, "checks": false, "log": false} {
		if got.Has(section) != want {
			t.Errorf("Has(%s) = %v, want %v", section, got.Has(section), want)
		}
	}
}

func TestLoadEveryInvalidFile(t *testing.T) {
	names, err := filepath.Glob("testdata/invalid-*.yaml")
	if err != nil || len(names) < 10 {
		t.Fatalf("files: got %v (%v), want 10 or more", names, err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			write(t, dir, "hook.key", "s3cret", 0o600)
			write(t, dir, "empty.key", "\n", 0o600)
			var s fakeSections
			_, err = Parse("outrider.yaml", data, dir, s.options(map[string]string{"PORT": "s3cret", "EMPTY": ""}))
			if err == nil {
				t.Fatal("got no error")
			}
			got := strings.ReplaceAll(err.Error(), dir, "DIR") + "\n"
			golden := strings.TrimSuffix(name, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
			if strings.Contains(got, "s3cret") {
				t.Error("the errors show a value of the environment")
			}
		})
	}
}

func TestParseValues(t *testing.T) {
	dir := t.TempDir()
	text := `
log: {level: "${LEVEL:-debug}"}
data_dir: ""
statesync:
  kubeconfig:
  kinds: [{kind: Pod, cel: "a$$b $1 $"}]
  audit: {every: 1h}
  resync: [{}, {every: "${EVERY}"}]
  ledger: {max_size: 64MB, sync: "${SYNC}", ratio: 1, retries: 255}
  sinks:
    - {name: a, webhook: &hook {url: "http://${HOST}/", token: "${TOKEN}", headers: {X-A: "1", b: "2"}}}
    - {name: b, webhook: *hook}
    - name: c
      stdout:
checks:
  - {name: db, tcp: {address: ":5432"}, category: email}
`
	var s fakeSections
	f, err := Parse("x", []byte(text), dir, s.options(map[string]string{
		"EVERY": "2m", "SYNC": "false", "HOST": "h", "TOKEN": "t0ken", "DD_SERVICE": "payments",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if f.Service != "payments" || f.Log.Level != "debug" || f.DataDir != "" {
		t.Errorf("got %+v", f)
	}
	hook := &fakeWebhook{URL: "http://h/", Token: NewSecret("t0ken"), Window: 64, Headers: map[string]string{"X-A": "1", "b": "2"}}
	want := fakeStatesync{
		Kinds:  []fakeKind{{Kind: "Pod", CEL: "a$b $1 $"}},
		Audit:  &fakeAudit{time.Hour},
		Resync: []fakeResync{{10 * time.Minute}, {2 * time.Minute}},
		Ledger: fakeLedger{MaxSize: 64e6, Every: 5 * time.Millisecond, Batch: 16, Ratio: 1, Retries: 255},
		Sinks: []Item{
			{Name: "a", Kind: "webhook", Config: hook},
			{Name: "b", Kind: "webhook", Config: hook},
			{Name: "c", Kind: "stdout", Config: &struct{}{}},
		},
	}
	ignore := cmp.Options{cmpopts.IgnoreUnexported(Item{}), cmpopts.IgnoreFields(Item{}, "Line", "Key")}
	if diff := cmp.Diff(want, s.statesync, ignore); diff != "" {
		t.Errorf("statesync (-want +got):\n%s", diff)
	}
	wantChecks := []fakeCheck{{
		Item:  Item{Name: "db", Kind: "tcp", Config: &fakeTCP{":5432"}},
		Every: 30 * time.Second, Category: "email",
	}}
	if diff := cmp.Diff(wantChecks, s.checks, ignore); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
}

func TestParseRefusesWhatIsTooLarge(t *testing.T) {
	var headers, sinks strings.Builder
	for i := range 200 {
		fmt.Fprintf(&headers, "k%d: v, ", i)
		fmt.Fprintf(&sinks, "{name: s%d, webhook: *w}, ", i)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"a file above 1 MiB": {
			"#" + strings.Repeat("x", MaxFileBytes),
			"f.yaml:1: got more than 1048576 bytes, want a file of 1 MiB at most",
		},
		"a small file that aliases multiply": {
			"statesync: {sinks: [{name: a, webhook: &w {url: \"http://h\", headers: {" + headers.String() + "}}}, " + sinks.String() + "]}",
			"got more than 20000 values, want fewer, or fewer aliases",
		},
		"more values than any configuration has": {
			"statesync: {namespaces: [" + strings.Repeat("a,", maxValues) + "]}",
			"got more than 20000 values, want fewer, or fewer aliases",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s fakeSections
			_, err := Parse("f.yaml", []byte(tt.text), ".", s.options(nil))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.300v, want %s", err, tt.want)
			}
		})
	}
}

func TestLoadAMissingFileWrapsItsCause(t *testing.T) {
	if _, err := Load("testdata/nowhere.yaml", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an error that wraps fs.ErrNotExist", err)
	}
}

func TestASecretInPlaceOfItsFileIsNotShown(t *testing.T) {
	var s fakeSections
	_, err := Parse("f.yaml", []byte("statesync: {sinks: [{name: a, webhook: {url: \"http://h\", secret_file: whsec_VDBQU0VDUkVU}}]}"), ".", s.options(nil))
	want := "f.yaml:1: statesync.sinks[0].webhook.secret_file: got <redacted>: no such file, want a readable file"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestASecretThatEveryoneMayReadIsAWarning(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "hook.key", "s3cret\r\n", 0o600)
	if err := os.Chmod(path, 0o644); err != nil { // whatever the umask
		t.Fatal(err)
	}
	var s fakeSections
	f, err := Parse("f.yaml", []byte(issue), dir, s.options(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"f.yaml:10: statesync.sinks[0].webhook.secret_file: got ./hook.key: readable by everyone, want mode 0600 or 0640"}
	if diff := cmp.Diff(want, f.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if got := string(s.statesync.Sinks[0].Config.(*fakeWebhook).SecretFile.Bytes()); got != "s3cret" {
		t.Errorf("secret: got %q, want it without the line's end", got)
	}
}

func TestUnixSocketsAreRelativeToTheFile(t *testing.T) {
	var s fakeSections
	f, err := Parse("f.yaml", []byte("listen: {debug: \"unix:./d.sock\", status: \"off\", public: \":0\"}"), "/etc/o", s.options(nil))
	if err != nil {
		t.Fatal(err)
	}
	if want := (Listen{Public: ":0", Debug: "unix:/etc/o/d.sock", Status: "off"}); !cmp.Equal(f.Listen, want) {
		t.Errorf("got %+v, want %+v", f.Listen, want)
	}
}
