package scratch

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Hold keeps a directory from being pruned until release is called or this process ends, and counts as its use. The
// error is [fs.ErrNotExist] if it is not there, or was pruned at this moment.
func Hold(path string) (release func(), err error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_SH); err != nil {
		dir.Close()
		return nil, fmt.Errorf("hold %s: %w", path, err)
	}
	held, err := dir.Stat()
	there, gone := os.Stat(path)
	if err != nil || gone != nil || !os.SameFile(held, there) {
		dir.Close()
		return nil, fmt.Errorf("hold %s: %w", path, fs.ErrNotExist)
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // only the order in which it will be pruned
	return func() { dir.Close() }, nil
}

// Prune removes the directories in base but for the newest few and those that somebody holds.
func Prune(base string, keep int) error {
	list := directories(base)
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return changed(b).Compare(changed(a)) })
	for _, entry := range list[min(keep, len(list)):] {
		if err := prune(filepath.Join(base, entry.Name())); err != nil {
			return fmt.Errorf("prune: %w", err)
		}
	}
	return nil
}

func prune(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return nil // another was first
	}
	defer dir.Close()
	if syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return nil
	}
	return os.RemoveAll(path)
}
