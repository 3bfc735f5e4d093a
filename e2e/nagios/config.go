package nagios

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mainFile is what Nagios is started with.
const mainFile = "nagios.cfg"

// mainConfig is that file, with the folder of all others, the user, the group, the
// interval, whether to tell and the files of objects. The defaults of Nagios that
// matter here are written out.
const mainConfig = `cfg_file=%[1]s/site.cfg
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
interval_length=%[4]d
status_update_interval=1
check_workers=3
use_syslog=0
check_for_updates=0
check_external_commands=1
log_notifications=1
log_service_retries=1
log_passive_checks=0
enable_notifications=%[5]d
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

// configure writes all files into a folder of the test's own.
func configure(t testing.TB, o Options) (dir string) {
	t.Helper()
	dir = t.TempDir()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Fatal(err)
	}
	tell := 1
	if o.Silent {
		tell = 0
	}
	var main, site strings.Builder
	fmt.Fprintf(&main, mainConfig, dir, me.Username, group.Name, cmp.Or(o.Interval, 1), tell)
	fmt.Fprintf(&site, siteConfig, dir)
	site.WriteString(o.Site)
	for _, h := range o.Hosts {
		h.define(&site)
	}
	write := func(name, text string) error {
		return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(o.Files)) {
		fmt.Fprintf(&main, "cfg_file=%s/%s\n", dir, name)
		errs = append(errs, write(name, string(o.Files[name])))
	}
	plugins := filepath.Join(dir, "plugins")
	errs = append(
		errs,
		write(mainFile, main.String()),
		write("site.cfg", site.String()),
		write("resource.cfg", "$USER1$="+plugins+"\n"),
		os.Mkdir(filepath.Join(dir, "results"), 0o700),
		os.Mkdir(plugins, 0o700),
	)
	for name, target := range o.Plugins {
		errs = append(errs, os.Symlink(target, filepath.Join(plugins, name)))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return dir
}

// define writes the host as a site would.
func (h Host) define(b *strings.Builder) {
	b.WriteString("define host {\n")
	for _, d := range [][2]string{{"use", "outrider-host,machine"}, {"host_name", h.Name}, {"_OUTRIDER_PORT", h.Port}, {"_OUTRIDER_ARGS", h.Args}} {
		if d[1] != "" {
			fmt.Fprintf(b, "    %-15s %s\n", d[0], d[1])
		}
	}
	for line := range strings.Lines(h.More) {
		fmt.Fprintf(b, "    %s\n", strings.TrimSpace(line))
	}
	b.WriteString("}\n")
}
