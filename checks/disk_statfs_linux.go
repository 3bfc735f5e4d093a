package checks

import "golang.org/x/sys/unix"

// statfs asks the file system at a path.
func statfs(path string) (space, error) {
	var s unix.Statfs_t
	for {
		switch err := unix.Statfs(path, &s); err {
		case nil:
		case unix.EINTR:
			continue
		default:
			return space{}, err
		}
		block := float64(s.Frsize)
		if block == 0 {
			block = float64(s.Bsize)
		}
		return space{
			// What df calls use%: blocks that only root may take are neither used nor free.
			size: (float64(s.Blocks) - float64(s.Bfree) + float64(s.Bavail)) * block, free: float64(s.Bavail) * block,
			inodes: float64(s.Files), inodesFree: float64(s.Ffree),
		}, nil
	}
}
