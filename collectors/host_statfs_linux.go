package collectors

import "golang.org/x/sys/unix"

// statfs asks the file system at a path.
func statfs(path string) (usage, error) {
	var s unix.Statfs_t
	for {
		switch err := unix.Statfs(path, &s); err {
		case nil:
		case unix.EINTR:
			continue
		default:
			return usage{}, err
		}
		block := float64(s.Frsize)
		if block == 0 {
			block = float64(s.Bsize)
		}
		return usage{
			size: float64(s.Blocks) * block, free: float64(s.Bfree) * block, available: float64(s.Bavail) * block,
			inodes: float64(s.Files), inodesFree: float64(s.Ffree),
		}, nil
	}
}
