// Package scratch makes directories that do not outlive their makers for long, and keeps caches small.
//
// A directory's maker holds a lock on a file in it. The kernel drops the lock when the maker ends, however it ends, and
// the next one who makes a directory of the same kind removes what is not locked.
package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	lockName = "lock"
	// A directory without a lock file is being made, unless it is as old as this.
	making = 24 * time.Hour
)

// Dir is a directory that is this process's own.
type Dir struct {
	Path string
	lock *os.File
}

// New makes a directory below base whose name begins with prefix and the number of this process, and removes those of
// that prefix whose makers are gone.
func New(base, prefix string) (*Dir, error) {
	if err := os.MkdirAll(base, 0o755); err != nil {
		return nil, err
	}
	sweep(base, prefix)
	path, err := os.MkdirTemp(base, fmt.Sprintf("%s%d-", prefix, os.Getpid()))
	if err != nil {
		return nil, err
	}
	// Locked under another name first: no sweep comes between the file and its lock.
	next := filepath.Join(path, lockName+".new")
	lock, err := os.OpenFile(next, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), os.Rename(next, filepath.Join(path, lockName)))
	}
	if err != nil {
		os.RemoveAll(path)
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Dir{Path: path, lock: lock}, nil
}

// Remove deletes the directory, then lets go of the lock.
func (d *Dir) Remove() error {
	err := os.RemoveAll(d.Path)
	d.lock.Close()
	return err
}

// Keep moves the directory to a place where it stays.
func (d *Dir) Keep(path string) error {
	defer d.lock.Close()
	if err := os.Remove(filepath.Join(d.Path, lockName)); err != nil {
		return err
	}
	return os.Rename(d.Path, path)
}

// sweep removes what killed processes left.
func sweep(base, prefix string) {
	for _, entry := range directories(base) {
		if !strings.HasPrefix(entry.Name(), prefix) {
			continue
		}
		path := filepath.Join(base, entry.Name())
		lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) && time.Since(changed(entry)) > making {
			os.RemoveAll(path)
		}
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			os.RemoveAll(path)
		}
		lock.Close()
	}
}

// directories lists the directories in one; what cannot be read has none.
func directories(base string) []fs.DirEntry {
	entries, err := os.ReadDir(base)
	if err != nil {
		return nil
	}
	var list []fs.DirEntry
	for _, entry := range entries {
		if entry.IsDir() {
			list = append(list, entry)
		}
	}
	return list
}

// changed is when a directory was last changed; now, if it is just being removed.
func changed(entry fs.DirEntry) time.Time {
	info, err := entry.Info()
	if err != nil {
		return time.Now()
	}
	return info.ModTime()
}
