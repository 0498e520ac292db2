package network

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Every network takes one of these, machine-wide: slot n owns the subnet 10.213.n.0/24 and the interface names cts<n>
// and cts<n>v<m>. A lock on a file says whose it is; the kernel drops the lock when its holder ends, however it ends.
const (
	slots      = 255
	namePrefix = "cts"
)

// lockDir holds the lock files. It is the same for all runs on a machine, and does not outlive a boot.
const lockDir = "/run/complement-shim"

type slot struct {
	number int
	lock   *os.File
}

// takeSlot finds a slot that no run holds and whose subnet no interface of the machine is in.
func takeSlot() (*slot, error) {
	if err := os.MkdirAll(lockDir, 0o755); err != nil {
		return nil, err
	}
	for number := range slots {
		lock, err := os.OpenFile(filepath.Join(lockDir, fmt.Sprint(number)), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			lock.Close()
			continue // another network's, of this run or another
		}
		s := &slot{number: number, lock: lock}
		free, err := s.clear()
		if err != nil {
			lock.Close()
			return nil, err
		}
		if free {
			return s, s.sign()
		}
		lock.Close()
	}
	return nil, errors.New("no network is free: all of 10.213.0.0/16 is in use by other runs or by this machine's own networks")
}

// clear removes what a killed run left in the slot and says whether the subnet is nobody else's.
func (s *slot) clear() (bool, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return false, err
	}
	for _, each := range interfaces {
		if each.Name == s.bridge() || strings.HasPrefix(each.Name, s.bridge()+"v") {
			// We hold the lock, so its maker is gone. A veth may vanish by itself meanwhile.
			if err := ip("link del " + each.Name); err != nil && each.Name == s.bridge() {
				return false, err
			}
		}
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	for _, address := range addresses {
		prefix, err := netip.ParsePrefix(address.String())
		if err == nil && prefix.Overlaps(netip.PrefixFrom(s.address(0), 24)) {
			return false, nil
		}
	}
	return true, nil
}

// Sweep removes the interfaces that killed runs left, in whatever slot: the next network takes the first slot that is free,
// which need not be theirs.
func Sweep() error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, each := range interfaces {
		number, err := strconv.Atoi(strings.TrimPrefix(each.Name, namePrefix))
		if err != nil || !strings.HasPrefix(each.Name, namePrefix) {
			continue
		}
		if err := sweepSlot(number); err != nil {
			return err
		}
	}
	return nil
}

func sweepSlot(number int) error {
	lock, err := os.OpenFile(filepath.Join(lockDir, strconv.Itoa(number)), os.O_RDWR|syscall.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // an interface that was named like ours by chance
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return nil
	}
	_, err = (&slot{number: number, lock: lock}).clear()
	return err
}

// sign writes down whose the slot is; that stays until another takes it.
func (s *slot) sign() error {
	if err := s.lock.Truncate(0); err != nil {
		return err
	}
	_, err := s.lock.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return err
}

// release gives the slot back; its interfaces must be gone.
func (s *slot) release() { s.lock.Close() }

func (s *slot) bridge() string { return fmt.Sprintf("%s%d", namePrefix, s.number) }

func (s *slot) address(host byte) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 213, byte(s.number), host})
}

// mac belongs to an address for good, so that no neighbour table goes stale when a container is started again.
func (s *slot) mac(host byte) string {
	return fmt.Sprintf("02:42:0a:d5:%02x:%02x", s.number, host)
}

// Orphans lists the interfaces that networks of one process, which are over, have left. A killed run leaves its bridges;
// [Sweep] removes them, and so does the next network that takes their slot.
func Orphans(pid int) ([]string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var orphans []string
	for _, each := range interfaces {
		number, _, _ := strings.Cut(strings.TrimPrefix(each.Name, namePrefix), "v")
		if _, err := strconv.Atoi(number); err != nil || !strings.HasPrefix(each.Name, namePrefix) {
			continue
		}
		if over, err := isOver(filepath.Join(lockDir, number), pid); err != nil {
			return nil, err
		} else if over {
			orphans = append(orphans, each.Name)
		}
	}
	return orphans, nil
}

// isOver says that the last holder of a slot's lock was this process, and that it is not held now.
func isOver(file string, pid int) (bool, error) {
	lock, err := os.OpenFile(file, os.O_RDWR|syscall.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // an interface that was named like ours by chance
	}
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return false, nil
	}
	holder, err := io.ReadAll(lock)
	return string(holder) == strconv.Itoa(pid), err
}
