package engine

import (
	"os"
	"syscall"
)

const (
	memoryDir = "/dev/shm"
	memoryMin = 1 << 30 // bytes that must be free there
	noExec    = 0x8     // ST_NOEXEC of statvfs(3)
	prefix    = "complement-shim-"
)

// defaultBase prefers memory: servers under test sync their files all the time, and nobody wants to keep them.
func defaultBase() string {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(memoryDir, &stat); err == nil &&
		stat.Flags&noExec == 0 && stat.Bavail*uint64(stat.Bsize) >= memoryMin {
		return memoryDir
	}
	return os.TempDir()
}
