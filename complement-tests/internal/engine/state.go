package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	memoryDir = "/dev/shm"
	memoryMin = 1 << 30 // bytes that must be free there
	noExec    = 0x8     // ST_NOEXEC of statvfs(3)
	prefix    = "complement-shim-"
)

// stateDir is an engine's directory. A lock on a file in it tells that its engine lives.
type stateDir struct {
	path string
	lock *os.File
}

func newStateDir(base string) (*stateDir, error) {
	if base == "" {
		base = defaultBase()
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		return nil, err
	}
	sweep(base)
	path, err := os.MkdirTemp(base, fmt.Sprintf("%s%d-", prefix, os.Getpid()))
	if err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		os.RemoveAll(path)
		return nil, fmt.Errorf("engine: lock %s: %w", path, err)
	}
	return &stateDir{path: path, lock: lock}, nil
}

// remove deletes the directory, then lets go of the lock.
func (s *stateDir) remove() error {
	err := os.RemoveAll(s.path)
	s.lock.Close()
	return err
}

// defaultBase prefers memory: servers under test sync their files all the time, and nobody wants to keep them.
func defaultBase() string {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(memoryDir, &stat); err == nil &&
		stat.Flags&noExec == 0 && stat.Bavail*uint64(stat.Bsize) >= memoryMin {
		return memoryDir
	}
	return os.TempDir()
}

// sweep removes directories of engines that were killed. An engine that is just starting may not have its lock yet;
// its directory is empty then, and is left alone.
func sweep(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if !entry.IsDir() || !strings.HasPrefix(entry.Name(), prefix) {
			continue
		}
		path := filepath.Join(base, entry.Name())
		lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			os.RemoveAll(path)
		}
		lock.Close()
	}
}
