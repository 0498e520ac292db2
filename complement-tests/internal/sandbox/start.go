package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// initName is what Start calls the program by when it runs it as the first process of a sandbox; Main looks for it.
const initName = "sandbox-init"

// Process is a sandboxed program, running or ended.
type Process struct {
	// Pid is the process id as the host sees it; it is also the id of the process group.
	Pid int

	cmd  *exec.Cmd
	done chan struct{}

	mu   sync.Mutex // held while a signal is sent, so that no signal goes to a later process with the same id
	code int
	over bool
}

// Start runs a program in a sandbox. attach is called once the namespaces exist and before the program starts, with the
// process id that names them: the place to put a network interface there. It may be nil. Start returns when the program
// itself runs; what went wrong before is the error.
func Start(spec Spec, attach func(pid int) error, stdout, stderr io.Writer) (*Process, error) {
	body, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	specRead, specWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer specWrite.Close()
	statusRead, statusWrite, err := os.Pipe()
	if err != nil {
		specRead.Close()
		return nil, err
	}
	defer statusRead.Close()

	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{initName}, Env: os.Environ(),
		Stdout: stdout, Stderr: stderr, ExtraFiles: []*os.File{specRead, statusWrite},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
			Setpgid:    true,
			Pdeathsig:  syscall.SIGKILL,
		},
	}
	err = cmd.Start()
	specRead.Close()
	statusWrite.Close()
	if err != nil {
		return nil, fmt.Errorf("namespaces cannot be made (root is needed): %w", err)
	}
	process := &Process{Pid: cmd.Process.Pid, cmd: cmd, done: make(chan struct{})}
	go process.wait()

	if attach != nil {
		err = attach(process.Pid)
	}
	if err == nil {
		_, err = specWrite.Write(body)
	}
	specWrite.Close()
	if err == nil {
		err = status(statusRead)
	}
	if err != nil {
		_ = process.Signal(syscall.SIGKILL)
		<-process.done
		return nil, err
	}
	return process, nil
}

// status reads what the sandbox's first process has to say: nothing when it became the program.
func status(from io.Reader) error {
	said, err := io.ReadAll(from)
	if err == nil && len(said) > 0 {
		err = errors.New(string(said))
	}
	return err
}

func (p *Process) wait() {
	err := p.cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.code = p.cmd.ProcessState.ExitCode()
	if wait, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		p.code = 128 + int(wait.Signal())
	}
	if err != nil && p.code == 0 {
		p.code = 1
	}
	close(p.done)
}

// Done is closed when the program has ended and all of its output is written.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode is the program's exit code, 128 plus the signal's number if one ended it. Valid once Done is closed.
func (p *Process) ExitCode() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.code
}

// Signal sends a signal to the program (its children have their own ways to learn of it). It is not an error if the
// program has ended.
func (p *Process) Signal(signal syscall.Signal) error {
	return p.signal(p.Pid, signal)
}

// SignalAll sends a signal to the program and to those of its children that stayed in its process group.
func (p *Process) SignalAll(signal syscall.Signal) error {
	return p.signal(-p.Pid, signal)
}

// Stopped says whether SIGSTOP has taken effect: kill(2) returns before threads on other processors have come to a halt.
func (p *Process) Stopped() bool {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.Pid))
	if err != nil {
		return true // it has ended
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", p.Pid, thread.Name()))
		if err != nil {
			continue // this thread has ended
		}
		// The state follows the name, which is in parentheses and may hold some itself.
		state := bytes.TrimSpace(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(state) > 0 && !bytes.ContainsRune([]byte("TtZX"), rune(state[0])) {
			return false
		}
	}
	return true
}

func (p *Process) signal(pid int, signal syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil
	}
	err := syscall.Kill(pid, signal)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
