package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWhatAKilledRunLeftGoesWithTheNext(t *testing.T) {
	o := home(t, "")
	runner := filepath.Join(o.home, "runner")
	if output, err := exec.Command("go", "build", "-o", runner, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	mark := filepath.Join(o.home, "hangs")
	killed := exec.Command(runner, "-home", o.home, "-binary", o.binary, "-module", o.module, "-tests", "./...",
		"-cache", o.cache, "-run", "TestHangs")
	killed.Env = append(os.Environ(), "MINI_HANG="+mark)
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool { _, err := os.Stat(mark); return err == nil })
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.Wait()
	left := func() []string {
		stages, _ := filepath.Glob(fmt.Sprintf("%s/complement-run-%d-*", os.TempDir(), killed.Process.Pid))
		engines, _ := filepath.Glob(fmt.Sprintf("/dev/shm/complement-shim-%d-*", killed.Process.Pid))
		others, _ := filepath.Glob(fmt.Sprintf("%s/complement-shim-%d-*", os.TempDir(), killed.Process.Pid))
		return append(append(stages, engines...), others...)
	}
	if len(left()) == 0 {
		t.Fatal("a killed run left nothing, so that this test shows nothing")
	}
	o.pattern = "TestZLast"
	must(t, o, 0, "\n1 passed, 0 failed\n")
	// The engine's place is chosen anew each time, and may be another if memory has become scarce; it is the same here.
	if paths := left(); len(paths) > 0 {
		t.Fatalf("left: %v", paths)
	}
}

func TestOldLogsArePruned(t *testing.T) {
	o := home(t, "")
	o.pattern = "TestZLast"
	logs := filepath.Join(o.cache, "logs")
	for number := range keptLogs + 5 {
		path, when := filepath.Join(logs, fmt.Sprintf("old-%02d", number)), time.Now().Add(-time.Duration(number+1)*time.Hour)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		os.Chtimes(path, when, when)
	}
	must(t, o, 0)
	entries, _ := os.ReadDir(logs)
	if len(entries) != keptLogs || !strings.Contains(printed(o), "TestZLast") {
		t.Fatalf("%d logs stay: %v", len(entries), entries)
	}
	if _, err := os.Stat(filepath.Join(logs, "old-00")); err != nil {
		t.Fatalf("the newest of the old ones is gone: %v", err)
	}
}

func TestTheTimeOfAFullRunStaysWhenAPackageIsRun(t *testing.T) {
	o := home(t, "")
	r := &runner{options: o}
	if err := r.record(nil, nil, 90*time.Second); err != nil {
		t.Fatal(err)
	}
	r.options.packages = []string{"mini"}
	if err := r.record(nil, []string{"mini"}, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	readme, _ := os.ReadFile(filepath.Join(o.home, "README.md"))
	if strings.Count(string(readme), "\nThe last run of all packages took 1m30s on ") != 1 {
		t.Fatalf("%s", readme)
	}
}

// wait waits until something is so.
func wait(t *testing.T, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatal("waited in vain")
		case <-time.After(50 * time.Millisecond):
		}
	}
}
