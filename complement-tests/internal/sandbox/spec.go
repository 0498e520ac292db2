// Package sandbox runs a program the way a container engine would, with what the kernel and the Go standard library offer.
//
// A sandboxed program is process 1 of namespaces of its own (mounts, network, processes, host name, IPC) and sees a root
// directory of its own. Where that root holds no /usr, the host's system directories are mounted into it read-only, so
// that an image can be a handful of files. The program dies with its parent, even when that is killed, and all that it
// started dies with it: nothing has to be cleaned up but files.
//
// This is isolation for tests that trust what they run, not a security boundary: the program keeps root's powers.
//
// A program that calls [Start] must call [Main] first thing in main (or TestMain): Start runs the program itself again
// as the sandbox's first process, which prepares the mounts and then becomes the sandboxed program.
package sandbox

// Spec says what runs where.
type Spec struct {
	// Root is the directory that becomes /.
	Root string
	// Hostname is what the program sees as the name of its machine.
	Hostname string
	// Address is the IPv4 address with prefix length of the interface eth0, as in "10.0.0.2/24". Empty: no network
	// but loopback. The interface itself is put there by Start's attach function.
	Address string
	// Mounts are further host paths that the program sees.
	Mounts []Mount
	// Env is the whole environment, as KEY=VALUE.
	Env []string
	// Args is the program and its arguments; the program is looked up in Env's PATH, below Root.
	Args []string
}

// Mount is a host file or directory that appears in the sandbox.
type Mount struct {
	// Source is a path on the host; Target the path in the sandbox, made if it does not exist.
	Source, Target string
	// ReadOnly forbids writes.
	ReadOnly bool
}
