// Package nagios is the grammar of Nagios plugins: ranges, what a plugin prints, performance data, exit codes.
package nagios
