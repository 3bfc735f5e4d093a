package collectors

import (
	"slices"

	"github.com/prometheus/procfs/blockdevice"
)

// sector is the unit of the kernel's counters, whatever the disk's own is
// (Documentation/block/stat.rst).
const sector = 512

// readDisks reads /proc/diskstats.
func (h *host) readDisks() error {
	path := h.path("diskstats")
	disks, err := parsed(h.block.ProcDiskstats) // those before a line that is broken too
	unread := unreadable(path, err)
	disks = slices.DeleteFunc(disks, func(d blockdevice.Diskstats) bool { return leaveOut(h.noDevice, d.DeviceName) })
	disks, tooMany := bounded(path, "exclude_devices", disks)
	for _, d := range disks {
		h.addDisk(d)
	}
	if unread != nil {
		return unread
	}
	return tooMany
}

func (h *host) addDisk(d blockdevice.Diskstats) {
	dev := d.DeviceName
	add := func(operation string, ops, merges, sectors, ticks uint64) {
		h.found.add("disk_operations_total", float64(ops), dev, operation)
		h.found.add("disk_operation_seconds_total", float64(ticks)/1000, dev, operation)
		if operation == "flush" {
			return // it moves nothing
		}
		h.found.add("disk_merges_total", float64(merges), dev, operation)
		h.found.add("disk_bytes_total", float64(sectors)*sector, dev, operation)
	}
	add("read", d.ReadIOs, d.ReadMerges, d.ReadSectors, d.ReadTicks)
	add("write", d.WriteIOs, d.WriteMerges, d.WriteSectors, d.WriteTicks)
	if d.IoStatsCount >= 18 { // Linux 4.18
		add("discard", d.DiscardIOs, d.DiscardMerges, d.DiscardSectors, d.DiscardTicks)
	}
	if d.IoStatsCount >= 20 { // Linux 5.5
		add("flush", d.FlushRequestsCompleted, 0, 0, d.TimeSpentFlushing)
	}
	h.found.add("disk_queued", float64(d.IOsInProgress), dev)
	h.found.add("disk_busy_seconds_total", float64(d.IOsTotalTicks)/1000, dev)
	h.found.add("disk_queue_seconds_total", float64(d.WeightedIOTicks)/1000, dev)
}
