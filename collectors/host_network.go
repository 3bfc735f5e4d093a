package collectors

import (
	"errors"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/nfs"
)

// readInterfaces reads /proc/net/dev and softnet_stat.
func (h *host) readInterfaces() error {
	path := h.path("net/dev")
	devs, err := parsed(h.procfs.NetDev) // those before a line that is broken too
	errs := []error{unreadable(path, err)}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(devs)), func(name string) bool { return leaveOut(h.noInterface, name) })
	names, err = bounded(path, "exclude_interfaces", names)
	errs = append(errs, err)
	for _, name := range names {
		d := devs[name]
		h.found.add("network_bytes_total", float64(d.RxBytes), name, "receive")
		h.found.add("network_bytes_total", float64(d.TxBytes), name, "transmit")
		h.found.add("network_packets_total", float64(d.RxPackets), name, "receive")
		h.found.add("network_packets_total", float64(d.TxPackets), name, "transmit")
		h.found.add("network_errors_total", float64(d.RxErrors), name, "receive")
		h.found.add("network_errors_total", float64(d.TxErrors), name, "transmit")
		h.found.add("network_drops_total", float64(d.RxDropped), name, "receive")
		h.found.add("network_drops_total", float64(d.TxDropped), name, "transmit")
		h.found.add("network_multicast_total", float64(d.RxMulticast), name)
	}

	path = h.path("net/softnet_stat")
	cpus, err := parsed(h.procfs.NetSoftnetStat)
	if err != nil {
		return errors.Join(append(errs, unreadable(path, err))...)
	}
	var sum procfs.SoftnetStat // of 32 bits, as the kernel's are: it begins anew when one of them does
	for _, c := range cpus {
		sum.Processed += c.Processed
		sum.Dropped += c.Dropped
		sum.TimeSqueezed += c.TimeSqueezed
	}
	h.found.add("softnet_packets_total", float64(sum.Processed))
	h.found.add("softnet_drops_total", float64(sum.Dropped))
	h.found.add("softnet_squeezes_total", float64(sum.TimeSqueezed))
	return errors.Join(errs...)
}

