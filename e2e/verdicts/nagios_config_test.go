package verdicts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// A host is what Nagios polls: an address on this machine.
type host struct {
	name, port, args string
	checks           map[string][]string // by category, those with a service of their own
}

// A nagios is one run of Nagios.
type nagios struct {
	*process
	t   *testing.T
	dir string
}

// mainConfig is nagios.cfg, with the folder of all its files, the user and the
// group. The defaults of Nagios that matter here are written out.
const mainConfig = `cfg_file=%[1]s/outrider.cfg
cfg_file=%[1]s/site.cfg
resource_file=%[1]s/resource.cfg
log_file=%[1]s/nagios.log
object_cache_file=%[1]s/objects.cache
precached_object_file=%[1]s/objects.precache
status_file=%[1]s/status.dat
state_retention_file=%[1]s/retention.dat
command_file=%[1]s/nagios.cmd
query_socket=%[1]s/nagios.qh
lock_file=%[1]s/nagios.pid
temp_file=%[1]s/nagios.tmp
temp_path=%[1]s
check_result_path=%[1]s/results
nagios_user=%[2]s
nagios_group=%[3]s
interval_length=1
status_update_interval=1
check_workers=3
use_syslog=0
check_for_updates=0
check_external_commands=1
log_notifications=1
log_passive_checks=0
enable_notifications=1
enable_flap_detection=1
service_inter_check_delay_method=n
service_check_timeout=30
service_check_timeout_state=c
illegal_object_name_chars=` + "`~!$%%^&*|'\"<>?,()=" + `
illegal_macro_output_chars=` + "`~$&|'\"<>" + `
`

// siteConfig is what a site writes itself: who is told and how. The contacts are
// those that deploy/nagios/README.md has.
const siteConfig = `define timeperiod {
    timeperiod_name  24x7
    alias            always
    sunday           00:00-24:00
    monday           00:00-24:00
    tuesday          00:00-24:00
    wednesday        00:00-24:00
    thursday         00:00-24:00
    friday           00:00-24:00
    saturday         00:00-24:00
}
define command {
    command_name  tell
    command_line  printf '%%s %%s %%s %%s %%s\n' "$CONTACTNAME$" "$HOSTNAME$" "$SERVICEDESC$" "$SERVICESTATE$" "$SERVICEOUTPUT$" >>%[1]s/told
}
define contact {
    name                           person
    host_notification_options      n
    host_notification_period       24x7
    host_notification_commands     tell
    service_notification_period    24x7
    service_notification_commands  tell
    register                       0
}
define contact {
    use                           person
    contact_name                  pager
    contactgroups                 outrider-page
    service_notification_options  c,r
}
define contact {
    use                           person
    contact_name                  mail
    contactgroups                 outrider-page,outrider-email
    service_notification_options  w,u,c,r
}
define host {
    name                 machine
    address              127.0.0.1
    max_check_attempts   3
    check_period         24x7
    notification_period  24x7
    contact_groups       outrider-email
    register             0
}
`

// startNagios runs Nagios with what deploy/nagios ships and these hosts.
func startNagios(t *testing.T, hosts []host) *nagios {
	t.Helper()
	command := need(t, installed+"/usr/sbin/nagios4")
	n := &nagios{t: t, dir: t.TempDir()}
	shipped, err := os.ReadFile("../../deploy/nagios/outrider.cfg")
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Fatal(err)
	}
	site := fmt.Sprintf(siteConfig, n.dir)
	for _, h := range hosts {
		site += h.define()
	}
	err = errors.Join(
		n.write("nagios.cfg", fmt.Sprintf(mainConfig, n.dir, me.Username, group.Name)),
		n.write("outrider.cfg", string(shipped)),
		n.write("site.cfg", site),
		n.write("resource.cfg", "$USER1$="+n.dir+"/plugins\n"),
		os.Mkdir(filepath.Join(n.dir, "results"), 0o700),
		os.Mkdir(filepath.Join(n.dir, "plugins"), 0o700),
		os.Symlink(env.outrider, filepath.Join(n.dir, "plugins", "check_digest")),
		os.Symlink(need(t, plugins+"check_dummy"), filepath.Join(n.dir, "plugins", "check_dummy")),
	)
	if err != nil {
		t.Fatal(err)
	}
	n.process = startProcess(t, n.dir, command, filepath.Join(n.dir, "nagios.cfg"))
	return n
}

func (n *nagios) write(file, text string) error {
	return os.WriteFile(filepath.Join(n.dir, file), []byte(text), 0o600)
}

func (n *nagios) read(file string) string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir, file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // not yet
		n.t.Fatal(err)
	}
	return string(text)
}

// define writes the host as a site would.
func (h host) define() string {
	text := fmt.Sprintf(`define host {
    use             outrider-host,machine
    host_name       %s
    _OUTRIDER_PORT  %s
    _OUTRIDER_ARGS  %s
}
`, h.name, h.port, h.args)
	if len(h.checks) > 0 {
		text += fmt.Sprintf(`define service {
    use        outrider-fan-out
    host_name  %s
}
`, h.name)
	}
	for _, category := range []string{"page", "email"} {
		for _, check := range h.checks[category] {
			text += fmt.Sprintf(`define service {
    use                  outrider-check-%s
    host_name            %s
    service_description  outrider/%s
}
`, category, h.name, check)
		}
	}
	return text
}

// A message is one notification of Nagios' log.
type message struct {
	contact, host, service, state, text string
}

// messages are those so far about one service of a host, to one contact.
func (n *nagios) messages(contact, host, service string) (out []message) {
	n.t.Helper()
	for line := range strings.Lines(n.read("nagios.log")) {
		_, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "] SERVICE NOTIFICATION: ")
		if !ok {
			continue
		}
		// contact;host;service;state;command;text
		f := strings.SplitN(rest, ";", 6)
		if len(f) < 6 {
			n.t.Fatalf("line %q of the log: got %d fields, want 6", line, len(f))
		}
		m := message{f[0], f[1], f[2], f[3], f[5]}
		if m.contact == contact && m.host == host && m.service == service {
			out = append(out, m)
		}
	}
	return out
}

// A state is what Nagios thinks of one service.
type state struct {
	service string // host/service
	code    string // 0 to 3
	hard    bool
	text    string // what the plugin said
}

// states are those of all services that have been checked, from status.dat.
func (n *nagios) states() (out map[string]state) {
	n.t.Helper()
	out = map[string]state{}
	for block := range strings.SplitSeq(n.read("status.dat"), "\n\n") {
		if !strings.Contains(block, "servicestatus {") {
			continue
		}
		f := map[string]string{}
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			f[key] = value
		}
		if f["has_been_checked"] == "1" {
			name := f["host_name"] + "/" + f["service_description"]
			out[name] = state{name, f["current_state"], f["state_type"] == "1", f["plugin_output"]}
		}
	}
	return out
}
