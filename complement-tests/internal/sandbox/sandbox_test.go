package sandbox

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func shell(t *testing.T, root, script string, mounts ...Mount) (*Process, *bytes.Buffer) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces need root")
	}
	var out bytes.Buffer
	process, err := Start(Spec{
		Root: root, Hostname: "box", Mounts: mounts,
		Env: []string{"PATH=/usr/bin:/bin", "GREETING=hello"}, Args: []string{"sh", "-c", script},
	}, nil, &out, &out)
	if err != nil {
		t.Fatal(err)
	}
	return process, &out
}

func wait(t *testing.T, process *Process) {
	t.Helper()
	select {
	case <-process.Done():
	case <-time.After(10 * time.Second):
		process.Signal(syscall.SIGKILL)
		t.Fatal("it does not end")
	}
}

func TestAProgramSeesItsOwnRootNameAndProcesses(t *testing.T) {
	root := t.TempDir()
	os.MkdirAll(filepath.Join(root, "etc"), 0o755)
	os.WriteFile(filepath.Join(root, "etc", "hosts"), []byte("its own hosts\n"), 0o644)
	process, out := shell(t, root, `echo $GREETING; hostname; echo $$; cat /etc/hosts; echo kept > /file; touch /usr/x 2>/dev/null || echo read-only; exit 3`)
	wait(t, process)
	if want := "hello\nbox\n1\nits own hosts\nread-only\n"; out.String() != want || process.ExitCode() != 3 {
		t.Fatalf("code %d, %q", process.ExitCode(), out.String())
	}
	if kept, _ := os.ReadFile(filepath.Join(root, "file")); string(kept) != "kept\n" {
		t.Fatalf("the file is %q", kept)
	}
	// And again on the same tree: what the first start needed of mount points is no obstacle.
	process, out = shell(t, root, "ls /usr/bin/env")
	wait(t, process)
	if out.String() != "/usr/bin/env\n" {
		t.Fatalf("%q", out.String())
	}
}

func TestMountsAreSeenAndReadOnlyIfTheySaySo(t *testing.T) {
	host := t.TempDir()
	process, out := shell(t, t.TempDir(), `echo x > /in/w/file; echo x 2>/dev/null > /in/r/file || echo no`,
		Mount{Source: host, Target: "/in/w"}, Mount{Source: host, Target: "/in/r", ReadOnly: true})
	wait(t, process)
	if written, _ := os.ReadFile(filepath.Join(host, "file")); string(written) != "x\n" || !strings.HasSuffix(out.String(), "no\n") {
		t.Fatalf("%q %q", written, out.String())
	}
}

func TestAllThatAProgramStartedEndsWithIt(t *testing.T) {
	root := t.TempDir()
	process, _ := shell(t, root, `setsid sh -c 'while :; do date > /alive; sleep 0.05; done' & while [ ! -s /alive ]; do :; done; exit 0`)
	wait(t, process)
	alive := filepath.Join(root, "alive")
	before, err := os.Stat(alive)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if after, _ := os.Stat(alive); after.ModTime() != before.ModTime() {
		t.Fatal("a child outlived its container")
	}
}

func TestSignalsArrive(t *testing.T) {
	process, out := shell(t, t.TempDir(), `trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.02; done`)
	for range 500 {
		if up, _ := os.ReadFile("/proc/" + strconv.Itoa(process.Pid) + "/stat"); len(up) > 0 {
			break
		}
	}
	time.Sleep(200 * time.Millisecond)
	if err := process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wait(t, process)
	if out.String() != "up\nasked\n" || process.ExitCode() != 0 {
		t.Fatalf("code %d, %q", process.ExitCode(), out.String())
	}
	if err := process.Signal(syscall.SIGKILL); err != nil {
		t.Fatalf("a signal to what has ended: %v", err)
	}
}

func TestWhatCannotStartSaysWhy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("namespaces need root")
	}
	_, err := Start(Spec{Root: t.TempDir(), Hostname: "box", Env: []string{"PATH=/usr/bin"}, Args: []string{"no-such-program"}}, nil, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "no-such-program: not found in PATH") {
		t.Fatalf("%v", err)
	}
}

// The kernel forgets at an exec what it was to do at the parent's end if another thread does the exec than was told.
func TestEveryProgramEndsWithItsParent(t *testing.T) {
	if _, err := os.Stat("/usr/bin/perl"); err != nil || runtime.GOARCH != "amd64" {
		t.Skip("it asks prctl by perl, with amd64's numbers")
	}
	for range 100 {
		// PR_GET_PDEATHSIG
		process, out := shell(t, t.TempDir(), `exec perl -e '$s = pack("i", 0); syscall(157, 2, $s); print unpack("i", $s)'`)
		wait(t, process)
		if out.String() != "9" {
			t.Fatalf("the signal at the parent's end is %q", out.String())
		}
	}
}