// protocolPicks are the counters of /proc/net/snmp and netstat, by protocol and
// name. The library reads these files below a process only. Read-only.
var protocolPicks = map[string]pick{
	"Ip.InReceives":  {"ip_packets_total", []string{"4", "receive"}, 0},
	"Ip.OutRequests": {"ip_packets_total", []string{"4", "transmit"}, 0},
	"Ip.InDiscards":  {"ip_discards_total", []string{"4", "receive"}, 0},
	"Ip.OutDiscards": {"ip_discards_total", []string{"4", "transmit"}, 0},

	"Tcp.InSegs":       {"tcp_segments_total", []string{"receive"}, 0},
	"Tcp.OutSegs":      {"tcp_segments_total", []string{"transmit"}, 0},
	"Tcp.RetransSegs":  {"tcp_retransmits_total", nil, 0},
	"Tcp.InErrs":       {"tcp_errors_total", nil, 0},
	"Tcp.ActiveOpens":  {"tcp_opens_total", []string{"active"}, 0},
	"Tcp.PassiveOpens": {"tcp_opens_total", []string{"passive"}, 0},
	"Tcp.AttemptFails": {"tcp_open_failures_total", nil, 0},
	"Tcp.EstabResets":  {"tcp_resets_total", nil, 0},
	"Tcp.OutRsts":      {"tcp_resets_sent_total", nil, 0},
	"Tcp.CurrEstab":    {"tcp_established", nil, 0},

	"TcpExt.ListenOverflows":    {"tcp_listen_overflows_total", nil, 0},
	"TcpExt.ListenDrops":        {"tcp_listen_drops_total", nil, 0},
	"TcpExt.TCPReqQFullDrop":    {"tcp_request_drops_total", nil, 0},
	"TcpExt.SyncookiesSent":     {"tcp_syncookies_total", []string{"sent"}, 0},
	"TcpExt.SyncookiesRecv":     {"tcp_syncookies_total", []string{"received"}, 0},
	"TcpExt.SyncookiesFailed":   {"tcp_syncookies_total", []string{"failed"}, 0},
	"TcpExt.TCPTimeouts":        {"tcp_timeouts_total", nil, 0},
	"TcpExt.TCPAbortOnData":     {"tcp_aborts_total", []string{"data_after_shutdown"}, 0},
	"TcpExt.TCPAbortOnClose":    {"tcp_aborts_total", []string{"data_unread_at_close"}, 0},
	"TcpExt.TCPAbortOnMemory":   {"tcp_aborts_total", []string{"memory"}, 0},
	"TcpExt.TCPAbortOnTimeout":  {"tcp_aborts_total", []string{"timeout"}, 0},
	"TcpExt.TCPAbortOnLinger":   {"tcp_aborts_total", []string{"linger"}, 0},
	"TcpExt.TCPAbortFailed":     {"tcp_aborts_total", []string{"reset_not_sent"}, 0},
	"TcpExt.PruneCalled":        {"tcp_prunes_total", []string{"called"}, 0},
	"TcpExt.RcvPruned":          {"tcp_prunes_total", []string{"still_full"}, 0},
	"TcpExt.OfoPruned":          {"tcp_prunes_total", []string{"out_of_order_lost"}, 0},
	"TcpExt.TCPBacklogDrop":     {"tcp_queue_drops_total", []string{"backlog"}, 0},
	"TcpExt.TCPRcvQDrop":        {"tcp_queue_drops_total", []string{"receive"}, 0},
	"TcpExt.TCPOFODrop":         {"tcp_queue_drops_total", []string{"out_of_order"}, 0},
	"TcpExt.TCPZeroWindowDrop":  {"tcp_queue_drops_total", []string{"zero_window"}, 0},
	"TcpExt.TCPMemoryPressures": {"tcp_memory_pressures_total", nil, 0},

	"Udp.InDatagrams":  {"udp_datagrams_total", []string{"4", "receive"}, 0},
	"Udp.OutDatagrams": {"udp_datagrams_total", []string{"4", "transmit"}, 0},
	"Udp.NoPorts":      {"udp_no_port_total", []string{"4"}, 0},
	"Udp.InErrors":     {"udp_receive_errors_total", []string{"4"}, 0},
	"Udp.RcvbufErrors": {"udp_receive_buffer_errors_total", []string{"4"}, 0},
	"Udp.SndbufErrors": {"udp_send_buffer_errors_total", []string{"4"}, 0},
	"Udp.InCsumErrors": {"udp_checksum_errors_total", []string{"4"}, 0},
}

// ip6Picks are those of /proc/net/snmp6; its TCP counts with that of IPv4.
// Read-only.
var ip6Picks = map[string]pick{
	"Ip6InReceives":    {"ip_packets_total", []string{"6", "receive"}, 0},
	"Ip6OutRequests":   {"ip_packets_total", []string{"6", "transmit"}, 0},
	"Ip6InDiscards":    {"ip_discards_total", []string{"6", "receive"}, 0},
	"Ip6OutDiscards":   {"ip_discards_total", []string{"6", "transmit"}, 0},
	"Udp6InDatagrams":  {"udp_datagrams_total", []string{"6", "receive"}, 0},
	"Udp6OutDatagrams": {"udp_datagrams_total", []string{"6", "transmit"}, 0},
	"Udp6NoPorts":      {"udp_no_port_total", []string{"6"}, 0},
	"Udp6InErrors":     {"udp_receive_errors_total", []string{"6"}, 0},
	"Udp6RcvbufErrors": {"udp_receive_buffer_errors_total", []string{"6"}, 0},
	"Udp6SndbufErrors": {"udp_send_buffer_errors_total", []string{"6"}, 0},
	"Udp6InCsumErrors": {"udp_checksum_errors_total", []string{"6"}, 0},
}

