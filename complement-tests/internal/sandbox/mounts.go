package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// systemDirs are lent by the host to a root without a /usr.
var systemDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// systemFiles are what programs of the host expect in /etc. Names (hosts, resolv.conf) are the sandbox's own.
var systemFiles = []string{
	"/etc/alternatives", "/etc/group", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime",
	"/etc/passwd", "/etc/protocols", "/etc/services", "/etc/ssl",
}

// mounts lays out the new root in this process's own mount namespace; the host sees none of it.
func mounts(spec Spec) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("sandbox: private mounts: %w", err)
	}
	for _, dir := range []string{"proc", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(spec.Root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(spec.Root, "tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(spec.Root, "usr")); errors.Is(err, fs.ErrNotExist) || lent(spec.Root) {
		if err := lendSystem(spec.Root); err != nil {
			return err
		}
	}
	if err := bind(spec.Root, Mount{Source: "/dev", Target: "/dev"}); err != nil {
		return err
	}
	for _, mount := range spec.Mounts {
		if err := bind(spec.Root, mount); err != nil {
			return err
		}
	}
	if err := syscall.Mount("proc", filepath.Join(spec.Root, "proc"), "proc", 0, ""); err != nil {
		return fmt.Errorf("sandbox: /proc: %w", err)
	}
	return nil
}

// lent tells a /usr that is only the mount point of an earlier start (seen from outside it is empty).
func lent(root string) bool {
	entries, err := os.ReadDir(filepath.Join(root, "usr"))
	return err == nil && len(entries) == 0
}

func lendSystem(root string) error {
	for _, path := range append(append([]string{}, systemDirs...), systemFiles...) {
		info, err := os.Lstat(path)
		if err != nil {
			continue // not every system has each of them
		}
		if info.Mode()&fs.ModeSymlink != 0 && !strings.HasPrefix(path, "/etc/") {
			// A merged /usr: /bin is a link to usr/bin.
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			if err := os.Symlink(link, filepath.Join(root, path)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			continue
		}
		if err := bind(root, Mount{Source: path, Target: path, ReadOnly: true}); err != nil {
			return err
		}
	}
	return nil
}

// bind makes a host path visible below root.
func bind(root string, mount Mount) error {
	target := filepath.Join(root, filepath.Clean("/"+mount.Target))
	info, err := os.Stat(mount.Source)
	if err != nil {
		return fmt.Errorf("sandbox: mount: %w", err)
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		var file *os.File
		if file, err = os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644); err == nil {
			err = file.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("sandbox: mount point %s: %w", mount.Target, err)
	}
	if err := syscall.Mount(mount.Source, target, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("sandbox: mount %s at %s: %w", mount.Source, mount.Target, err)
	}
	if mount.ReadOnly {
		flags := uintptr(syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY)
		if err := syscall.Mount("", target, "", flags, ""); err != nil {
			return fmt.Errorf("sandbox: read-only mount at %s: %w", mount.Target, err)
		}
	}
	return nil
}
