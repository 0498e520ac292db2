package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// The descriptors Start hands to the first process.
const (
	specDescriptor   = 3
	statusDescriptor = 4
)

// Main becomes the sandboxed program if this process was started to be one; otherwise it returns at once.
func Main() {
	if len(os.Args) == 0 || os.Args[0] != initName {
		return
	}
	// The kernel keeps for each thread what to do at the parent's end, and Start told it the first one only: the thread that
	// becomes the program must be told too, and stay the one.
	runtime.LockOSThread()
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0); errno != 0 {
		fmt.Fprintf(os.Stderr, "sandbox: the signal at the parent's end: %v\n", errno)
		os.Exit(127)
	}
	syscall.CloseOnExec(statusDescriptor)
	status := os.NewFile(statusDescriptor, "status")
	err := become(os.NewFile(specDescriptor, "spec"))
	_, _ = status.WriteString(err.Error())
	os.Exit(127)
}

// become returns only if something went wrong.
func become(source *os.File) error {
	var spec Spec
	if err := json.NewDecoder(source).Decode(&spec); err != nil {
		return fmt.Errorf("sandbox: no instructions: %w", err)
	}
	source.Close()
	if err := syscall.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("sandbox: host name: %w", err)
	}
	if err := links(spec.Address); err != nil {
		return err
	}
	if err := mounts(spec); err != nil {
		return err
	}
	if err := syscall.Chroot(spec.Root); err != nil {
		return fmt.Errorf("sandbox: chroot to %s: %w", spec.Root, err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	program, err := lookup(spec.Args, spec.Env)
	if err != nil {
		return err
	}
	return fmt.Errorf("sandbox: %s: %w", program, syscall.Exec(program, spec.Args, spec.Env))
}

// links brings up loopback and, with an address, eth0. There is no default route: what is not on the sandbox's own
// network is unreachable, at once and not after a timeout.
func links(address string) error {
	batch := "link set lo up\n"
	if address != "" {
		batch += "addr add " + address + " dev eth0\nlink set eth0 up\n"
	}
	command := exec.Command("ip", "-batch", "-")
	command.Stdin = strings.NewReader(batch)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("sandbox: ip: %w: %s", err, output)
	}
	return nil
}

// lookup finds the program in the environment's PATH; it runs inside the new root.
func lookup(args, env []string) (string, error) {
	if len(args) == 0 {
		return "", fmt.Errorf("sandbox: no program is named")
	}
	if strings.Contains(args[0], "/") {
		return args[0], nil
	}
	for _, entry := range env {
		path, found := strings.CutPrefix(entry, "PATH=")
		if !found {
			continue
		}
		for _, dir := range filepath.SplitList(path) {
			file := filepath.Join(dir, args[0])
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return file, nil
			}
		}
	}
	return "", fmt.Errorf("sandbox: %s: not found in PATH", args[0])
}