func (h *host) readProtocols() error {
	var errs []error
	key := make([]byte, 0, 64)
	for _, file := range []string{"net/snmp", "net/netstat"} {
		path := h.path(file)
		data, err := h.files.read(path)
		if err == nil {
			err = parseTable(data, func(protocol, name []byte, value float64) {
				key = append(append(append(key[:0], protocol...), '.'), name...)
				if p, ok := protocolPicks[string(key)]; ok {
					h.found.add(p.metric, value, p.tags...)
				}
			})
		}
		errs = append(errs, unreadable(path, err))
	}
	path := h.path("net/snmp6")
	data, err := h.files.read(path)
	if err != nil {
		return errors.Join(append(errs, unreadable(path, err))...)
	}
	return errors.Join(append(errs, addPicks(h.found, path, data, ip6Picks))...)
}

// readConntrack reads what the firewall tells of the connections it tracks.
func (h *host) readConntrack() error {
	var errs []error
	for _, f := range []struct{ metric, file string }{
		{"conntrack_entries", "net/netfilter/nf_conntrack_count"},
		{"conntrack_limit", "net/netfilter/nf_conntrack_max"},
	} {
		n, err := h.sysctl(f.file, 1)
		if err == nil {
			h.found.add(f.metric, float64(n[0]))
		}
		errs = append(errs, unreadable(h.path("sys/"+f.file), err))
	}
	cpus, err := parsed(h.procfs.ConntrackStat)
	if err != nil {
		return errors.Join(append(errs, unreadable(h.path("net/stat/nf_conntrack"), err))...)
	}
	var sum procfs.ConntrackStatEntry
	for _, c := range cpus {
		sum.Invalid += c.Invalid
		sum.InsertFailed += c.InsertFailed
		sum.Drop += c.Drop
		sum.EarlyDrop += c.EarlyDrop
	}
	h.found.add("conntrack_failures_total", float64(sum.Invalid), "invalid")
	h.found.add("conntrack_failures_total", float64(sum.InsertFailed), "insert_failed")
	h.found.add("conntrack_failures_total", float64(sum.Drop), "drop")
	h.found.add("conntrack_failures_total", float64(sum.EarlyDrop), "early_drop")
	return errors.Join(errs...)
}

// readNFS reads what client and server count, where there are such.
func (h *host) readNFS() error {
	var errs []error
	path := h.path("net/rpc/nfs")
	client, err := parsedFile(path, nfs.ParseClientRPCStats)
	if err == nil {
		h.addNFSClient(client)
	}
	errs = append(errs, unreadable(path, err))

	path = h.path("net/rpc/nfsd")
	server, err := parsedFile(path, nfs.ParseServerRPCStats)
	if err == nil {
		h.found.add("nfs_server_calls_total", float64(server.ServerRPC.RPCCount))
		h.found.add("nfs_server_bad_calls_total", float64(server.ServerRPC.BadCnt))
	}
	errs = append(errs, unreadable(path, err))
	return errors.Join(errs...)
}

func parsedFile[T any](path string, parse func(io.Reader) (T, error)) (T, error) {
	return parsed(func() (value T, err error) {
		f, err := os.Open(path)
		if err != nil {
			return value, err
		}
		defer f.Close()
		return parse(f)
	})
}

func (h *host) addNFSClient(s *nfs.ClientRPCStats) {
	h.found.add("nfs_client_calls_total", float64(s.ClientRPC.RPCCount))
	h.found.add("nfs_client_retransmits_total", float64(s.ClientRPC.Retransmissions))
	v3, v4 := s.V3Stats, s.ClientV4Stats
	for _, f := range []struct {
		operation string
		v3, v4    uint64
	}{
		{"read", v3.Read, v4.Read},
		{"write", v3.Write, v4.Write},
		{"commit", v3.Commit, v4.Commit},
		{"getattr", v3.GetAttr, v4.Getattr},
		{"setattr", v3.SetAttr, v4.Setattr},
		{"lookup", v3.Lookup, v4.Lookup},
		{"access", v3.Access, v4.Access},
		{"create", v3.Create, v4.Create},
		{"remove", v3.Remove, v4.Remove},
		{"rename", v3.Rename, v4.Rename},
		{"readdir", v3.ReadDir + v3.ReadDirPlus, v4.ReadDir},
	} {
		h.found.add("nfs_client_operations_total", float64(f.v3), "3", f.operation)
		h.found.add("nfs_client_operations_total", float64(f.v4), "4", f.operation)
	}
}
